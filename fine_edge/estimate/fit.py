"""Fit the constants to latencies of a board, and test them on rows that were left out of the fit."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fine_edge.bench.record import Record, Row, read_record
from fine_edge.errors import ArtifactError, ConfigError, RecordError
from fine_edge.estimate.calibration import Calibration, Constants
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.engine import EngineWork, engine_work
from fine_edge.estimate.roofline import Demand, demands
from fine_edge.estimate.work import KernelWork
from fine_edge.graph.identity import identity_of
from fine_edge.samples import median

# Fewer rows than constants would fit anything.
FEWEST_ROWS = 4

_NAMES = ("tensor_share", "memory_share", "gather_share", "launch_us")
# Physical bounds: no rate exceeds its peak, and a launch takes no negative time.
_LOW = (0.05, 0.05, 0.01, 0.0)
_HIGH = (1.0, 1.0, 1.0, np.inf)
# Several starts, because taking the larger of two times makes corners in which a search can stop.
_STARTS = ((0.7, 0.65, 0.25, 5.0), (0.5, 0.5, 0.5, 2.0), (0.9, 0.8, 0.1, 10.0), (0.95, 0.65, 0.2, 18.0))

# Smallest difference of two rows whose logarithm is taken.
_LEAST_MS = 1e-3

# Relative step in each constant for numerical derivatives.
_STEP = [1e-4] * len(_NAMES)


@dataclass(frozen=True)
class FitRow:
    """One measured engine.

    Attributes:
        name: of the row.
        works: its kernels.
        compute_ms: measured time of the kernels.
        over: the row that this row extends. The difference of the two is fitted then, not the total: errors of the
            model in the part that both share would hide the difference.
    """

    name: str
    works: tuple[KernelWork, ...]
    compute_ms: float
    over: str | None = None


@dataclass(frozen=True)
class LeastSquaresFit:
    """The fitted constants, and by row the estimated over the measured time minus 1."""

    constants: Constants
    rows: dict[str, float]
    left_out: dict[str, float]

    @property
    def rms(self) -> float:
        """Return the root mean square error of the rows that were fitted."""
        return float(np.sqrt(np.mean(np.square(list(self.rows.values())))))


@dataclass(frozen=True)
class _Arrays:
    """A row's demands as arrays, so that a search over constants is fast."""

    tensor: NDArray[np.float64]
    lanes: NDArray[np.float64]
    memory: NDArray[np.float64]
    gather: NDArray[np.float64]
    select_ms: float

    def total_ms(self, constants: NDArray[np.float64]) -> float:
        """Return the sum of what :meth:`Demand.timed` and :attr:`KernelTime.ms` give by kernel."""
        tensor_share, memory_share, gather_share, launch_us = constants
        compute = np.maximum(self.tensor / tensor_share, self.lanes)
        memory = np.maximum(self.memory / memory_share, self.gather / gather_share)
        return float(compute.sum() + memory.sum() + self.select_ms + len(compute) * launch_us / 1e3)


def fit(rows: Sequence[FitRow], device: Device, mode: Mode, copy_gb_s: float) -> LeastSquaresFit:
    """Fit the constants by least squares of relative errors within physical bounds; then without each row in turn.

    Raises:
        ConfigError: when there are fewer rows than constants.
    """
    if len(rows) < FEWEST_ROWS:
        raise ConfigError(f"{len(rows)} measured rows cannot give {len(_NAMES)} constants", hint="measure more models")
    arrays = {row.name: _arrays(demands(row.works, device, mode)) for row in rows}
    best = _search(arrays, rows)
    left_out = {}
    for row in rows if len(rows) > FEWEST_ROWS else ():
        others = [replace(other, over=None) if other.over == row.name else other for other in rows if other is not row]
        left_out[row.name] = _error(arrays[row.name], _search(arrays, others), row)
    found = dict(zip(_NAMES, (float(value) for value in best), strict=True))
    constants = Constants(**found, copy_gb_s=copy_gb_s)
    return LeastSquaresFit(constants, {row.name: _error(arrays[row.name], best, row) for row in rows}, left_out)


def _error(array: _Arrays, constants: NDArray[np.float64], row: FitRow) -> float:
    """Return the estimated over the measured time minus 1, rounded to hundredths of a per cent."""
    return round(array.total_ms(constants) / row.compute_ms - 1, 4)


def _arrays(found: Sequence[Demand]) -> _Arrays:
    return _Arrays(
        np.array([demand.tensor_ms for demand in found]),
        np.array([demand.lanes_ms for demand in found]),
        np.array([demand.memory_ms for demand in found]),
        np.array([demand.gather_ms for demand in found]),
        sum(demand.select_ms for demand in found),
    )


def _search(arrays: Mapping[str, _Arrays], rows: Sequence[FitRow]) -> NDArray[np.float64]:
    from scipy.optimize import least_squares

    measured = {row.name: row.compute_ms for row in rows}

    def error(row: FitRow, totals: Mapping[str, float]) -> float:
        if row.over is None:
            return float(np.log(totals[row.name] / row.compute_ms))
        # Poor constants can make the difference negative, which has no logarithm.
        added = max(totals[row.name] - totals[row.over], _LEAST_MS)
        return float(np.log(added / (row.compute_ms - measured[row.over])))

    def errors(constants: NDArray[np.float64]) -> NDArray[np.float64]:
        totals = {row.name: arrays[row.name].total_ms(constants) for row in rows}
        return np.array([error(row, totals) for row in rows])

    scale = np.array(_STARTS[0])
    runs = [least_squares(errors, start, bounds=(_LOW, _HIGH), x_scale=scale, diff_step=_STEP) for start in _STARTS]
    best = min(runs, key=lambda run: float(run.cost))
    # Six rows do not determine more than four digits, and so many are the same on every machine.
    return np.array([float(f"{value:.4g}") for value in best.x])


def calibrate_on_records(paths: Sequence[Path], device: Device, mode: Mode, folder: Path) -> Calibration:
    """Fit the constants to the GPU compute times of TensorRT records.

    Args:
        paths: records of one board in one power mode.
        device: the board's profile.
        mode: power mode of the records.
        folder: where the ONNX files of the rows are, at any depth.

    Raises:
        RecordError: when a record holds no GPU compute times.
        ArtifactError: when a row's ONNX file is not in the folder.
        ConfigError: when there are too few rows.
    """
    rows = [row for path in paths for row in _timed_rows(read_record(path), path)]
    # Of a model that was measured twice the last row counts.
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
