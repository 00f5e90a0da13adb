"""Compare rows of which only medians are known: an imported record with another, or with one of the bench."""

from __future__ import annotations

from dataclasses import dataclass

from fine_edge.bench.compare import compare
from fine_edge.bench.imported import ImportedRecord, ImportedRow
from fine_edge.bench.paper import fixed, power_modes
from fine_edge.bench.record import Record, Row
from fine_edge.bench.sources import Measurements
from fine_edge.errors import RecordError
from fine_edge.table import Column, Table

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


def compare_any(a: Measurements, b: Measurements) -> Table:
    """Return the table of two records of any kind.

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
    for mine, other in pairs:
        name = mine.model if mine.model == other.model else f"{mine.model} / {other.model}"
        cells = _cells(mine.latency_ms, other.latency_ms, 2) + _cells(mine.compute_ms, other.compute_ms, 2)
        table.add(name, *cells, *_cells(mine.fps, other.fps, 1))
    table.notes = _notes(a, b, pairs)
    return table


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


def _cells(a: float | None, b: float | None, digits: int) -> list[str | None]:
    ratio = b / a if a and b else None
    return [fixed(a, digits), fixed(b, digits), fixed(ratio, 3)]


def _notes(a: Measurements, b: Measurements, pairs: list[tuple[MedianRow, MedianRow]]) -> list[str]:
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
