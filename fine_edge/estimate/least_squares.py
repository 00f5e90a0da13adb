"""Fit constants to measured engines by least squares, and test them on rows that were left out of the fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, exp, floor, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.estimate.calibration import Constants, Interval, Precision
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.roofline import demands
from fine_edge.estimate.work import KernelWork

_MOST = {"share": 1.0, "slots": 1e3, "clocks": 1e5, "us": 1e3}
_LEAST = 1e-3
# Errors beyond this many per one count linearly, not squared: single rows are of other exports than ours.
_USUAL_ERROR = 0.06
# A constant that moves by so many per one from its start weighs as much as an error of one in a row.
_LOOSENESS = 10.0
# A difference of two rows that the constants make negative has no logarithm.
_LEAST_MS = 1e-3
# What a row adds is what people ask about. Its errors always count squared, which shares them out among the rows that
# add: the larger of two errors would else be given up.
_WEIGHT_OF_ADDITIONS = 0.5
_COVERAGE = 0.9
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class FitRow:
    """One measured engine.

    Attributes:
        name: of the row.
        works: its kernels.
        compute_ms: measured time.
        device: the board.
        mode: its power mode.
        precision: of the engine.
        graph: whether a CUDA graph held the kernels.
        called: whether the time is that of a call from Python; it is that of the kernels otherwise.
        model: detector that it belongs to; rows of one are left out together.
        source: of the figure; rows of one can be left out together as well.
        weight: of its error.
        over: the row that this row extends: what it adds is fitted beside its total, because errors in the part that
            both share would hide it.
    """

    name: str
    works: tuple[KernelWork, ...]
    compute_ms: float
    device: Device
    mode: Mode
    precision: Precision = "fp16"
    graph: bool = True
    called: bool = False
    model: str = ""
    source: str = ""
    weight: float = 1.0
    over: str | None = None


class Rows:
    """Measured engines as flat arrays, one entry a kernel, so that a search over constants is fast."""

    def __init__(self, rows: Sequence[FitRow]) -> None:
        self.rows = tuple(rows)
        found = [demands(row.works, row.device, row.mode, row.precision) for row in rows]
        counts = [len(kernels) for kernels in found]
        self._starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self._of = np.repeat(np.arange(len(rows)), counts)
        columns = ("tensor_ms", "lanes_ms", "gate_ms", "memory_ms", "gather_ms", "convert_ms", "select_ms", "clock_ms")
        self._demand = {
            name: np.array([getattr(kernel, name) for kernels in found for kernel in kernels]) for name in columns
        }
        self._loose = np.array([0.0 if row.graph else 1.0 for row in rows])
        self._called = np.array([1.0 if row.called else 0.0 for row in rows])
        self._enqueued_ms = self._loose * np.array(
            [row.device.enqueue_us / 1e3 * count for row, count in zip(rows, counts, strict=True)]
        )
        self.measured = np.array([row.compute_ms for row in rows])
        at = {row.name: index for index, row in enumerate(rows)}
        self._added = [(index, at[row.over]) for index, row in enumerate(rows) if row.over in at]

    def totals_ms(self, constants: Constants) -> NDArray[np.float64]:
        """Return the time of each row, ``compute_ms`` or ``call_ms`` of an estimate."""
        tensor = np.array([constants.share_of_tensor_cores(row.precision) for row in self.rows])[self._of]
        demand = self._demand
        compute = np.maximum(demand["tensor_ms"] / tensor, demand["lanes_ms"] / constants.lanes_share)
        compute += constants.gate_slots * demand["gate_ms"] + demand["select_ms"]
        moved = np.maximum(demand["memory_ms"] / constants.memory_share, demand["gather_ms"] / constants.gather_share)
        moved += demand["convert_ms"] / constants.input_share
        launch = constants.kernel_clocks * demand["clock_ms"] + self._loose[self._of] * constants.gap_us / 1e3
        kernels = np.maximum(compute, moved) + launch
        found: NDArray[np.float64] = np.maximum(np.add.reduceat(kernels, self._starts), self._enqueued_ms)
        return found + self._called * constants.call_us / 1e3

    def errors(self, constants: Constants) -> NDArray[np.float64]:
        """Return the logarithm of the estimated over the measured time, by row."""
        found: NDArray[np.float64] = np.log(self.totals_ms(constants) / self.measured)
        return found

    def weighted(self, constants: Constants, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the errors that a fit makes small: of the chosen rows, and of what they add to others."""
        totals = self.totals_ms(constants)
        weights = chosen * np.array([row.weight for row in self.rows])
        added = [
            chosen[row] * chosen[base] * _WEIGHT_OF_ADDITIONS * self._added_error(totals, row, base)
            for row, base in self._added
        ]
        return np.concatenate([weights * np.log(totals / self.measured), added])

    def _added_error(self, totals: NDArray[np.float64], row: int, base: int) -> float:
        added_ms = max(totals[row] - totals[base], _LEAST_MS)
        return float(np.log(added_ms / (self.measured[row] - self.measured[base])))


