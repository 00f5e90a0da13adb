"""Two records side by side, where they may be compared at all."""

from __future__ import annotations

from fine_edge import machine
from fine_edge.bench.record import Record
from fine_edge.bench.statistics import unpaired_ratio
from fine_edge.bench.wording import power_modes
from fine_edge.errors import RecordError
from fine_edge.table import Column, Table


def differences(a: Record, b: Record) -> list[str]:
    """What forbids comparing two records, as ``field: a / b``."""
    fields: dict[str, tuple[object, object]] = {
        "backend": (a.backend, b.backend),
        "precision": (a.precision, b.precision),
        "input size": (f"{a.input_hw[0]}x{a.input_hw[1]}", f"{b.input_hw[0]}x{b.input_hw[1]}"),
        "threads": (a.threads, b.threads),
        "CUDA graph": (a.cuda_graph, b.cuda_graph),
        "estimate": (a.estimate, b.estimate),
        "power mode": ("/".join(power_modes(a)) or None, "/".join(power_modes(b)) or None),
    }
    left, right = a.platform or {}, b.platform or {}
    fields |= {f"platform {key}": (left.get(key), right.get(key)) for key in sorted({*left, *right})}
    unequal = [f"{name}: {mine} / {other}" for name, (mine, other) in fields.items() if mine != other]
    return machine.unlike(a.machine, b.machine) + unequal + _row_precisions(a, b)


def _row_precisions(a: Record, b: Record) -> list[str]:
    """Rows of one model in unlike precisions, where the records as a whole agree."""
    if a.precision != b.precision:
        return []
    later = {row.model: row.precision or b.precision for row in b.rows}
    mine = {row.model: row.precision or a.precision for row in a.rows if row.model in later}
    return [f"precision of {name}: {was} / {later[name]}" for name, was in mine.items() if was != later[name]]


def compare(a: Record, b: Record) -> Table:
    """Latency of ``b`` over ``a`` for every model in both.

    Raises:
        RecordError: when they come from unlike machines or settings, or share no model.
    """
    unlike = differences(a, b)
    if unlike:
        raise RecordError(
            f"the records cannot be compared, they differ in {'; '.join(unlike)}",
            mend="measure both on one machine with the same options",
        )
    later = {row.model: row for row in b.rows}
    if not any(row.model in later for row in a.rows):
        raise RecordError("the records have no model in common")
    columns = ["A: latency (ms)", "B: latency (ms)", "B / A", "95 % CI", "A: ratio to baseline", "B: ratio to baseline"]
    device = a.machine.get("gpu") or a.machine.get("cpu")
    table = Table(
        f"B against A on {device}",
        [Column("Model", numeric=False), *map(Column, columns)],
    )
    for row in a.rows:
        if row.model not in later:
            continue
        other = later[row.model]
        ratio = unpaired_ratio(other.samples_ms, row.samples_ms)
        cells = [f"{row.latency_ms:.2f}", f"{other.latency_ms:.2f}", f"{ratio.value:.3f}"]
        cells += [f"{ratio.low:.3f} .. {ratio.high:.3f}", f"{a.ratio(row).value:.3f}", f"{b.ratio(other).value:.3f}"]
        table.add(row.model, *cells)
    table.notes = _notes(a, b)
    return table


def _notes(a: Record, b: Record) -> list[str]:
    notes = [
        "A and B were measured at different times, so drift of the machine does not cancel in B / A;"
        " the ratios to the baseline were measured interleaved and can be trusted further."
    ]
    for name, record in (("A", a), ("B", b)):
        bad = [f"{row.model} {row.state.verdict.stamp}" for row in record.rows if row.state and not row.is_quotable]
        if bad:
            notes.append(f"{name} holds rows that are not to be quoted: {', '.join(bad)}.")
    moved = machine_libraries(a, b)
    if moved:
        notes.append(f"Libraries differ: {', '.join(moved)}.")
    return notes


def machine_libraries(a: Record, b: Record) -> list[str]:
    """Libraries whose versions differ, as ``name a / b``."""
    left, right = a.machine.get("libraries") or {}, b.machine.get("libraries") or {}
    names = sorted(set(left) | set(right))
    return [f"{name} {left.get(name)} / {right.get(name)}" for name in names if left.get(name) != right.get(name)]
