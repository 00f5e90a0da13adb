"""Fit the constants to latencies of a board, and test them on rows that were left out of the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fine_edge.errors import ConfigError
from fine_edge.estimate.calibration import Constants
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.roofline import Demand, demands
from fine_edge.estimate.work import KernelWork

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
