"""Compare two records, where their machines and settings allow it; also where only medians are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fine_edge import machine
from fine_edge.bench.imported import ImportedRecord, ImportedRow
from fine_edge.bench.paper import fixed, power_modes, size_text
from fine_edge.bench.record import Record, Row
from fine_edge.bench.sources import Measurements
from fine_edge.errors import RecordError
from fine_edge.fields import to_data
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


@dataclass(frozen=True)
class Compared:
    """Two records side by side.

    Attributes:
        table: what people read.
        rows: the figures of each model in both, under names with their units.
    """

    table: Table
    rows: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return the figures, with the sentences that belong to them."""
        return {"title": self.table.title, "rows": self.rows, "notes": self.table.notes}


def compare(a: Record, b: Record) -> Compared:
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
    rows: list[dict[str, Any]] = []
    for row in a.rows:
        if row.model not in later:
            continue
        other = later[row.model]
        ratio = unpaired_ratio(other.samples_ms, row.samples_ms)
        cells = [f"{row.latency_ms:.2f}", f"{other.latency_ms:.2f}", f"{ratio.value:.3f}"]
        cells += [f"{ratio.low:.3f} .. {ratio.high:.3f}", f"{a.ratio(row).value:.3f}", f"{b.ratio(other).value:.3f}"]
        table.add(row.model, *cells)
        figures = {"a_latency_ms": row.latency_ms, "b_latency_ms": other.latency_ms, "latency_ratio": to_data(ratio)}
        baselines = {"a_ratio_to_baseline": to_data(a.ratio(row)), "b_ratio_to_baseline": to_data(b.ratio(other))}
        rows.append({"model": row.model, **figures, **baselines})
    table.notes = _notes(a, b)
    return Compared(table, rows)


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


# Compare rows of which only medians are known: an imported record with another, or with one of the bench.

# What trtexec and our runner of it both are, where the bench's records name their backend.
_TENSORRT = "tensorrt"


@dataclass(frozen=True)
class MedianRow:
    """Medians of a row, and the conditions they hold under; ``None`` for what is unknown."""

    model: str
    latency_ms: float | None
    compute_ms: float | None
    fps: float | None
    step_ms: float | None
    conditions: dict[str, object]


def compare_any(a: Measurements, b: Measurements) -> Compared:
    """Return two records of any kind side by side.

    Raises:
        RecordError: when they come from unlike machines or settings, share no model, or hold no times.
    """
    if isinstance(a, Record) and isinstance(b, Record):
        return compare(a, b)
    pairs = _pairs(_rows(a), _rows(b))
    unlike = list(dict.fromkeys(text for pair in pairs for text in _differences(*pair)))
    if unlike:
        raise RecordError(
            f"the records cannot be compared, they differ in {'; '.join(unlike)}",
            hint="compare runs of one device with the same options",
        )
    titles = ["A: latency (ms)", "B: latency (ms)", "Latency B / A"]
    titles += ["A: compute (ms)", "B: compute (ms)", "Compute B / A", "A: FPS", "B: FPS", "FPS B / A"]
    groups = ["", "", "", *["compute"] * 3, *["FPS"] * 3]
    columns = [Column(title, group=group) for title, group in zip(titles, groups, strict=True)]
    table = Table(f"B, {b.title}, against A, {a.title}", [Column("Model", numeric=False), *columns])
    rows: list[dict[str, Any]] = []
    for mine, other in pairs:
        name = mine.model if mine.model == other.model else f"{mine.model} / {other.model}"
        cells = _cells(mine.latency_ms, other.latency_ms, 2) + _cells(mine.compute_ms, other.compute_ms, 2)
        table.add(name, *cells, *_cells(mine.fps, other.fps, 1))
        rows.append({"model": name, **_figures(mine, other)})
    table.notes = _median_notes(a, b, pairs)
    return Compared(table, rows)


