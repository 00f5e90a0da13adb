"""Tiny detectors with their contracts, and made-up rows of a record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fine_edge.bench.measure import Slice
from fine_edge.bench.record import EngineFigures, MeasuredGroup, Record, Row, RowState
from fine_edge.contract import Artifact, Contract, TensorSpec, contract_path
from fine_edge.files import sha256_of
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.verdict import Verdict
from fine_edge.preprocess import Preprocessing

CHANNELS = 4
WEIGHTS = CHANNELS * 3 * 3 * 3 + CHANNELS


def write_tiny_onnx(path: Path, size: int | tuple[int, int], seed: int = 0) -> None:
    """A convolution over one image: input ``image`` (1, 3, H, W), output ``map``; one size for a square."""
    height, width = size if isinstance(size, tuple) else (size, size)
    rng = np.random.default_rng(seed)
    weight = numpy_helper.from_array(rng.standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32), "weight")
    bias = numpy_helper.from_array(np.zeros(CHANNELS, np.float32), "bias")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["map"], pads=[1, 1, 1, 1])],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, CHANNELS, height, width])],
        [weight, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_tiny_artifact(folder: Path, name: str, size: int | tuple[int, int]) -> Path:
    """A tiny ONNX file with the contract that binds it."""
    height, width = size if isinstance(size, tuple) else (size, size)
    path = folder / f"{name}.onnx"
    write_tiny_onnx(path, size, seed=len(name))
    contract = Contract(
        model=name,
        artifacts=(Artifact(path.name, "fp32", sha256_of(path)),),
        inputs=(TensorSpec("image", "float32", (1, 3, height, width), "image"),),
        outputs=(TensorSpec("map", "float32", (1, CHANNELS, height, width), "map"),),
        preprocessing=Preprocessing(),
        postprocessed=True,
        labels=("thing",),
        opset=18,
        cost={"params": 21_200_000, "flops": 62_940_000_000, "convention": "made up"},
        golden={},
        made_by={"weights": {"source": "random", "seed": 0}},
    )
    contract_path(path).write_text(contract.to_text(), encoding="utf-8")
    return path


def make_row(model: str, attention: str | None, samples_ms: list[float], latency_paper_ms: float | None = None) -> Row:
    """Return a row of a group whose first row is ``rtdetr_r18``."""
    return Row(
        model=model,
        attention=attention,
        complexity="-",
        params_m=20.2,
        flops_g=61.74,
        mem_mib=300.25,
        weights_mib=77.1,
        rtx=None,
        artifact_sha256="ab" * 32,
        random_weights=True,
        samples_ms=tuple(samples_ms),
        throughput=(Slice(3, 1.2), Slice(2, 0.8)),
        paper={"mem_mb": 64.5, "fps": 80, "latency_ms": latency_paper_ms, "ap": 38.7} if latency_paper_ms else None,
        baseline="rtdetr_r18",
        input_hw=(640, 640),
    )


def as_pairs(record: Record, detectors: dict[str, tuple[float, float, tuple[int, int]]]) -> Record:
    """Each detector with its latency, the ratio of its variant with FINE, and the paper's FPS of both. All made up."""
    rows: list[Row] = []
    for name, (latency_ms, ratio, fps) in detectors.items():
        for model, factor, paper_fps in ((name, 1.0, fps[0]), (f"{name}_fine", ratio, fps[1])):
            samples = [factor * (latency_ms + i) for i in range(8)]
            row = make_row(model, "aats" if factor > 1 else None, samples)
            paper = {"mem_mb": None, "fps": paper_fps, "latency_ms": None, "ap": 45.0, "ap50": 61.8, "ap_s": 26.0}
            slices = (Slice(3, 3 * factor * latency_ms / 1e3),)
            rows.append(replace(row, paper=paper, throughput=slices, baseline=name))
    groups = tuple(MeasuredGroup(name, 500.0) for name in detectors)
    return replace(record, suite="table1", title="Table 1: pairs", rows=tuple(rows), groups=groups)


def make_snapshot(at_s: float, throttle: tuple[str, ...] = ()) -> Snapshot:
    return Snapshot(
        at_s=at_s,
        gpu_mhz=612.0 if throttle else 918.0,
        gpu_max_mhz=918.0,
        gpu_min_mhz=918.0,
        emc_mhz=3199.0,
        temperatures_c={"gpu": 55.0 + at_s / 10, "tj": 56.5},
        power_mw={"VDD_IN": 14_200.0},
        mode="25W",
        mode_id=1,
        throttle=throttle,
    )


def as_on_a_device(record: Record) -> Record:
    """The record as a Jetson's would look, a thirtieth as slow; its second row was throttled. All made up."""
    engine = EngineFigures("cd" * 32, 44.5, 43.0, 29.6, 88.25, 120.5, 165, 6)
    valid = RowState(Verdict("VALID", ()), tuple(make_snapshot(at_s) for at_s in (10.0, 12.0)), 215.5)
    hot = make_snapshot(14.0, ("the GPU is too hot",))
    throttled = RowState(
        Verdict("THROTTLED", ("the GPU is too hot",)), (*valid.snapshots, hot, make_snapshot(16.0)), 230.0
    )
    rows = tuple(
        replace(
            row,
            mem_mib=None,
            samples_ms=tuple(sample / 30 for sample in row.samples_ms),
            compute_ms=tuple(sample / 30 - 0.5 for sample in row.samples_ms),
            end_to_end_ms=tuple(sample / 30 + 3 for sample in row.samples_ms),
            throughput=(Slice(100, 1.25),),
            engine=engine,
            state=throttled if row is record.rows[1] else valid,
        )
        for row in record.rows
    )
    return replace(
        record,
        backend="tensorrt",
        precision="fp16",
        machine={**record.machine, "gpu": "NVIDIA Jetson Orin Nano Developer Kit"},
        platform={"tensorrt": "10.7.0", "rtx": None, "cuda": "12.6", "l4t": "36.4.0", "gpu": "Orin", "sm": 87},
        rows=rows,
    )
