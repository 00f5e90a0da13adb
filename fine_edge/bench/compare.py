"""Compare two records, where their machines and settings allow it."""

from __future__ import annotations

from collections.abc import Callable

from fine_edge import machine
from fine_edge.bench.paper import power_modes, size_text
from fine_edge.bench.record import Record, Row
from fine_edge.errors import RecordError
from fine_edge.samples import unpaired_ratio
from fine_edge.table import Column, Table


def differences(a: Record, b: Record) -> list[str]:
    """Return what forbids comparing two records, as ``field: a / b``."""
    fields: dict[str, tuple[object, object]] = {
        "backend": (a.backend, b.backend),
        "precision": (a.precision, b.precision),
        "threads": (a.threads, b.threads),
        "CUDA graph": (a.cuda_graph, b.cuda_graph),
        "estimate": (a.estimate, b.estimate),
        "power mode": ("/".join(power_modes(a)) or None, "/".join(power_modes(b)) or None),
    }
    left, right = a.platform or {}, b.platform or {}
    fields |= {f"platform {key}": (left.get(key), right.get(key)) for key in sorted({*left, *right})}
    unequal = [f"{name}: {mine} / {other}" for name, (mine, other) in fields.items() if mine != other]
    precisions = _unlike_rows("precision", a, b, lambda record, row: row.precision or record.precision)
    sizes = _unlike_rows("input size", a, b, lambda _, row: size_text(row.input_hw))
    # Said once of the records, not again of every row.
    return machine.unlike(a.machine, b.machine) + unequal + (precisions if a.precision == b.precision else []) + sizes


def _unlike_rows(name: str, a: Record, b: Record, of: Callable[[Record, Row], str]) -> list[str]:
    """Return the models in both whose rows differ, each named unless all differ alike."""
    later = {row.model: of(b, row) for row in b.rows}
    pairs = {row.model: (of(a, row), later[row.model]) for row in a.rows if row.model in later}
    unequal = {model: f"{was} / {now}" for model, (was, now) in pairs.items() if was != now}
    if len(unequal) == len(pairs) > 1 and len(set(unequal.values())) == 1:
        return [f"{name}: {next(iter(unequal.values()))}"]
    return [f"{name} of {model}: {values}" for model, values in unequal.items()]


def compare(a: Record, b: Record) -> Table:
    """Return the latency of ``b`` over ``a`` for every model in both.

    Raises:
        RecordError: when they come from unlike machines or settings, or share no model.
    """
    unlike = differences(a, b)
    if unlike:
        raise RecordError(
            f"the records cannot be compared, they differ in {'; '.join(unlike)}",
            hint="measure both on one machine with the same options",
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
    """Return the libraries whose versions differ, as ``name a / b``."""
    left, right = a.machine.get("libraries") or {}, b.machine.get("libraries") or {}
    names = sorted(set(left) | set(right))
    return [f"{name} {left.get(name)} / {right.get(name)}" for name in names if left.get(name) != right.get(name)]