def fit(
    rows: Rows,
    start: Constants,
    free: Sequence[str],
    chosen: NDArray[np.bool_] | None = None,
    *,
    near: bool = False,
) -> Constants:
    """Fit constants by robust least squares of relative errors within physical bounds.

    Args:
        rows: measured engines.
        start: where the search begins, and the value of constants that are not fitted.
        free: names of those that are.
        chosen: which rows to fit; ``None``: all.
        near: keep constants near their start as far as the rows say nothing else.
    """
    from scipy.optimize import least_squares

    selected = np.ones(len(rows.rows), bool) if chosen is None else chosen
    first = np.log([getattr(start, name) for name in free])
    highest = np.log([_MOST[name.rpartition("_")[2]] for name in free])

    def errors(point: NDArray[np.float64]) -> NDArray[np.float64]:
        found = rows.weighted(_at(start, free, point), selected)
        return np.concatenate([found, (point - first) / _LOOSENESS]) if near else found

    def robust(squares: NDArray[np.float64]) -> NDArray[np.float64]:
        # Value and derivatives of soft_l1 for rows; additions and the distance from the start count squared.
        root = np.sqrt(1 + squares)
        found = np.stack([2 * (root - 1), 1 / root, -0.5 / root**3])
        found[:, len(rows.rows) :] = np.stack([squares, np.ones_like(squares), 0 * squares])[:, len(rows.rows) :]
        return found

    bounds = (np.full(len(free), log(_LEAST)), highest)
    inside = np.minimum(first, highest - 1e-6)
    loss: Any = robust  # scipy's stubs know no function of a vector
    best = least_squares(
        errors,
        inside,
        bounds=bounds,
        diff_step=[1e-3] * len(free),
        loss=loss,
        f_scale=_USUAL_ERROR,
        # The larger of two times makes corners, at which usual tolerances end a search too early.
        ftol=_TOLERANCE,
        xtol=_TOLERANCE,
        gtol=_TOLERANCE,
    )
    return _at(start, free, best.x)


def _at(start: Constants, free: Sequence[str], point: NDArray[np.float64]) -> Constants:
    # Rows do not determine more than four digits, and so many are the same on every machine.
    return replace(start, **{name: min(exp(value), _most(name)) for name, value in zip(free, point, strict=True)})


def _most(name: str) -> float:
    return _MOST[name.rpartition("_")[2]]


def rounded(constants: Constants) -> Constants:
    """Return constants with the four digits that rows determine, which are the same on every machine."""
    return Constants(**{name: float(f"{value:.4g}") for name, value in vars(constants).items()})


def left_out_errors(
    rows: Rows,
    start: Constants,
    free: Sequence[str],
    group: Callable[[FitRow], str],
    chosen: NDArray[np.bool_] | None = None,
    *,
    near: bool = False,
) -> NDArray[np.float64]:
    """Return the error of each row under constants that were fitted to ``chosen`` rows, those of its group left out."""
    selected = np.ones(len(rows.rows), bool) if chosen is None else chosen
    groups = np.array([group(row) for row in rows.rows])
    found = np.empty(len(rows.rows))
    for name in dict.fromkeys(groups):
        inside = groups == name
        found[inside] = rows.errors(fit(rows, start, free, selected & ~inside, near=near))[inside]
    return found


def interval(errors: Sequence[float]) -> Interval:
    """Return the factors that hold nine of ten further measured over estimated times, from errors of rows left out.

    Split conformal prediction: of n errors and one more, all equally likely to be the largest, the distance of rank
    0.9 (n + 1) holds the one more nine times of ten. Fewer than nine errors hold it less often, whatever is taken.
    """
    distances = sorted(abs(error) for error in errors)
    rank = min(ceil(_COVERAGE * (len(distances) + 1)), len(distances))
    reach = exp(distances[rank - 1])
    # Rounded outwards, so that the row that gave the bounds is inside.
    return Interval(floor(1e4 / reach) / 1e4, ceil(1e4 * reach) / 1e4, len(distances))


def relative(errors: NDArray[np.float64]) -> list[float]:
    """Return estimated over measured minus 1, to hundredths of a per cent."""
    return [round(float(np.expm1(error)), 4) for error in errors]
