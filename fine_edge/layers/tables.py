"""Show layer profiles as tables: one engine by part, and FINE against the model without it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge import files
from fine_edge.figure import new_figure, to_png
from fine_edge.layers.cost import FineCost, PartDifference
from fine_edge.layers.layer import LayerProfile, LayerTime, PartSum, part_sums, whole
from fine_edge.table import Column, Table
from fine_edge.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _fixed(value: float | None, digits: int, sign: str = "") -> str | None:
    return None if value is None else f"{value:{sign}.{digits}f}"


def parts_table(profile: LayerProfile) -> Table:
    """Return kernels, time and MiB by part."""
    titles = ["Kernels", *(("Time (ms)", "Share (%)") if profile.is_timed else ()), "Written (MiB)", "Constants (MiB)"]
    columns = [Column("Part", numeric=False), *map(Column, titles)]
    table = Table(f"Layers by part: {profile.source}", columns, notes=_notes(profile), brief=_brief(profile))
    for total in part_sums(profile):
        table.add(_indented(total), *_cells(total, timed=profile.is_timed))
    table.add("all", *_cells(whole(profile), timed=profile.is_timed))
    return table


def _indented(total: PartSum) -> str:
    return f"· {total.part.detail}" if total.part.module == "fine" and total.part.detail else total.title


def _cells(total: PartSum, *, timed: bool) -> list[str | None]:
    times = [_fixed(total.ms, 3), _fixed(total.percent, 1)] if timed else []
    return [str(total.kernels), *times, _fixed(total.written_mib, 2), _fixed(total.weights_mib, 2)]


def cost_table(cost: FineCost) -> Table:
    """Return what FINE adds, part by part."""
    timed = cost.fine.is_timed and cost.baseline.is_timed
    times = ["Time without (ms)", "Time with (ms)", "Difference (ms)"] if timed else []
    columns = [
        Column("Part", numeric=False),
        *map(Column, ["Kernels without", "Kernels with", "Difference"]),
        *(Column(title, group="times") for title in times),
        *(Column(title, group="memory") for title in ("Written: difference (MiB)", "Constants: difference (MiB)")),
    ]
    table = Table(f"What FINE costs: {cost.fine.source}, against {cost.baseline.source}", columns)
    for difference in cost.by_part:
        table.add(difference.title.replace("FINE: ", "· "), *_difference_cells(difference, timed=timed))
    table.notes = [cost.summary()]
    if cost.fine.is_timed != cost.baseline.is_timed:
        table.notes.append("Only one of the two was timed, so no times are compared.")
    if timed:
        table.notes.append("Times were taken apart; a part that is the same in both shows how far they can be trusted.")
    return table


def _difference_cells(difference: PartDifference, *, timed: bool) -> list[str | None]:
    before, after = difference.before, difference.after
    cells: list[str | None] = [str(before.kernels), str(after.kernels), f"{difference.kernels:+d}"]
    cells += [_fixed(before.ms, 3), _fixed(after.ms, 3), _fixed(difference.ms, 3, "+")] if timed else []
    return [*cells, _fixed(difference.written_mib, 2, "+"), _fixed(difference.weights_mib, 2, "+")]


def _brief(profile: LayerProfile) -> list[str]:
    """Return what a terminal shows without ``--explain``."""
    notes = [_timing_note(profile), *_whole_notes(profile), *profile.remarks]
    mixed = [layer for layer in profile.layers if layer.is_mixed]
    if mixed:
        notes.append(f"{len(mixed)} layers are fused from nodes of several parts{_share(mixed)}.")
    return notes


def _notes(profile: LayerProfile) -> list[str]:
    notes = [_timing_note(profile), *_whole_notes(profile), *profile.remarks]
    notes.append(
        "Kernels: layers that run on the GPU; views (NoOp), shapes of the host (shape_call), constants and waiting"
        " streams are layers, and none. Written: activations that kernels write, each counted, MiB = 2^20 bytes."
        " Constants: weights they read, and inputs that no layer writes and nobody gives, each counted once."
    )
    mixed = [layer for layer in profile.layers if layer.is_mixed]
    if mixed:
        notes.append(
            f"Fused from nodes of several parts and counted for that with most{_share(mixed)}:"
            f" {', '.join(layer.name for layer in mixed)}."
        )
    nameless = sum(layer.part.module == "other" and not layer.onnx_nodes for layer in profile.layers)
    if nameless:
        notes.append(f"Without a node of the model, as copies and folded constants are: {nameless}.")
    return notes


def _share(layers: Sequence[LayerTime]) -> str:
    percents = [layer.percent for layer in layers if layer.percent is not None]
    return f", {sum(percents):.1f} % of the time" if percents else ""


def _timing_note(profile: LayerProfile) -> str:
    if not profile.is_timed:
        return "Not timed: no GPU took part, or no profile was given."
    return (
        "Time: of each layer with a profiler attached, which keeps layers from overlapping; shares can be trusted,"
        " sums are above an inference's time."
    )


def _whole_notes(profile: LayerProfile) -> list[str]:
    """Return the figures of an inference as a whole."""
    notes = []
    if profile.compute_ms is not None:
        latency = "no latency: copies were not timed alone"
        if profile.latency_ms is not None:
            latency = f"latency (H2D + compute + D2H) {profile.latency_ms:.3f} ms"
        notes.append(f"An inference without the profiler, medians: compute {profile.compute_ms:.3f} ms, {latency}.")
    if profile.activation_mib is not None:
        notes.append(f"The compiler plans {profile.activation_mib:.2f} MiB for all activations, reusing memory.")
    return notes


_FINE = "#b5651d"
_DETAIL = "#d9a066"
_REST = "#0b6e8f"
_LINE_CHARACTERS = 74


def write_picture(profile: LayerProfile, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    files.write_bytes(path, to_png(lambda: draw(profile), 160))


def draw(profile: LayerProfile, width_in: float = 7.0, *, titled: bool = True) -> Figure:
    """Draw time by part where the layers were timed, kernels by part otherwise."""
    totals = part_sums(profile)
    figure = new_figure(width_in, 1.2 + 0.34 * len(totals))
    axes = figure.add_subplot()
    values = [_value(total, timed=profile.is_timed) for total in totals]
    axes.barh(range(len(totals)), values, 0.62, color=[_color(total) for total in totals])
    for place, total in enumerate(totals):
        axes.annotate(
            _label(total, timed=profile.is_timed),
            (values[place], place),
            (5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(totals)), [_indented(total) for total in totals])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.28 * max(values, default=1) or 1)
    axes.set_xlabel("ms, with a profiler attached" if profile.is_timed else "kernels (not timed)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if titled:
        title = textwrap.fill(printable(f"Layers by part: {profile.source}"), _LINE_CHARACTERS)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _value(total: PartSum, *, timed: bool) -> float:
    return (total.ms or 0.0) if timed else float(total.kernels)


def _label(total: PartSum, *, timed: bool) -> str:
    if not timed:
        return str(total.kernels)
    return "-" if total.ms is None else f"{total.ms:.3f} ms, {total.percent or 0:.1f} %"


def _color(total: PartSum) -> str:
    if total.part.module != "fine":
        return _REST
    return _DETAIL if total.part.detail else _FINE
