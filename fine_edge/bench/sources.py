"""Open whatever holds measurements: a record of the bench, an imported record, or trtexec's log itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fine_edge.bench.imported import BACKEND, ImportedRecord, import_logs, parse_imported
from fine_edge.bench.record import HINT as RECORD_HINT
from fine_edge.bench.record import MOST_BYTES, Record, parse_record
from fine_edge.errors import ArtifactError, RecordError
from fine_edge.files import read_json
from fine_edge.trtexec.exported import exported_kind, read_exported
from fine_edge.trtexec.reading import HINT as LOG_HINT
from fine_edge.trtexec.reading import NO_LOG, is_json

Measurements = Record | ImportedRecord


def read_measurements(path: Path) -> Measurements:
    """Return what a file holds, by its content.

    Raises:
        RecordError: when it is missing, broken, of another kind, or one of trtexec's other files.
    """
    if not is_json(path, RECORD_HINT):
        return _read_log(path)
    try:
        data = read_json(path, RecordError, hint=RECORD_HINT, limit=MOST_BYTES)
    except RecordError:
        _refuse_exported(path)
        raise
    _refuse_kind(data, path)
    is_imported = isinstance(data, dict) and data.get("backend") == BACKEND
    return parse_imported(data, path) if is_imported else parse_record(data, path)


def read_logs(paths: Sequence[Path], names: Sequence[str] = ()) -> ImportedRecord:
    """Return a row for every run in the logs; see :func:`fine_edge.bench.imported.import_logs`.

    Raises:
        FineEdgeError: as that function, and for a JSON file.
    """
    for path in paths:
        if is_json(path, LOG_HINT):
            _refuse_exported(path)
            raise RecordError("is JSON and no log of trtexec", where=path, hint="fine-edge bench show takes a record")
    return import_logs(paths, names)


def _read_log(path: Path) -> ImportedRecord:
    try:
        return import_logs([path])
    except RecordError as error:
        if error.what != NO_LOG:
            raise
        raise RecordError(f"is no JSON, as a record is, and {NO_LOG[3:]}", where=path, hint=RECORD_HINT) from error


def _refuse_exported(path: Path) -> None:
    """Refuse a file of trtexec that is no strict JSON, because trtexec does not escape names."""
    try:
        data = read_exported(path, RECORD_HINT)
    except ArtifactError:
        return
    _refuse_kind(data, path)


def _refuse_kind(data: object, path: Path) -> None:
    kind = exported_kind(data)
    if kind:
        what = f"is what trtexec {kind.option} writes, no record: it does not say on what it was measured"
        raise RecordError(what, where=path, hint=f"{kind.taken_by}; here give trtexec's log")
