"""Tiny detectors with their contracts, and made-up rows of a record."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fine_edge.bench.measure import Slice
from fine_edge.bench.record import Row
from fine_edge.contract import Artifact, Contract, TensorSpec, contract_path, sha256_of
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
