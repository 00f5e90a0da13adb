"""Graphs of one or two nodes for the tests of the parser's rules."""

from __future__ import annotations

import ml_dtypes
import numpy as np
from graph_builders import model, node, one, unary, value
from onnx import TensorProto as T
from onnx import helper

from fine_edge.graph.checks import check

F, H, B, D = T.FLOAT, T.FLOAT16, T.BFLOAT16, T.DOUBLE
I32, I64, I8, U8, BOOL = T.INT32, T.INT64, T.INT8, T.UINT8, T.BOOL
MAP = (1, 4, 8, 8)
GRID = (1, 2, 2, 2)


def ints(*numbers):
    return np.asarray(numbers, np.int64)


def singles(*numbers):
    return np.asarray(numbers, np.float32)


def halves(*shape):
    return np.ones(shape, np.float16)


def ones(*shape):
    return np.ones(shape, np.float32)


AXIS = ints(1)
TWICE = singles(1, 1, 2, 2)
SCALE, ZERO = np.asarray(0.1, np.float32), np.asarray(0, np.int8)


def resize(mode="linear", opset=18, dtype=F, **attributes):
    return one("Resize", (dtype, MAP), "", TWICE, opset=opset, out=(1, 4, 16, 16), mode=mode, **attributes)


def sized(**attributes):
    return one("Resize", (F, MAP), "", "", ints(1, 4, 16, 16), out=(1, 4, 16, 16), mode="linear", **attributes)


def grid(opset, x=F, g=F, **attributes):
    return one("GridSample", (x, MAP), (g, GRID), opset=opset, out=(1, 4, 2, 2), **attributes)


def conv(*weights, dims=MAP, out=None, **attributes):
    return one("Conv", (F, dims), *weights, out=out or (dims[0], 2, *dims[2:]), **attributes)


def norm(op_type, size, dtype=F, outputs=1, **attributes):
    weights = [np.ones(size, {F: np.float32, H: np.float16}[dtype])] * 2
    return one(op_type, (dtype, MAP), *weights, outputs=outputs, **attributes)


def batch_norm(dtype=H, stored=np.float16, outputs=1, **attributes):
    return one("BatchNormalization", (dtype, MAP), *[np.ones(4, stored)] * 4, outputs=outputs, **attributes)


def gemm(dtype=H, **attributes):
    other = np.ones((4, 4), np.float32).astype({F: np.float32, H: np.float16, B: ml_dtypes.bfloat16}[dtype])
    return one("Gemm", (dtype, (4, 4)), other, other[0], **attributes)


def reduced(op_type, dtype, opset=18, **attributes):
    return one(op_type, (dtype, MAP), AXIS, opset=opset, out=(1, 1, 8, 8), **attributes)


def quantize(zero=ZERO, scale=SCALE, dims=MAP, opset=18, dtype=F, **attributes):
    return one("QuantizeLinear", (dtype, dims), scale, zero, dtype=I8, opset=opset, **attributes)


def dequantize(scale, zero, dims=MAP, dtype=I8, opset=21, **attributes):
    return one("DequantizeLinear", (dtype, dims), scale, zero, dtype=F, opset=opset, **attributes)


def cast(start, target):
    nodes = [node("Cast", ["x"], ["c"], to=target), node("Cast", ["c"], ["y"], to=F)]
    return model(nodes, [value("x", start, MAP)], [value("y", F, MAP)], opset=19)


def branches(then, other, *, named="e", kind=F):
    def branch(name, dims, dtype):
        result = helper.make_tensor_value_info(name, dtype, dims)
        zeros = helper.make_tensor("z", dtype, dims, np.zeros(dims).ravel())
        return helper.make_graph([node("Constant", [], [name], value=zeros)], "b", [], [result])

    graphs = {"then_branch": branch("t", then, F), "else_branch": branch(named, other, kind)}
    return one("If", (BOOL, ()), dtype=F, out=then, **graphs)


def called(op_type, domain="local"):
    """A function of the model around one operator of it."""
    body = node(op_type, ["a"], ["b"])
    function = helper.make_function(domain, "F", ["a"], ["b"], [body], [helper.make_opsetid("", 18)])
    graph = unary("F", MAP, domain=domain, domains=[domain], opset=18)
    graph.functions.append(function)
    return graph


def computed_axes(op_type, opset):
    """An operator whose axes a Cast makes of a constant: ONNX Runtime folds it, the parser does not."""
    nodes = [node("Cast", ["a"], ["c"], to=I64), node(op_type, ["x", "c"], ["y"], name="step")]
    return model(nodes, [value("x", F, MAP)], [value("y", F, MAP)], {"a": np.asarray([1], np.int32)}, opset=opset)


def unread_sparse():
    graph = unary("Relu", MAP)
    values = helper.make_tensor("s", F, [1], [1.0])
    graph.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, helper.make_tensor("si", I64, [1], [0]), [4])
    )
    return graph


def errors(graph):
    """The errors of the parser's rules; FE04 is about this package's contracts."""
    return [finding for finding in check(graph) if finding.severity == "error" and finding.rule != "FE04"]
