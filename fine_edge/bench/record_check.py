"""Whether a record that was read agrees with itself: its figures must follow from its samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fine_edge.bench.row import Row

if TYPE_CHECKING:
    from fine_edge.bench.record import Record


def check(record: Record, data: dict[str, Any]) -> None:
    """Raise ``ValueError`` where the record contradicts itself."""
    names = [row.model for row in record.rows]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"rows must be named once each, found {names}")
    _check_groups(record, names)
    ends = {len(row.end_to_end_ms) for row in record.rows if row.end_to_end_ms is not None}
    if len(ends) > 1 or 0 in ends:
        raise ValueError(f"rows have {sorted(ends)} end-to-end samples, all need as many")
    for row, said in zip(record.rows, data["rows"], strict=True):
        _check_counts(row, len(record.baseline_of(row).samples_ms))
        derived = {
            "latency_ms": row.latency_ms,
            "fps": row.fps,
            "ratio": record.ratio(row).value,
            "compute_median_ms": row.compute_median_ms,
            "end_to_end_median_ms": row.end_to_end_median_ms,
        }
        for key, value in derived.items():
            if not _agree(said.get(key), value):
                raise ValueError(f"{row.model}: {key} says {said.get(key)}, the samples say {value}")


def _check_groups(record: Record, names: list[str]) -> None:
    for row in record.rows:
        if row.baseline not in (None, *names) or not record.is_baseline(record.baseline_of(row)):
            raise ValueError(f"{row.model}: {row.baseline} is no baseline")
        if record.input_hw != row.input_hw and None not in (record.input_hw, row.input_hw):
            raise ValueError(f"{row.model}: input size {row.input_hw}, the record says {record.input_hw}")
        if record.input_hw is row.input_hw is None:
            raise ValueError(f"{row.model} has no input size")
    fewest = min(len(row.samples_ms) for row in record.rows)
    if fewest != record.rounds:
        raise ValueError(f"a row has {fewest} samples for {record.rounds} rounds")


def _check_counts(row: Row, rounds: int) -> None:
    taken = {"": row.samples_ms, "compute ": row.compute_ms}
    for kind, samples in taken.items():
        if samples is not None and len(samples) != rounds:
            raise ValueError(f"{row.model} has {len(samples)} {kind}samples for {rounds} rounds")


def _agree(said: Any, derived: float | None) -> bool:
    if said is None or derived is None:
        return said is derived
    return math.isclose(float(said), derived, rel_tol=1e-6)
