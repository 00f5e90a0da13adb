"""Layer profiles as tables: one engine by part, and FINE against the model without it."""

from __future__ import annotations

from fine_edge.layers.by_part import PartSum, part_sums, whole
from fine_edge.layers.cost import Cost, Difference
from fine_edge.layers.layer import LayerProfile
from fine_edge.table import Column, Table


def _fixed(value: float | None, digits: int, sign: str = "") -> str | None:
    return None if value is None else f"{value:{sign}.{digits}f}"


def parts_table(profile: LayerProfile) -> Table:
    """Layers, time and MiB by part."""
    titles = ["Kernels", *(("Time (ms)", "Share (%)") if profile.is_timed else ()), "Written (MiB)", "Constants (MiB)"]
    columns = [Column("Part", numeric=False), *map(Column, titles)]
    table = Table(f"Layers by part: {profile.source}", columns, notes=_notes(profile))
    for total in part_sums(profile):
        table.add(_indented(total), *_cells(total, timed=profile.is_timed))
    table.add("all", *_cells(whole(profile), timed=profile.is_timed))
    return table


def _indented(total: PartSum) -> str:
    return f"· {total.part.detail}" if total.part.module == "fine" and total.part.detail else total.title


def _cells(total: PartSum, *, timed: bool) -> list[str | None]:
    times = [_fixed(total.ms, 3), _fixed(total.percent, 1)] if timed else []
    return [str(total.layers), *times, _fixed(total.written_mib, 2), _fixed(total.weights_mib, 2)]


def cost_table(cost: Cost) -> Table:
    """What FINE adds, part by part."""
    timed = cost.fine.is_timed and cost.baseline.is_timed
    titles = ["Kernels without", "Kernels with", "Difference"]
    titles += ["Time without (ms)", "Time with (ms)", "Difference (ms)"] if timed else []
    titles += ["Written: difference (MiB)", "Constants: difference (MiB)"]
    columns = [Column("Part", numeric=False), *map(Column, titles)]
    table = Table(f"What FINE costs: {cost.fine.source}, against {cost.baseline.source}", columns)
    for difference in cost.by_part:
        table.add(difference.title.replace("FINE: ", "· "), *_difference_cells(difference, timed=timed))
    table.notes = [cost.summary()]
    if cost.fine.is_timed != cost.baseline.is_timed:
        table.notes.append("Only one of the two was timed, so no times are compared.")
    if timed:
        table.notes.append("Times were taken apart; a part that is the same in both shows how far they can be trusted.")
    return table


def _difference_cells(difference: Difference, *, timed: bool) -> list[str | None]:
    before, after = difference.before, difference.after
    cells: list[str | None] = [str(before.layers), str(after.layers), f"{difference.layers:+d}"]
    cells += [_fixed(before.ms, 3), _fixed(after.ms, 3), _fixed(difference.ms, 3, "+")] if timed else []
    return [*cells, _fixed(difference.written_mib, 2, "+"), _fixed(difference.weights_mib, 2, "+")]


def _notes(profile: LayerProfile) -> list[str]:
    notes = []
    if profile.is_timed:
        notes.append(
            "Time: of each layer with a profiler attached, which keeps layers from overlapping; shares can be trusted,"
            " sums are above an inference's time."
        )
    else:
        notes.append("Not timed: no GPU took part, or no profile was given.")
    if profile.compute_ms is not None and profile.latency_ms is not None:
        notes.append(
            f"An inference without the profiler, medians: compute {profile.compute_ms:.3f} ms, latency (H2D + compute +"
            f" D2H) {profile.latency_ms:.3f} ms."
        )
    if profile.activation_mib is not None:
        notes.append(f"The compiler plans {profile.activation_mib:.2f} MiB for all activations, reusing memory.")
    notes.append(
        "Written: activations that the layers write, each counted, MiB = 2^20 bytes. Constants: weights they read, each"
        " counted once."
    )
    mixed = [layer for layer in profile.layers if layer.is_mixed]
    if mixed:
        percents = [layer.percent for layer in mixed if layer.percent is not None]
        share = f", {sum(percents):.1f} % of the time" if percents else ""
        notes.append(
            f"Fused from nodes of several parts and counted for that with most{share}:"
            f" {', '.join(layer.name for layer in mixed)}."
        )
    nameless = sum(layer.part.module == "other" and not layer.onnx_nodes for layer in profile.layers)
    if nameless:
        notes.append(f"Without a node of the model, as copies and folded constants are: {nameless}.")
    return notes
