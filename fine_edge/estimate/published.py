"""What the paper measured: Table 3 to calibrate on, Table 1 to validate on and never to fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fine_edge.bench.suites import find as find_suite
from fine_edge.estimate.calibration import Calibration
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.engine import EngineWork
from fine_edge.estimate.fit import FitRow, fit
from fine_edge.estimate.suite import compile_rows
from fine_edge.zoo.catalog import find
from fine_edge.zoo.paper import ROWS, PaperFigures

ORIGIN = "the paper's Table 3 (six rows, Jetson Orin Nano, TensorRT 10.7, FP16; its power mode is not told)"

_BASELINE = "rtdetr_r18"


def timed_rows(table: str | None) -> tuple[PaperFigures, ...]:
    """Rows of a table that the paper timed; none of no table."""
    return tuple(row for row in ROWS if row.table == table and row.fps)


def copy_ms(rows: Sequence[PaperFigures]) -> float:
    """Copies of input and outputs, ms: by how much a latency exceeds the time of a query back to back."""
    found = [row.latency_ms - 1000 / row.fps for row in rows if row.latency_ms and row.fps]
    return sum(found) / len(found)


def compile_table(table: str, device: Device, folder: Path) -> list[EngineWork]:
    """Engines of the suite of a table, of the graphs that the paper can have timed.

    These are ours but for YOLO. Its own export is what anybody times: YOLOv8 and v12 without the suppression of
    overlaps, and attention with channels before tokens, which no compiler of NVIDIA's fuses.
    """
    rows = find_suite(f"table{table}").rows
    timed = [replace(row, exporter="plain", raw=True) if find(row.model).family == "yolo" else row for row in rows]
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
