"""Tiny detectors with their contracts, and made-up rows of a record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fine_edge.bench.measure import Slice
from fine_edge.bench.record import EngineFigures, Record, Row, RowState
from fine_edge.contract import Artifact, Contract, TensorSpec, contract_path, sha256_of
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.verdict import Verdict
from fine_edge.preprocess import Preprocessing

CHANNELS = 4
WEIGHTS = CHANNELS * 3 * 3 * 3 + CHANNELS


def write_tiny_onnx(path: Path, size: int, seed: int = 0) -> None:
    """A convolution over one image: input ``image`` (1, 3, size, size), output ``map``."""
    rng = np.random.default_rng(seed)
    weight = numpy_helper.from_array(rng.standard_normal((CHANNELS, 3, 3, 3)).astype(np.float32), "weight")
    bias = numpy_helper.from_array(np.zeros(CHANNELS, np.float32), "bias")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["map"], pads=[1, 1, 1, 1])],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, [1, CHANNELS, size, size])],
        [weight, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def write_tiny_artifact(folder: Path, name: str, size: int) -> Path:
    """A tiny ONNX file with the contract that binds it."""
    path = folder / f"{name}.onnx"
    write_tiny_onnx(path, size, seed=len(name))
    contract = Contract(
        model=name,
        artifacts=(Artifact(path.name, "fp32", sha256_of(path)),),
        inputs=(TensorSpec("image", "float32", (1, 3, size, size), "image"),),
        outputs=(TensorSpec("map", "float32", (1, CHANNELS, size, size), "map"),),
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
    )


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
