"""Constants from a user's own board: its bench records, and the ONNX files that their rows are of."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from fine_edge.bench.record import Record, Row, read_record
from fine_edge.bench.statistics import median
from fine_edge.errors import ArtifactError, RecordError
from fine_edge.estimate.calibration import Calibration
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.engine import EngineWork, engine_work
from fine_edge.estimate.fit import FitRow, fit
from fine_edge.graph.identity import identity_of


def calibrate_on_records(paths: Sequence[Path], device: Device, mode: Mode, folder: Path) -> Calibration:
    """Fit to the GPU compute times of TensorRT records.

    Args:
        paths: of records of one board in one power mode.
        device: the board's profile.
        mode: that they were measured in.
        folder: where the ONNX files of their rows are, at any depth.

    Raises:
        RecordError: when a record holds no GPU compute times.
        ArtifactError: when a row's ONNX file is not in the folder.
        ConfigError: when there are too few rows.
    """
    rows = [row for path in paths for row in _timed_rows(read_record(path), path)]
    # A model that was measured twice counts once, the last time.
    rows = list({row.artifact_sha256: row for row in rows}.values())
    files = _by_identity(folder)
    engines = [_engine(row, files, device, folder) for row in rows]
    fitted = [
        FitRow(row.model, engine.works, median(row.compute_ms or ())) for row, engine in zip(rows, engines, strict=True)
    ]
    copies = [_copy_gb_s(row, engine) for row, engine in zip(rows, engines, strict=True)]
    found = fit(fitted, device, mode, float(f"{median(copies):.4g}"))
    origin = f"own records {', '.join(path.name for path in paths)} ({len(rows)} models)"
    return Calibration(device.name, mode.name, found.constants, origin, found.rows, found.left_out, engines[0].compiler)


def _by_identity(folder: Path) -> dict[str, Path]:
    """The ONNX files below a folder; those that cannot be read are no row's."""
    found = {}
    for path in sorted(folder.rglob("*.onnx")):
        with contextlib.suppress(ArtifactError):
            found[identity_of(path)] = path
    return found


def _timed_rows(record: Record, path: Path) -> list[Row]:
    rows = [row for row in record.rows if row.compute_ms]
    if record.backend != "tensorrt" or record.estimate or not rows:
        what = f"holds no GPU times of TensorRT (backend {record.backend})"
        raise RecordError(what, where=path, mend="on the board: python -m fine_edge.bench --backend trt --json FILE")
    return rows


def _engine(row: Row, files: dict[str, Path], device: Device, folder: Path) -> EngineWork:
    if row.artifact_sha256 not in files:
        raise ArtifactError(
            f"the ONNX file of {row.model} is not here (sha256 {row.artifact_sha256[:12]}...)",
            where=folder,
            mend="copy the board's engines folder here, or name it with --artifacts",
        )
    return engine_work(files[row.artifact_sha256], device, row.model)


def _copy_gb_s(row: Row, engine: EngineWork) -> float:
    """Bytes of input and outputs over the time that a latency has beyond the kernels'."""
    copied_ms = row.latency_ms - median(row.compute_ms or ())
    # A record whose copies take no time says nothing of them; this is slower than any board and harmless.
    return engine.io_bytes / 1e6 / max(copied_ms, 1e-3)
