"""Estimate a bench suite, and compare with the paper's Tables 1 and 3, to which no constant was fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fine_edge import console
from fine_edge.bench.prepare import export_row
from fine_edge.bench.suites import SuiteRow
from fine_edge.bench.suites import find as find_suite
from fine_edge.estimate.calibration import Precision
from fine_edge.estimate.device import Device
from fine_edge.estimate.engine import EngineWork, engine_work, in_fp16
from fine_edge.estimate.latency import Conditions, Estimate, estimate
from fine_edge.samples import median
from fine_edge.table import Column, Table
from fine_edge.zoo.catalog import find
from fine_edge.zoo.paper import ROWS, PaperFigures

# Estimate a bench suite: export missing models, and compile one engine after the other.

# Marks a file of estimates; no bench record has it.
FORMAT = "estimates-1"


@dataclass(frozen=True)
class EstimateRecord:
    """Estimates of a suite. It holds no samples, so it is not a bench record."""

    suite: str
    title: str
    rows: tuple[Estimate, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        rows = [row.to_json() for row in self.rows]
        return {"format": FORMAT, "estimate": True, "suite": self.suite, "title": self.title, "rows": rows}


def compile_rows(
    rows: Sequence[SuiteRow],
    device: Device,
    folder: Path,
    input_hw: tuple[int, int] = (0, 0),
    precision: Precision = "fp16",
) -> list[EngineWork]:
    """Return the engines of a suite's rows, in FP32 or else in FP16; zeros mean each detector's own input size."""
    halves = precision != "fp32"
    found = []
    for number, row in enumerate(rows, 1):
        # A line instead of a progress bar, because exporting and compiling show bars of their own.
        console.remark(f"[{number}/{len(rows)}] {row.label}")
        plain = row.exporter == "plain"
        path = export_row(row, folder, input_hw, "fp16" if halves and not plain else "fp32")
        path = in_fp16(path) if halves and plain else path
        found.append(engine_work(path, device, row.label))
    return found


def estimate_suite(
    suite: str,
    conditions: Conditions,
    folder: Path,
    only: Sequence[str] = (),
    input_hw: tuple[int, int] = (0, 0),
) -> EstimateRecord:
    """Estimate every row of a suite that is our own export."""
    chosen = find_suite(suite).only(only)
    rows = [row for row in chosen.rows if row.exporter != "plain"]
    engines = compile_rows(rows, conditions.device, folder, input_hw, conditions.precision)
    return EstimateRecord(suite, chosen.title, tuple(estimate(engine, conditions) for engine in engines))


def timed_rows(table: str | None) -> tuple[PaperFigures, ...]:
    """Return the rows of a table that the paper timed; none where ``table`` is ``None``."""
    return tuple(row for row in ROWS if row.table == table and row.fps)


def compile_tables(device: Device, folder: Path) -> list[EngineWork]:
    """Compile the engines of Tables 1 and 3, from the graphs that the paper most likely timed.

    These are our exports, of RT-DETR with GridSample, except for YOLO, which is timed as its library exports it: YOLOv8
    and v12 without non-maximum suppression, and attention with channels before tokens, which no compiler of NVIDIA's
    fuses.
    """
    rows = list({row.model: row for table in ("1", "3") for row in find_suite(f"table{table}").rows}.values())
    timed = [
        replace(row, exporter="plain", raw=True)
        if find(row.model).detector.library.exporter
        else replace(row, sampling="grid")
        for row in rows
    ]
    return [
        replace(engine, name=row.model) for engine, row in zip(compile_rows(timed, device, folder), rows, strict=True)
    ]


@dataclass(frozen=True)
class ValidationRow:
    """Estimated and published FPS of one detector, in one table of the paper."""

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
    """All rows of a validation, and the source of the fitted constants.

    Attributes:
        rows: of Table 1, then those of Table 3 that are not in Table 1.
        calibrated_on: the latencies that the constants were fitted to.
        device: name of the board.
        mode: power mode that was assumed.
        compiler: that made the kernels.
        modes: median absolute error by power mode, of which the paper names none.
    """

    rows: tuple[ValidationRow, ...]
    calibrated_on: str
    device: str
    mode: str
    compiler: str
    modes: Mapping[str, float]

    @property
    def median_abs_error(self) -> float:
        """Return the median absolute error of the rows."""
        return median([abs(row.error) for row in self.rows])

    @property
    def worst_abs_error(self) -> float:
        """Return the largest absolute error of the rows."""
        return max(abs(row.error) for row in self.rows)

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
            "median_abs_error_by_mode": dict(self.modes),
            "calibrated_on": self.calibrated_on,
        }

    def table(self) -> Table:
        """Return the table that the command prints."""
        columns = [Column("Model", False), Column("FPS", source="paper"), Column("FPS, estimated"), Column("Error (%)")]
        table = Table(f"ESTIMATE against the paper's Tables 1 and 3: {self.device}, {self.mode}", columns)
        for row in self.rows:
            table.add(row.model, f"{row.fps_paper:g}", f"{row.fps_estimated:.1f}", f"{100 * row.error:+.1f}")
        by_mode = ", ".join(f"{mode} {100 * error:.1f} %" for mode, error in self.modes.items())
        table.notes = [
            f"Absolute error: median {100 * self.median_abs_error:.1f} %, worst {100 * self.worst_abs_error:.1f} %.",
            f"The paper names no power mode. Median absolute error by mode: {by_mode}.",
            f"Calibrated on {self.calibrated_on}; no row of the paper was fitted.",
        ]
        return table


def published_fps() -> dict[str, float]:
    """Return the FPS of Table 1, and those of Table 3 for models that are not in Table 1."""
    return {row.model: row.fps or 0.0 for table in ("3", "1") for row in timed_rows(table)}


def validate(engines: Sequence[EngineWork], conditions: Conditions) -> Validation:
    """Compare estimates of the models of Tables 1 and 3 with the paper's FPS, in every mode of the board."""
    by_mode = {name: _rows(engines, replace(conditions, mode=mode)) for name, mode in conditions.device.modes.items()}
    return Validation(
        rows=by_mode[conditions.mode.name],
        calibrated_on=conditions.calibration.origin,
        device=conditions.device.name,
        mode=conditions.mode.name,
        compiler=engines[0].compiler,
        modes={name: median([abs(row.error) for row in rows]) for name, rows in by_mode.items()},
    )


def _rows(engines: Sequence[EngineWork], conditions: Conditions) -> tuple[ValidationRow, ...]:
    by_name = {engine.name: engine for engine in engines}
    return tuple(
        ValidationRow(model, fps, estimate(by_name[model], conditions).fps) for model, fps in published_fps().items()
    )
