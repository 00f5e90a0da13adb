"""Fit the constants to a user's own records of a board."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fine_edge.bench.record import Record, Row, read_record
from fine_edge.errors import ArtifactError, ConfigError, RecordError
from fine_edge.estimate.calibration import Calibration
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.engine import EngineWork, engine_work
from fine_edge.estimate.least_squares import FitRow, Rows, fit, interval, left_out_errors, relative, rounded
from fine_edge.graph.identity import identity_of
from fine_edge.samples import median

# Fewer rows say more of one network than of the board.
FEWEST_ROWS = 4

# What rows of one board in FP16 can tell; the start of the fit holds the others.
OWN_CONSTANTS = ("tensor_share", "memory_share", "gather_share", "kernel_clocks")


def calibrate_on_records(
    paths: Sequence[Path], device: Device, mode: Mode, folder: Path, known: Calibration
) -> Calibration:
    """Fit the constants to the GPU compute times of TensorRT records.

    Args:
        paths: records of one board in one power mode.
        device: the board's profile.
        mode: power mode of the records.
        folder: where the ONNX files of the rows are, at any depth.
        known: a calibration whose constants hold where the rows say nothing of one.

    Raises:
        RecordError: when a record holds no GPU compute times.
        ArtifactError: when a row's ONNX file is not in the folder.
        ConfigError: when there are too few rows.
    """
    records = [(read_record(path), path) for path in paths]
    # Of a model that was measured twice the last row counts.
    timed = {row.artifact_sha256: (row, record) for record, path in records for row in _timed_rows(record, path)}
    rows = [row for row, _ in timed.values()]
    if len(rows) < FEWEST_ROWS:
        raise ConfigError(f"{len(rows)} measured rows cannot tell how fast a board is", hint="measure more models")
    files = _by_identity(folder)
    engines = [_engine(row, files, device, folder) for row in rows]
    measured = Rows(
        [
            FitRow(row.model, engine.works, median(row.compute_ms or ()), device, mode, graph=record.cuda_graph)
            for (row, record), engine in zip(timed.values(), engines, strict=True)
        ]
    )
    copies = [_copy_gb_s(row, engine) for row, engine in zip(rows, engines, strict=True)]
    start = replace(known.constants, copy_gb_s=float(f"{median(copies):.4g}"))
    constants = rounded(fit(measured, start, OWN_CONSTANTS, near=True))
    unseen = left_out_errors(measured, start, OWN_CONSTANTS, lambda row: row.name, near=True)
    names = [row.model for row in rows]
    return Calibration(
        devices=(device.name,),
        mode=mode.name,
        constants=constants,
        origin=f"own records {', '.join(path.name for path in paths)} ({len(rows)} models)",
        rows=dict(zip(names, relative(measured.errors(constants)), strict=True)),
        left_out=dict(zip(names, relative(unseen), strict=True)),
        compiler=engines[0].compiler,
        intervals={**known.intervals, "fp16": {device.family: interval(list(unseen))}},
    )


def _by_identity(folder: Path) -> dict[str, Path]:
    """Return the ONNX files below a folder by identity; files that cannot be read are skipped."""
    found = {}
    for path in sorted(folder.rglob("*.onnx")):
        with contextlib.suppress(ArtifactError):
            found[identity_of(path)] = path
    return found


def _timed_rows(record: Record, path: Path) -> list[Row]:
    rows = [row for row in record.rows if row.compute_ms]
    if record.backend != "tensorrt" or record.estimate or not rows:
        what = f"holds no GPU times of TensorRT (backend {record.backend})"
        raise RecordError(what, where=path, hint="on the board: python -m fine_edge bench --backend trt --json FILE")
    return rows


def _engine(row: Row, files: dict[str, Path], device: Device, folder: Path) -> EngineWork:
    if row.artifact_sha256 not in files:
        raise ArtifactError(
            f"the ONNX file of {row.model} is not here (sha256 {row.artifact_sha256[:12]}...)",
            where=folder,
            hint="copy the board's engines folder here, or name it with --artifacts",
        )
    return engine_work(files[row.artifact_sha256], device, row.model)


def _copy_gb_s(row: Row, engine: EngineWork) -> float:
    """Return the rate of copies: bytes of inputs and outputs over the latency beyond the kernels' time."""
    copied_ms = row.latency_ms - median(row.compute_ms or ())
    # A record whose copies take no time cannot tell their rate; a microsecond keeps it finite.
    return engine.io_bytes / 1e6 / max(copied_ms, 1e-3)
