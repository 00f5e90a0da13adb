"""Two records side by side, where they may be compared at all."""

from __future__ import annotations

from fine_edge import machine
from fine_edge.bench.record import Record
from fine_edge.bench.statistics import unpaired_ratio
from fine_edge.errors import RecordError
from fine_edge.table import Column, Table


def differences(a: Record, b: Record) -> list[str]:
    """What forbids comparing two records, as ``field: a / b``."""
    fields = {
        "backend": (a.backend, b.backend),
        "precision": (a.precision, b.precision),
        "input size": (f"{a.input_hw[0]}x{a.input_hw[1]}", f"{b.input_hw[0]}x{b.input_hw[1]}"),
        "threads": (a.threads, b.threads),
    }
    unequal = [f"{name}: {left} / {right}" for name, (left, right) in fields.items() if left != right]
    return machine.unlike(a.machine, b.machine) + unequal


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
    table = Table(f"B against A on {a.machine.get('cpu')}", [Column("Model", numeric=False), *map(Column, columns)])
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
    moved = machine_libraries(a, b)
    if moved:
        notes.append(f"Libraries differ: {', '.join(moved)}.")
    return notes


def machine_libraries(a: Record, b: Record) -> list[str]:
    """Libraries whose versions differ, as ``name a / b``."""
    left, right = a.machine.get("libraries") or {}, b.machine.get("libraries") or {}
    names = sorted(set(left) | set(right))
    return [f"{name} {left.get(name)} / {right.get(name)}" for name in names if left.get(name) != right.get(name)]
