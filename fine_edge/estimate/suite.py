"""Estimate a bench suite: export missing models, and compile one engine after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge import console
from fine_edge.bench.prepare import export_row
from fine_edge.bench.suites import SuiteRow, find
from fine_edge.estimate.calibration import Precision
from fine_edge.estimate.device import Device
from fine_edge.estimate.engine import EngineWork, engine_work
from fine_edge.estimate.latency import Conditions, Estimate, estimate
from fine_edge.estimate.precision import in_fp16

FORMAT = "estimates-1"
"""Marks a file of estimates; no bench record has it."""


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
    chosen = find(suite).only(only)
    rows = [row for row in chosen.rows if row.exporter != "plain"]
    engines = compile_rows(rows, conditions.device, folder, input_hw, conditions.precision)
    return EstimateRecord(suite, chosen.title, tuple(estimate(engine, conditions) for engine in engines))
