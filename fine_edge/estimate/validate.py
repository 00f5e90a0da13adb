"""Predicted against published throughput on Table 1's real-time detectors, which no constant was fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fine_edge.bench.statistics import median
from fine_edge.estimate.latency import Estimate
from fine_edge.estimate.published import timed_rows
from fine_edge.table import Column, Table


@dataclass(frozen=True)
class ValidationRow:
    """One detector; ``error`` is predicted over published FPS minus 1."""

    model: str
    fps_paper: float
    fps_predicted: float

    @property
    def error(self) -> float:
        """Positive where the prediction is too fast."""
        return self.fps_predicted / self.fps_paper - 1

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` gives it."""
        return {**vars(self), "error": self.error}


@dataclass(frozen=True)
class Validation:
    """All rows, and what the constants were fitted to instead."""

    rows: tuple[ValidationRow, ...]
    calibrated_on: str
    device: str
    mode: str
    compiler: str

    @property
    def median_abs_error(self) -> float:
        """Over the rows."""
        return median([abs(row.error) for row in self.rows])

    @property
    def worst_abs_error(self) -> float:
        """Over the rows."""
        return max(abs(row.error) for row in self.rows)

    @property
    def latency_errors(self) -> dict[str, float]:
        """Predicted over published time of a query minus 1, by row, to hundredths of a per cent."""
        return {row.model: round(row.fps_paper / row.fps_predicted - 1, 4) for row in self.rows}

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` gives it."""
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
        """For people."""
        columns = [Column("Model", False), Column("FPS", source="paper"), Column("FPS, predicted"), Column("Error (%)")]
        table = Table(f"ESTIMATE against the paper's Table 1: {self.device}, {self.mode}", columns)
        for row in self.rows:
            table.add(row.model, f"{row.fps_paper:g}", f"{row.fps_predicted:.1f}", f"{100 * row.error:+.1f}")
        table.notes = [
            f"Absolute error: median {100 * self.median_abs_error:.1f} %, worst {100 * self.worst_abs_error:.1f} %.",
            f"Calibrated on {self.calibrated_on}; no row of Table 1 was fitted.",
        ]
        return table


def validate(estimates: Sequence[Estimate]) -> Validation:
    """Set estimates of Table 1's models beside the paper's FPS."""
    by_name = {found.engine.name: found for found in estimates}
    rows = tuple(ValidationRow(row.model, row.fps or 0.0, by_name[row.model].fps) for row in timed_rows("1"))
    first = estimates[0]
    names = (first.calibration.origin, first.device.name, first.mode.name, first.engine.compiler)
    return Validation(rows, *names)
