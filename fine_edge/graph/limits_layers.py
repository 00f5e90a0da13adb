"""Limits of TensorRT's parser on layers with weights or windows: convolution, pooling, normalization, matrix products.

Each function yields what is wrong with one node. Source: onnx-tensorrt 10.6, the importers and ``onnxOpCheckers.cpp``;
ranks of kernels and the window of LRN were measured with the layers of TensorRT-RTX 1.7.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from onnx import NodeProto
from onnx import TensorProto as T

from fine_edge.graph.view import (
    GraphView,
    Severity,
    attribute_float,
    attribute_int,
    attribute_ints,
    attribute_text,
    input_name,
    type_name,
)


class Limit(NamedTuple):
    """A limit that a node exceeds, and what to do about it."""

    message: str
    hint: str
    severity: Severity = "error"


Limits = Callable[[GraphView, NodeProto], Iterator[Limit]]

_NARROW = (T.FLOAT16, T.BFLOAT16)
_WIDEST_LRN = 15


def _one_output(node: NodeProto) -> Iterator[Limit]:
    """Yield a limit when a node has more outputs with a name than the first."""
    if any(node.output[1:]):
        yield Limit("only its first output is computed", "export for inference, without the further outputs")


def _padding(node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of ``pads`` and ``auto_pad``, which convolution and pooling share."""
    pads = attribute_ints(node, "pads")
    if pads and attribute_text(node, "auto_pad", "NOTSET").startswith("SAME"):
        yield Limit("pads and auto_pad contradict each other", "remove one of the attributes pads and auto_pad")
    if any(pad < 0 for pad in pads):
        yield Limit("pads are negative", "cut the map with Slice before the node")


