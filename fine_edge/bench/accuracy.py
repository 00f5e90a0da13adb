"""The accuracy of what was timed, from evaluations of the very same files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fine_edge.bench.record import Record
from fine_edge.bench.row import Row
from fine_edge.evaluate.known import Known, of_one_data_set


def _timed_sha256(row: Row) -> str:
    """Of the file that ran: an engine can compute otherwise than the ONNX file that it was built from."""
    return row.engine.engine_sha256 if row.engine else row.artifact_sha256


def with_accuracy(record: Record, evaluations: Iterable[Known]) -> Record:
    """The record with the figures of every row that was evaluated, by sha256; other rows stay as they are."""
    found = of_one_data_set(evaluations, {_timed_sha256(row) for row in record.rows})
    if not found:
        return record
    rows = tuple(
        replace(row, accuracy=found[_timed_sha256(row)].figures) if _timed_sha256(row) in found else row
        for row in record.rows
    )
    some = next(iter(found.values()))
    return replace(record, rows=rows, accuracy_data=f"{some.data} ({some.images} images)")
