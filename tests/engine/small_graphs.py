"""Graphs small enough for NVIDIA's compiler to take a fraction of a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from fine_edge.graph.open_batch import note_batch

value = helper.make_tensor_value_info


def save(path: Path, nodes, inputs, outputs, constants=()) -> Path:
    tensors = [numpy_helper.from_array(array, name) for name, array in constants]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def attention(path: Path, head_dim: int, kind: int = T.FLOAT16) -> Path:
    """softmax(Q K^T) V, four heads, 64 tokens."""
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"], name="/fine/MatMul"),
        helper.make_node("Softmax", ["s"], ["p"], name="/fine/Softmax", axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"], name="/fine/MatMul_1"),
    ]
    rows, columns = (1, 4, 64, head_dim), (1, 4, head_dim, 64)
    inputs = [value("q", kind, rows), value("k", kind, columns), value("v", kind, rows)]
    return save(path, nodes, inputs, [value("y", kind, rows)])


def mismatched(path: Path) -> Path:
    """A product of (1, 4) and (5, 4)."""
    step = helper.make_node("MatMul", ["x", "w"], ["y"], name="/head/MatMul")
    ends = [value("x", T.FLOAT, (1, 4))], [value("y", T.FLOAT, (1, 4))]
    return save(path, [step], *ends, [("w", np.ones((5, 4), np.float32))])


def sampled_wrongly(path: Path) -> Path:
    """GridSample of opset 20, which TensorRT 10.x parses as nearest without a word."""
    step = helper.make_node("GridSample", ["x", "grid"], ["y"], name="/decoder/GridSample", mode="linear")
    inputs = [value("x", T.FLOAT, (1, 1, 8, 8)), value("grid", T.FLOAT, (1, 8, 8, 2))]
    graph = helper.make_graph([step], "g", inputs, [value("y", T.FLOAT, (1, 1, 8, 8))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def heavy(path: Path) -> Path:
    """A product with 8 MiB of FP16 weights: its plan is larger than the log of its build."""
    weights = np.random.default_rng(0).standard_normal((2048, 2048)).astype(np.float16)
    step = helper.make_node("MatMul", ["x", "w"], ["y"], name="/head/MatMul")
    ends = [value("x", T.FLOAT16, (1, 2048))], [value("y", T.FLOAT16, (1, 2048))]
    return save(path, [step], *ends, [("w", weights)])


def branched(path: Path) -> Path:
    """Two rows of three convolutions that do not depend on each other, which the compiler runs at one time."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for row in "ab":
        for place in range(3):
            kernel = random.standard_normal((32, 32, 3, 3)).astype(np.float16) / 16
            weights.append((f"w{row}{place}", kernel))
            source = f"{row}{place - 1}" if place else "x"
            nodes.append(
                helper.make_node(
                    "Conv", [source, f"w{row}{place}"], [f"{row}{place}"], name=f"/{row}/Conv_{place}", pads=[1] * 4
                )
            )
    shape = (1, 32, 40, 40)
    ends = [value("x", T.FLOAT16, shape)], [value(f"{row}2", T.FLOAT16, shape) for row in "ab"]
    return save(path, nodes, *ends, weights)


def plugin_node(path: Path) -> Path:
    """A plugin's node that is a local function as well, as the export with a plugin writes it."""
    step = helper.make_node("FineModulate", ["x"], ["y"], name="/fine/modulate", domain="trt.plugins")
    ends = [value("x", T.FLOAT, (1, 4))], [value("y", T.FLOAT, (1, 4))]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("trt.plugins", 1)]
    body = [helper.make_node("Relu", ["low"], ["out"])]
    function = helper.make_function("trt.plugins", "FineModulate", ["low"], ["out"], body, opsets[:1])
    graph = helper.make_graph([step], "g", *ends)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[function])
    path.write_bytes(model.SerializeToString())
    return path


def open_batch(path: Path, most: int | None = 8, side: int = 16) -> Path:
    """A convolution and the mean of its maps, for any batch; ``most`` is noted as an export notes it."""
    kernel = np.ones((4, 3, 3, 3), np.float16)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["maps"], name="/backbone/Conv", pads=[1] * 4),
        helper.make_node("ReduceMean", ["maps"], ["y"], name="/head/ReduceMean", axes=[2, 3]),
    ]
    ends = [value("x", T.FLOAT16, ("n", 3, side, side))], [value("y", T.FLOAT16, ("n", 4, 1, 1))]
    save(path, nodes, *ends, [("w", kernel)])
    if most:
        model = onnx.load(path)
        note_batch(model, most)
        onnx.save(model, path)
    return path
