"""The rule on QuantizeLinear and DequantizeLinear: symmetric INT8, FP8 or INT4, as TensorRT's parser imports them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto
from onnx import TensorProto as T

from fine_edge.graph.limits_layers import Limit
from fine_edge.graph.parser_operators import FLOATING, KNOWN, QUANTIZED
from fine_edge.graph.view import (
    Finding,
    GraphView,
    attribute_int,
    has_attribute,
    input_name,
    is_static,
    label,
    type_name,
)

_SYMMETRIC = "quantize symmetrically to INT8: zero points of 0, of type INT8"
# Operators that move numbers: a quantized tensor may pass them between QuantizeLinear and DequantizeLinear.
_MOVES = ("QuantizeLinear", "DequantizeLinear", "Identity", "Reshape", "Transpose", "Shape", "Size")


def quantization(graph: GraphView) -> list[Finding]:
    """FE24: quantization is symmetric, to INT8, FP8 or INT4, and its types stand between Q and DQ only.

    Source: onnx-tensorrt 10.6, ``docs/operators.md`` and the importer of QuantizeLinear and DequantizeLinear.
    Hint: quantize symmetrically to INT8.
    """
    found = []
    for node in graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            limits = [*_types(graph, node), *_zero_point(graph, node), *_scale(graph, node)]
        else:
            limits = list(_outside(graph, node))
        found += [
            Finding("FE24", lim.severity, label(node), f"{node.op_type}: {lim.message}", lim.hint) for lim in limits
        ]
    return found


def _types(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    data, scale = (graph.parsed_type(input_name(node, index)) for index in (0, 1))
    quantizes = node.op_type == "QuantizeLinear"
    dims = graph.shape(input_name(node, 0))
    if (
        T.INT4 in (data, graph.dtype(input_name(node, 2)))
        and dims is not None
        and is_static(dims)
        and _volume(dims) % 2
    ):
        yield Limit("an odd number of INT4", "quantize an even number of elements")
    if data and data not in (FLOATING if quantizes else QUANTIZED):
        yield Limit(f"its input is {type_name(graph.dtype(input_name(node, 0)))}", _SYMMETRIC)
    if scale and scale not in FLOATING:
        yield Limit(f"its scale is {type_name(scale)}", "store the scale as FLOAT")
    if quantizes and graph.opset >= 19 and data and scale and data != scale:
        message = f"it divides {type_name(data)} by a scale of {type_name(scale)}"
        yield Limit(message, "store the scale in the type of the data")


def _zero_point(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of the zero point, whose type is the quantized one, and of ``output_dtype``."""
    name = input_name(node, 2)
    dtype, values = graph.dtype(name), graph.constant(name)
    declared = attribute_int(node, "output_dtype", 0) if node.op_type == "QuantizeLinear" else 0
    if name and dtype and dtype not in QUANTIZED:
        yield Limit(f"its zero point is {type_name(dtype)}", _SYMMETRIC)
    elif dtype in (T.INT8, T.INT4) and values is not None and values.astype(np.int8).any():
        yield Limit("its zero point is not 0", _SYMMETRIC)
    if declared and declared not in QUANTIZED:
        yield Limit(f"its output_dtype is {type_name(declared)}", _SYMMETRIC)
    elif declared and dtype and declared != dtype:
        yield Limit(f"output_dtype {type_name(declared)} and a zero point of {type_name(dtype)}", _SYMMETRIC)
    if node.op_type == "QuantizeLinear" and not name and not declared:
        yield Limit("without a zero point TensorRT quantizes to INT8, ONNX to UINT8", _SYMMETRIC, "warning")
    sizes = [graph.shape(input_name(node, index)) for index in (1, 2)]
    if name and all(map(is_static, sizes)) and _volume(sizes[0]) != _volume(sizes[1]):
        yield Limit("its scale and zero point are of different sizes", "give one zero point a scale")


def _scale(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield the limits of the scale: positive, static, one a tensor, a channel or a block."""
    dims, scales = (graph.shape(input_name(node, index)) for index in (0, 1))
    values = graph.constant(input_name(node, 1))
    if values is not None and values.dtype.kind == "f" and not (values.astype(np.float64) > 0).all():
        yield Limit("its scale is not positive", "calibrate again")
    if scales is None or not is_static(scales):
        if scales is not None:
            yield Limit("its scale has a dynamic shape", "store the scale as a constant")
        return
    if _volume(scales) == 1 or dims is None or not is_static(dims):
        return
    if len(scales) == 1:
        yield from _per_axis(node, dims, int(scales[0] or 0))
    elif len(scales) == len(dims):
        blocks = [
            one // two if two else 0
            for one, two in zip(dims, scales, strict=True)
            if one is not None and two is not None
        ]
        if blocks.count(1) != len(dims) - 1:
            yield Limit("its blocks span more or less than one dimension", "quantize blocks along one dimension")
    else:
        yield Limit(f"its scale has {len(scales)} dimensions", "give one scale a tensor, channel or block")


def _per_axis(node: NodeProto, dims: tuple[int | None, ...], scales: int) -> Iterator[Limit]:
    if not has_attribute(node, "axis") and len(dims) > 1:
        yield Limit("without axis TensorRT scales along 0, ONNX along 1", "write the attribute axis")
        return
    axis = attribute_int(node, "axis", 0)
    axis += len(dims) if axis < 0 else 0
    if not 0 <= axis < len(dims) or dims[axis] != scales:
        yield Limit(f"{scales} scales do not fit axis {axis}", "give one scale a channel of the axis")


def _volume(dims: tuple[int | None, ...] | None) -> int:
    total = 1
    for dim in dims or ():
        total *= dim or 0
    return total


def _outside(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    """Yield a limit of other operators: TensorRT documents no arithmetic on quantized types."""
    if node.op_type in _MOVES or node.op_type.startswith("TRT_"):
        return
    types = {graph.dtype(name) for name in (*node.input, *node.output) if name} & QUANTIZED & KNOWN
    if types and node.op_type != "Constant":
        listed = " and ".join(sorted(map(type_name, types)))
        yield Limit(f"{listed} outside of quantization is not documented", "compute in FP16 or INT32", "warning")
