"""What others published of Orins, with the kernels of each network: the rows that the constants are fitted to."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.errors import ArtifactError
from fine_edge.estimate.calibration import PRECISIONS, Calibration, Constants, Interval, Precision
from fine_edge.estimate.device import find_device
from fine_edge.estimate.engine import EngineWork
from fine_edge.estimate.least_squares import FitRow, Rows, fit, interval, left_out_errors, relative, rounded
from fine_edge.estimate.roofline import in_int8
from fine_edge.estimate.work import KernelWork
from fine_edge.fields import Positive, from_data
from fine_edge.files import contents_checked, parse_json
from fine_edge.machine import MIB

ORIGIN = "latencies that others published of Orin Nano, Orin NX and AGX Orin"
# Rows of one family of boards that an interval of its own needs: that of fewer is the largest error of few models.
FEWEST_FOR_INTERVAL = 20
_FILE = Path(__file__).parent / "published.json.gz"

# Where the fit begins. Three stay: they were measured apart from any network's total.  ``memory_share`` and
# ``input_share`` are of a profile of MobileNetV2 in 25W, layer by layer. Without the 6.2 us by which the profiler
# lengthens every layer, and the 5.2 us that the fit gives a kernel beside its work, its last product reads 2.57 MB in
# 30 us, and its input of 150,528 elements is converted in 81 us. ``copy_gb_s`` is what latencies in the paper's Table 3
# have beyond a query.
MEASURED = Constants(
    tensor_share=0.8,
    tf32_share=0.6,
    memory_share=0.84,
    lanes_share=0.3,
    gather_share=0.2,
    input_share=0.109,
    gate_slots=40.0,
    kernel_clocks=4000.0,
    gap_us=4.0,
    call_us=300.0,
    copy_gb_s=15.45,
)
FITTED = (
    *("tensor_share", "tf32_share", "lanes_share", "gather_share"),
    *("gate_slots", "kernel_clocks", "gap_us", "call_us"),
)


@dataclass(frozen=True)
class PublishedRow:
    """One latency that somebody published.

    Attributes:
        name: of the row, unique.
        graph: the network as it was compiled here, in :func:`engines`.
        model: detector that it belongs to; variants of one are left out together.
        source: who published it.
        precision: of the engine.
        device: name of the board.
        mode: power mode.
        mode_known: whether the source tells the mode; it is assumed otherwise.
        cuda_graph: whether a CUDA graph held the kernels.
        called: whether it is the time of a call from Python; it is that of the kernels otherwise.
        compute_ms: that time.
        fitted: whether constants are fitted to it and errors count it. A row of another graph than ours, or of FP32
            without TF32, is only shown.
        weight: of its error in the fit.
        over: row that it extends.
        note: what is to know of it.
    """

    name: str
    graph: str
    model: str
    source: str
    precision: Precision
    device: str
    mode: str
    mode_known: bool
    cuda_graph: bool
    compute_ms: Positive
    called: bool = False
    fitted: bool = True
    weight: Positive = 1.0
    over: str | None = None
    note: str = ""


@lru_cache(1)
def _document() -> dict[str, Any]:
    try:
        text = gzip.decompress(_FILE.read_bytes()).decode()
    except (OSError, EOFError, ValueError) as error:
        raise ArtifactError(f"cannot be read ({error})", where=_FILE, hint="install fine_edge again") from error
    found: dict[str, Any] = parse_json(text)
    return found


def published_rows() -> tuple[PublishedRow, ...]:
    """Return every row, those that are not fitted included."""
    with contents_checked(_FILE, ArtifactError, title="table of published latencies", hint="install fine_edge again"):
        return tuple(from_data(PublishedRow, row) for row in _document()["rows"])


def engine(name: str, l2_bytes: int = 2 * MIB) -> EngineWork:
    """Return a network's kernels as they were compiled for the table; L2 of 2 or 4 MiB decides what memory moves."""
    data = dict(_document()["graphs"][name])
    with_4_mib = data.pop("memory_bytes_4_mib")
    columns = data.pop("works")
    kernels = zip(*columns.values(), strict=True)
    works = tuple(KernelWork.from_json(dict(zip(columns, kernel, strict=True))) for kernel in kernels)
    if l2_bytes > 2 * MIB:
        works = tuple(work.moving(moved) for work, moved in zip(works, with_4_mib, strict=True))
    return EngineWork(name=name, works=works, **data)


