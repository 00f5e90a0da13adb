"""The records committed with the bench, and one as a device would have made it; its figures are made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fine_edge.bench.record import EngineFigures, MeasuredGroup, Record, RowState, read_record
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.verdict import Verdict

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def committed() -> list[Path]:
    return sorted((BENCH / "results").glob("*.json"))


@pytest.fixture
def cpu_record() -> Record:
    return read_record(BENCH / "results" / "table3_onnxruntime_x86.json")


@pytest.fixture
def pairs_record(cpu_record) -> Record:
    """The rows of Table 3 as if they were three pairs of Table 1; the paper's FPS are made up."""
    rows = tuple(
        replace(
            row,
            attention="aats" if index % 2 else None,
            baseline=cpu_record.rows[index - index % 2].model,
            input_hw=(640, 640),
            paper={"fps": 80.0 - index, "ap": 40.0 + index, "ap50": 60.0},
        )
        for index, row in enumerate(cpu_record.rows)
    )
    groups = tuple(MeasuredGroup(row.model, 700.0) for row in rows[::2])
    return replace(cpu_record, suite="table1", title="Pairs", rows=rows, groups=groups)


@pytest.fixture
def device_record(cpu_record) -> Record:
    engine = EngineFigures("cd" * 32, 44.5, 43.0, 29.6, 88.0, 120.0, 165, 6)
    states = tuple(
        Snapshot(
            at_s=float(second),
            gpu_mhz=918.0,
            gpu_max_mhz=918.0,
            gpu_min_mhz=918.0,
            temperatures_c={"gpu": 50.0 + second},
            power_mw={"VDD_IN": 14_000.0},
            mode="25W",
            throttle=("hot <b>GPU</b>",) if second == 4 else (),
        )
        for second in range(0, 10, 2)
    )
    state = RowState(Verdict("THROTTLED", ("hot <b>GPU</b>",)), states, 215.0)
    rows = tuple(
        replace(row, mem_mib=None, compute_ms=row.samples_ms, engine=engine, state=state) for row in cpu_record.rows
    )
    platform = {"tensorrt": "10.7.0", "l4t": "36.4.0", "gpu": "Orin", "sm": 87}
    machine = {**cpu_record.machine, "gpu": "NVIDIA Jetson Orin Nano Developer Kit"}
    return replace(
        cpu_record, title="Made up", backend="tensorrt", precision="fp16", machine=machine, platform=platform, rows=rows
    )