def _pooling(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of AveragePool, MaxPool and LpPool: no dilation, two or three spatial dimensions."""
    kernel, rank = len(attribute_ints(node, "kernel_shape")), graph.rank(input_name(node, 0))
    if graph.opset >= 10 and any(step != 1 for step in attribute_ints(node, "dilations")):
        yield Limit("its window is dilated", "pool with dilation 1, or write it as strided slices")
    if kernel not in (2, 3) and not (kernel == 1 and rank in (3, None)):
        yield Limit(f"its window has {kernel} dimensions", "pool over one to three spatial dimensions")
    if kernel == 3 and graph.parsed_type(input_name(node, 0)) == T.INT8:
        yield Limit("INT8 over three spatial dimensions", "pool before QuantizeLinear")
    if node.op_type == "MaxPool":
        yield from _one_output(node)
    if node.op_type == "LpPool":
        yield from _norm_order(graph, node)
    yield from _padding(node)


def _norm_order(_: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield a limit of LpPool and LpNormalization: p is 1 or 2."""
    if attribute_int(node, "p", 2) not in (1, 2):
        yield Limit(f"p is {attribute_int(node, 'p', 2)}", "use p = 1 or p = 2")


def _convolution(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of Conv: one to three spatial dimensions, a kernel and groups that fit the map."""
    yield from _padding(node)
    yield from _kernel(graph, node)
    dims, weights = graph.shape(input_name(node, 0)), graph.shape(input_name(node, 1))
    if dims is None or weights is None or len(dims) < 2 or len(weights) < 2:
        return
    channels, taken, group = dims[1], weights[1], attribute_int(node, "group", 1)
    if channels is not None and taken is not None and taken * group != channels:
        yield Limit(f"{group} groups of {taken} channels do not make {channels}", "export the model again")


def _transposed(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of ConvTranspose: as Conv's, and an ``output_shape`` that needs no negative padding."""
    yield from _padding(node)
    yield from _kernel(graph, node)
    dims, weights = graph.shape(input_name(node, 0)), graph.shape(input_name(node, 1))
    wanted = attribute_ints(node, "output_shape")
    if dims is None or weights is None or not wanted or attribute_text(node, "auto_pad", "NOTSET") != "NOTSET":
        return
    spatial = len(dims) - 2
    ones = [1] * spatial
    strides, dilations = (attribute_ints(node, name) or ones for name in ("strides", "dilations"))
    extra = attribute_ints(node, "output_padding") or [0] * spatial
    sizes = zip(dims[2:], weights[2:], wanted[-spatial:], strict=False)
    for (size, kernel, out), stride, dilation, more in zip(sizes, strides, dilations, extra, strict=False):
        total = 0 if size is None or kernel is None else stride * (size - 1) + more + (kernel - 1) * dilation + 1 - out
        if total < -1:
            yield Limit("its output_shape needs negative padding", "use output_padding instead of output_shape")
            return


def _kernel(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    dims, weights = graph.shape(input_name(node, 0)), graph.shape(input_name(node, 1))
    bias = graph.rank(input_name(node, 2)) if input_name(node, 2) else None
    if dims is not None and not 3 <= len(dims) <= 5:
        yield Limit(f"its map has {len(dims)} dimensions", "convolve over one to three spatial dimensions")
    elif dims is not None and weights is not None and len(dims) != len(weights):
        yield Limit(f"a map of {len(dims)} and weights of {len(weights)} dimensions", "export the model again")
    declared = attribute_ints(node, "kernel_shape")
    if declared and weights is not None and None not in weights and declared != list(weights[2:]):
        yield Limit("kernel_shape is not the shape of the weights", "export the model again")
    if bias is not None and bias > 1:
        yield Limit(f"its bias has {bias} dimensions", "store the bias as a vector")


def _batch_norm(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of BatchNormalization: inference only, vectors, one type unless all are weights."""
    if attribute_int(node, "training_mode", 0):
        yield Limit("it is in training mode", "call eval() before the export")
    yield from _one_output(node)
    names = [input_name(node, index) for index in range(1, 5)]
    if any(graph.rank(name) not in (1, None) for name in names):
        yield Limit("scale, bias, mean and variance must be vectors", "export the model again")
    types = {graph.parsed_type(name) for name in (input_name(node, 0), *names)} - {0}
    if len(types) > 1 and not all(map(graph.is_weights, names)):
        listed = " and ".join(sorted(map(type_name, types)))
        yield Limit(f"inputs of {listed} that are no weights", "store its parameters in the type of the map")


def _group_norm(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of GroupNormalization and InstanceNormalization: three dimensions, groups that divide."""
    dims, scale = graph.shape(input_name(node, 0)), graph.shape(input_name(node, 1))
    groups = attribute_int(node, "num_groups", 1)
    if dims is not None and len(dims) < 3:
        yield Limit(f"its map has {len(dims)} dimensions, at least 3 are needed", "reshape to (N, C, L) before it")
    elif dims is not None and dims[1] is not None and (groups < 1 or dims[1] % groups):
        yield Limit(f"{groups} groups do not divide {dims[1]} channels", "export the model again")
    if node.op_type == "GroupNormalization" and graph.opset >= 21 and scale and scale[0] != groups:
        message = "one scale a channel (opset 21); TensorRT documents one a group"
        yield Limit(message, "export with opset 18 to 20, or build it on the device first", "warning")


def _layer_norm(_: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield a limit of LayerNormalization: the mean and the deviation are not computed."""
    yield from _one_output(node)


def _lrn(_: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield a limit of LRN: an odd window of at most 15."""
    size = attribute_int(node, "size", 1)
    if size % 2 == 0 or not 1 <= size <= _WIDEST_LRN:
        yield Limit(f"its window is {size}", f"use an odd window of at most {_WIDEST_LRN}")


def _gemm(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of Gemm: matrices, and alpha and beta of 1 unless it is FP32."""
    for index in (0, 1):
        rank = graph.rank(input_name(node, index))
        if rank not in (2, None):
            yield Limit(f"input {index} has {rank} dimensions", "use MatMul and Add")
    narrow = graph.parsed_type(input_name(node, 0)) in _NARROW
    factors = {"alpha": True, "beta": bool(input_name(node, 2))}
    for name, used in factors.items():
        if narrow and used and attribute_float(node, name, 1.0) != 1.0:
            dtype = type_name(graph.parsed_type(input_name(node, 0)))
            message = f"{name} is {attribute_float(node, name, 1.0):g}: the parser multiplies {dtype} with FLOAT"
            yield Limit(message, f"fold {name} into the weights, or keep the node in FP32")


def _matmul(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield a limit of MatMul: a vector times a batch of matrices, of which the parser drops the wrong dimension."""
    one, two = graph.rank(input_name(node, 0)), graph.shape(input_name(node, 1))
    if one == 1 and two is not None and len(two) > 2 and not (len(two) == 3 and two[0] == 1):
        yield Limit("a vector times a batch of matrices", "reshape the vector to (1, n)")


def _dropout(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of Dropout: a constant that says inference, and a name for each output."""
    hint = "call eval() before the export"
    if graph.opset >= 12 and len(node.input) > 2:
        mode = graph.constant(input_name(node, 2))
        if mode is None or not graph.is_weights(input_name(node, 2)):
            yield Limit("its training_mode is no constant", hint)
        elif mode.size and bool(mode.ravel()[0]):
            yield Limit("it is in training mode", hint)
    elif graph.opset <= 6 and not attribute_int(node, "is_test", 1):
        yield Limit("it is in training mode", hint)
    yield from all_outputs(graph, node)


def all_outputs(_: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield a limit of operators whose every output needs a name: Dropout, Split and TopK."""
    if not all(node.output):
        yield Limit("an output without a name", "name every output")


def _mean(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield a limit of Mean: in FP16 the parser writes its divisor in the wrong type."""
    if graph.parsed_type(input_name(node, 0)) in _NARROW:
        message = "the parser stores the divisor of a narrow type as FLOAT: the result may be wrong"
        yield Limit(message, "write it as Sum and Mul", "warning")


def _window(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of BlackmanWindow, HammingWindow and HannWindow: FP32, a scalar length."""
    if attribute_int(node, "output_datatype", T.FLOAT) != T.FLOAT:
        yield Limit("its output is not FLOAT", "make it in FP32 and cast")
    if graph.rank(input_name(node, 0)) not in (0, None):
        yield Limit("its length is no scalar", "give the length as a scalar")


def _fourier(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of STFT: a real signal, constants for everything else."""
    dims = graph.shape(input_name(node, 0))
    if dims is not None and not (len(dims) == 2 or (len(dims) == 3 and dims[2] == 1)):
        yield Limit("its signal is not real", "give a signal of (batch, length) or (batch, length, 1)")
    names = [name for name in node.input[1:] if name]
    if not all(map(graph.is_weights, names)):
        yield Limit("its step, window or length is no constant", "export with Python numbers, not tensors")
    if not input_name(node, 2) and not input_name(node, 3):
        yield Limit("neither a window nor a length", "give frame_length")


LAYER_LIMITS: dict[str, Limits] = {
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _pooling),
    "BatchNormalization": _batch_norm,
    **dict.fromkeys(("BlackmanWindow", "HammingWindow", "HannWindow"), _window),
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Dropout": _dropout,
    "Gemm": _gemm,
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization"), _group_norm),
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _norm_order,
    "MatMul": _matmul,
    "Mean": _mean,
    "STFT": _fourier,
    "TopK": all_outputs,
}
