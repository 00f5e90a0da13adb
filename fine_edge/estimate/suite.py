"""Estimate a bench suite: export missing models, and compile one engine after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge import console, files, libraries
from fine_edge.bench.prepare import export_row
from fine_edge.bench.suites import SuiteRow, find
from fine_edge.estimate.calibration import Calibration
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.engine import EngineWork, engine_work
from fine_edge.estimate.latency import Estimate, estimate
from fine_edge.graph.convert import to_fp16

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
    rows: Sequence[SuiteRow], device: Device, folder: Path, input_hw: tuple[int, int] = (0, 0)
) -> list[EngineWork]:
    """Return the FP16 engines of a suite's rows; an ``input_hw`` of zeros means each detector's own size."""
    found = []
    for number, row in enumerate(rows, 1):
        # A line instead of a progress bar, because exporting and compiling show bars of their own.
        console.remark(f"[{number}/{len(rows)}] {row.label}")
        plain = row.exporter == "plain"
        path = in_fp16(export_row(row, folder, input_hw)) if plain else export_row(row, folder, input_hw, "fp16")
        found.append(engine_work(path, device, row.label))
    return found


def in_fp16(path: Path) -> Path:
    """Convert a library's own FP32 export to FP16, beside it, and return the new file.

    ONNX Runtime folds the shapes that the libraries compute at run time first.
    """
    import onnx

    ort = libraries.onnxruntime()
    half = path.with_suffix(".fp16.onnx")
    with files.written_together(path.parent, half.name) as partial:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(partial / half.name)
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        onnx.save(to_fp16(onnx.load(partial / half.name)), partial / half.name)
    return half


def estimate_suite(
    suite: str,
    device: Device,
    mode: Mode,
    calibration: Calibration,
    folder: Path,
    only: Sequence[str] = (),
    input_hw: tuple[int, int] = (0, 0),
) -> EstimateRecord:
    """Estimate every row of a suite that has an FP16 export."""
    chosen = find(suite).only(only)
    rows = [row for row in chosen.rows if row.exporter != "plain"]
    engines = compile_rows(rows, device, folder, input_hw)
    return EstimateRecord(suite, chosen.title, tuple(estimate(engine, device, mode, calibration) for engine in engines))