def _rows(record: Measurements) -> list[MedianRow]:
    if isinstance(record, Record):
        return [_measured(record, row) for row in record.rows]
    if not record.timed:
        raise RecordError("holds builds of engines and no times", where=record.title, hint="give logs of timed runs")
    return [_imported(row) for row in record.timed]


def _measured(record: Record, row: Row) -> MedianRow:
    platform = record.platform or {}
    conditions: dict[str, object] = {
        "backend": record.backend,
        "estimate": record.estimate,
        "GPU": platform.get("gpu"),
        "SM": platform.get("sm"),
        "TensorRT": platform.get("tensorrt"),
        "power mode": "/".join(power_modes(record)) or None,
        "precision": row.precision or record.precision,
        "CUDA graph": record.cuda_graph,
        "batch": row.images,
        "streams": 1,
    }
    return MedianRow(row.model, row.latency_ms, row.compute_median_ms, row.fps, None, conditions)


def _imported(row: ImportedRow) -> MedianRow:
    conditions: dict[str, object] = {
        "backend": _TENSORRT,
        "estimate": False,
        "GPU": row.platform.gpu,
        "SM": row.platform.sm,
        "TensorRT": row.tensorrt,
        "power mode": row.power_mode,
        "precision": None if row.precision == "strongly typed" else row.precision,
        "CUDA graph": row.cuda_graph,
        "batch": row.batch,
        "streams": row.streams,
    }
    return MedianRow(row.model, row.latency_ms, row.compute_ms, row.fps, row.step_ms, conditions)


def _pairs(a: list[MedianRow], b: list[MedianRow]) -> list[tuple[MedianRow, MedianRow]]:
    """Return the rows of one name; two single rows are a pair whatever they are called."""
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    later = {row.model: row for row in b}
    found = [(row, later[row.model]) for row in a if row.model in later]
    if not found:
        raise RecordError("the records have no model in common", hint="name rows alike with bench import --name")
    return found


def _differences(a: MedianRow, b: MedianRow) -> list[str]:
    """Return conditions that both know and that differ."""
    both = [(name, mine, b.conditions[name]) for name, mine in a.conditions.items()]
    return [f"{name}: {mine} / {other}" for name, mine, other in both if None not in (mine, other) and mine != other]


def _ratio(a: float | None, b: float | None) -> float | None:
    return b / a if a and b else None


def _cells(a: float | None, b: float | None, digits: int) -> list[str | None]:
    return [fixed(a, digits), fixed(b, digits), fixed(_ratio(a, b), 3)]


def _figures(a: MedianRow, b: MedianRow) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for name, unit in (("latency", "_ms"), ("compute", "_ms"), ("fps", "")):
        mine, other = getattr(a, name + unit), getattr(b, name + unit)
        figures |= {f"a_{name}{unit}": mine, f"b_{name}{unit}": other, f"{name}_ratio": _ratio(mine, other)}
    return figures


def _median_notes(a: Measurements, b: Measurements, pairs: list[tuple[MedianRow, MedianRow]]) -> list[str]:
    imported = " and ".join(name for name, record in (("A", a), ("B", b)) if isinstance(record, ImportedRecord))
    notes = [f"Imported from logs of trtexec: {imported}. Medians of runs at different times; no interval follows."]
    unknown = dict.fromkeys(
        name for pair in pairs for row in pair for name, value in row.conditions.items() if value is None
    )
    if unknown:
        notes.append(f"Not known of every row, so not checked: {', '.join(unknown)}.")
    if any(row.latency_ms is None for pair in pairs for row in pair):
        notes.append("A dash: the log has no latency, only compute and throughput; show it to see why.")
    below = [mine.model for mine, other in pairs if _is_below_step(mine, other)]
    if below:
        notes.append(f"Compute times differ by less than the clock of long runs steps: {', '.join(below)}.")
    return notes


def _is_below_step(a: MedianRow, b: MedianRow) -> bool:
    if a.compute_ms is None or b.compute_ms is None or a.compute_ms == b.compute_ms:
        return False
    return abs(a.compute_ms - b.compute_ms) < max(a.step_ms or 0, b.step_ms or 0)
