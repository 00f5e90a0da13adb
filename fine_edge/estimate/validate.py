"""Compare estimated with published throughput of Table 1's real-time detectors, to which no constant was fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fine_edge.bench.suites import find as find_suite
from fine_edge.estimate.calibration import Calibration
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.engine import EngineWork
from fine_edge.estimate.fit import FitRow, fit
from fine_edge.estimate.latency import Estimate
from fine_edge.estimate.suite import compile_rows
from fine_edge.samples import median
from fine_edge.table import Column, Table
from fine_edge.zoo.catalog import find
from fine_edge.zoo.paper import ROWS, PaperFigures

ORIGIN = "the paper's Table 3 (six rows, Jetson Orin Nano, TensorRT 10.7, FP16; its power mode is not told)"

_BASELINE = "rtdetr_r18"


def timed_rows(table: str | None) -> tuple[PaperFigures, ...]:
    """Return the rows of a table that the paper timed; none where ``table`` is ``None``."""
    return tuple(row for row in ROWS if row.table == table and row.fps)


def copy_ms(rows: Sequence[PaperFigures]) -> float:
    """Return the time of copying inputs and outputs: the latency minus the time of a query back to back."""
    found = [row.latency_ms - 1000 / row.fps for row in rows if row.latency_ms and row.fps]
    return sum(found) / len(found)


def compile_table(table: str, device: Device, folder: Path) -> list[EngineWork]:
    """Compile the engines of a table's suite, from the graphs that the paper most likely timed.

    These are our exports, except for YOLO, which is timed as its library exports it: YOLOv8 and v12 without non-maximum
    suppression, and attention with channels before tokens, which no compiler of NVIDIA's fuses.
    """
    rows = find_suite(f"table{table}").rows
    timed = [
        replace(row, exporter="plain", raw=True) if find(row.model).detector.library.exporter else row for row in rows
    ]
    return [
        replace(engine, name=row.model) for engine, row in zip(compile_rows(timed, device, folder), rows, strict=True)
    ]


def calibrate_on_table3(engines: Sequence[EngineWork], device: Device, mode: Mode) -> Calibration:
    """Fit the constants to the six latencies of Table 3: the baseline's, and what each attention adds to it."""
    published = timed_rows("3")
    copied_ms = copy_ms(published)
    by_name = {engine.name: engine for engine in engines}
    rows = []
    for row in published:
        over = None if row.model == _BASELINE else _BASELINE
        rows.append(FitRow(row.model, by_name[row.model].works, (row.latency_ms or 0.0) - copied_ms, over))
    copy_gb_s = float(f"{engines[0].io_bytes / copied_ms / 1e6:.4g}")
    found = fit(rows, device, mode, copy_gb_s)
    return Calibration(device.name, mode.name, found.constants, ORIGIN, found.rows, found.left_out, engines[0].compiler)


@dataclass(frozen=True)
class ValidationRow:
    """Estimated and published FPS of one detector."""

    model: str
    fps_paper: float
    fps_estimated: float

    @property
    def error(self) -> float:
        """Return the estimated over the published FPS minus 1; positive where the estimate is too fast."""
        return self.fps_estimated / self.fps_paper - 1

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        return {
            "model": self.model,
            "fps_paper": self.fps_paper,
            "fps_predicted": self.fps_estimated,  # the name that files had from the beginning
            "error": self.error,
        }


@dataclass(frozen=True)
class Validation:
    """All rows of a validation, and the source of the fitted constants."""

    rows: tuple[ValidationRow, ...]
    calibrated_on: str
    device: str
    mode: str
    compiler: str

    @property
    def median_abs_error(self) -> float:
        """Return the median absolute error of the rows."""
        return median([abs(row.error) for row in self.rows])

    @property
    def worst_abs_error(self) -> float:
        """Return the largest absolute error of the rows."""
        return max(abs(row.error) for row in self.rows)

    @property
    def latency_errors(self) -> dict[str, float]:
        """Return by row the estimated over the published time of a query minus 1, to hundredths of a per cent."""
        return {row.model: round(row.fps_paper / row.fps_estimated - 1, 4) for row in self.rows}

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        return {
            "estimate": True,
            "device": self.device,
            "mode": self.mode,
            "compiler": self.compiler,
            "rows": [row.to_json() for row in self.rows],
            "median_abs_error": self.median_abs_error,
            "worst_abs_error": self.worst_abs_error,
            "calibrated_on": self.calibrated_on,
        }

    def table(self) -> Table:
        """Return the table that the command prints."""
        columns = [Column("Model", False), Column("FPS", source="paper"), Column("FPS, estimated"), Column("Error (%)")]
        table = Table(f"ESTIMATE against the paper's Table 1: {self.device}, {self.mode}", columns)
        for row in self.rows:
            table.add(row.model, f"{row.fps_paper:g}", f"{row.fps_estimated:.1f}", f"{100 * row.error:+.1f}")
        table.notes = [
            f"Absolute error: median {100 * self.median_abs_error:.1f} %, worst {100 * self.worst_abs_error:.1f} %.",
            f"Calibrated on {self.calibrated_on}; no row of Table 1 was fitted.",
        ]
        return table


def validate(estimates: Sequence[Estimate]) -> Validation:
    """Compare estimates of Table 1's models with the paper's FPS."""
    by_name = {found.engine.name: found for found in estimates}
    rows = tuple(ValidationRow(row.model, row.fps or 0.0, by_name[row.model].fps) for row in timed_rows("1"))
    first = estimates[0]
    names = (first.calibration.origin, first.device.name, first.mode.name, first.engine.compiler)
    return Validation(rows, *names)
