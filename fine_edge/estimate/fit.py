"""Fitting the constants to latencies of a board, and what they are worth on rows that were left out."""

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

# What four constants can be asked of.
FEWEST_ROWS = 4

_NAMES = ("tensor_share", "memory_share", "gather_share", "launch_us")
# Physics, and nothing else: no rate above its peak, no launch that gives time back.
_LOW = (0.05, 0.05, 0.01, 0.0)
_HIGH = (1.0, 1.0, 1.0, np.inf)
# Several, because the larger of two times has corners in which a search can be caught.
_STARTS = ((0.7, 0.65, 0.25, 5.0), (0.5, 0.5, 0.5, 2.0), (0.9, 0.8, 0.1, 10.0), (0.95, 0.65, 0.2, 18.0))

# Of what a row adds to another.
_LEAST_MS = 1e-3

# Of a constant, for slopes.
_STEP = [1e-4] * len(_NAMES)


@dataclass(frozen=True)
class FitRow:
    """One measured engine.

    Attributes:
        name: of the row.
        works: its kernels.
        compute_ms: measured time of the kernels.
        over: the row that this one adds something to. What it adds is fitted then, and not its total: what the model
            of the board does wrong in the part that both have would hide it.
    """

    name: str
    works: tuple[KernelWork, ...]
    compute_ms: float
    over: str | None = None


@dataclass(frozen=True)
class Fit:
    """Constants, and by row what was predicted over what was measured minus 1."""

    constants: Constants
    rows: dict[str, float]
    left_out: dict[str, float]

    @property
    def rms(self) -> float:
        """Root mean square of the errors of the rows that were fitted."""
        return float(np.sqrt(np.mean(np.square(list(self.rows.values())))))


@dataclass(frozen=True)
class _Arrays:
    """A row's demands as arrays, so that a search over constants is quick."""

    tensor: NDArray[np.float64]
    lanes: NDArray[np.float64]
    memory: NDArray[np.float64]
    gather: NDArray[np.float64]
    select_ms: float

    def total_ms(self, constants: NDArray[np.float64]) -> float:
        """As :meth:`Demand.timed` and :attr:`KernelTime.ms`, summed."""
        tensor_share, memory_share, gather_share, launch_us = constants
        compute = np.maximum(self.tensor / tensor_share, self.lanes)
        memory = np.maximum(self.memory / memory_share, self.gather / gather_share)
        return float(compute.sum() + memory.sum() + self.select_ms + len(compute) * launch_us / 1e3)


def fit(rows: Sequence[FitRow], device: Device, mode: Mode, copy_gb_s: float) -> Fit:
    """Least squares of relative errors within physical bounds; then once more without each row in turn.

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
    return Fit(constants, {row.name: _error(arrays[row.name], best, row) for row in rows}, left_out)


def _error(array: _Arrays, constants: NDArray[np.float64], row: FitRow) -> float:
    """Predicted over measured minus 1, to hundredths of a per cent."""
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
        # Constants far off can make an addition negative, which has no logarithm.
        added = max(totals[row.name] - totals[row.over], _LEAST_MS)
        return float(np.log(added / (row.compute_ms - measured[row.over])))

    def errors(constants: NDArray[np.float64]) -> NDArray[np.float64]:
        totals = {row.name: arrays[row.name].total_ms(constants) for row in rows}
        return np.array([error(row, totals) for row in rows])

    scale = np.array(_STARTS[0])
    runs = [least_squares(errors, start, bounds=(_LOW, _HIGH), x_scale=scale, diff_step=_STEP) for start in _STARTS]
    best = min(runs, key=lambda run: float(run.cost))
    # Four digits say more than six rows can, and are the same on every machine.
    return np.array([float(f"{value:.4g}") for value in best.x])


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
    """Bytes of input and outputs over the time that a latency has beyond the kernels'."""
    copied_ms = row.latency_ms - median(row.compute_ms or ())
    # A record whose copies take no time says nothing of them; this is slower than any board and harmless.
    return engine.io_bytes / 1e6 / max(copied_ms, 1e-3)