def engine_names() -> tuple[str, ...]:
    """Return the names of the networks in the table."""
    return tuple(_document()["graphs"])


def fit_rows(rows: Sequence[PublishedRow]) -> Rows:
    """Return rows with the kernels of their networks."""
    return Rows([_fit_row(row) for row in rows])


def _fit_row(row: PublishedRow) -> FitRow:
    device = find_device(row.device)
    works = engine(row.graph, device.l2_bytes).works
    return FitRow(
        name=row.name,
        works=in_int8(works) if row.precision == "int8" else works,
        compute_ms=row.compute_ms,
        device=device,
        mode=device.mode(row.mode),
        precision=row.precision,
        graph=row.cuda_graph,
        called=row.called,
        model=row.model,
        source=row.source,
        weight=row.weight,
        over=row.over,
    )


@dataclass(frozen=True)
class PublishedFit:
    """The constants of the published rows, with three errors of each row: fitted, its model or its source left out.

    Errors are logarithms of the estimated over the measured time.
    """

    rows: tuple[PublishedRow, ...]
    constants: Constants
    errors: NDArray[np.float64]
    without_model: NDArray[np.float64]
    without_source: NDArray[np.float64]

    def calibration(self) -> Calibration:
        """Return the calibration that comes with the package."""
        names = [row.name for row in self.rows]
        families = {name: find_device(name).family for name in dict.fromkeys(row.device for row in self.rows)}
        intervals = {
            precision: {family: self._interval(precision, family) for family in dict.fromkeys(families.values())}
            for precision in PRECISIONS
        }
        return Calibration(
            devices=tuple(families),
            mode="",
            constants=self.constants,
            origin=f"{ORIGIN} ({sum(row.fitted for row in self.rows)} rows)",
            rows=dict(zip(names, relative(self.errors), strict=True)),
            left_out=dict(zip(names, relative(self.without_model), strict=True)),
            compiler=str(_document()["compiler"]),
            intervals=intervals,
        )

    def is_inside(self, row: PublishedRow, error: float) -> bool:
        """Return whether a row's error lies within the interval that rows of other models give."""
        found = self._interval(row.precision, find_device(row.device).family, without=row.model)
        return found.low <= exp(-error) <= found.high

    def _interval(self, precision: Precision, family: str, without: str = "") -> Interval:
        """Return the interval of a precision on a family of boards; on all boards where these have too few rows."""
        alike = [
            (find_device(row.device).family, float(error))
            for row, error in zip(self.rows, self.without_model, strict=True)
            if row.fitted and row.precision == precision and row.model != without
        ]
        found = [error for of, error in alike if of == family]
        return interval(found if len(found) >= FEWEST_FOR_INTERVAL else [error for _, error in alike])


@lru_cache(1)
def fit_published(free: tuple[str, ...] = FITTED, start: Constants = MEASURED) -> PublishedFit:
    """Fit constants to the published rows, then without each model and without each source in turn.

    Rows that are not fitted are estimated by what is fitted to the others.
    """
    rows = published_rows()
    measured = fit_rows(rows)
    fitted = np.array([row.fitted for row in rows])
    constants = rounded(fit(measured, start, free, fitted, near=True))
    return PublishedFit(
        rows,
        constants,
        measured.errors(constants),
        left_out_errors(measured, start, free, lambda row: row.model, fitted, near=True),
        left_out_errors(measured, start, free, lambda row: row.source, fitted, near=True),
    )
