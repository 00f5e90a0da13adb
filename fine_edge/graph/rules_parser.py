"""Rules of TensorRT 10.7's ONNX parser: the operators, types, attributes and ranks it imports; Resize and Q/DQ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from onnx import NodeProto
from onnx import TensorProto as T

from fine_edge.graph.limits_layers import LAYER_LIMITS, Limit
from fine_edge.graph.limits_tensors import TENSOR_LIMITS
from fine_edge.graph.parser_operators import (
    DEEPEST_NESTING,
    FLOATING,
    KNOWN,
    MOST_DIMENSIONS,
    OPERATORS,
    QUANTIZED,
    REFUSED,
    Operator,
    Types,
)
from fine_edge.graph.rules_operators import PLUGIN_DOMAINS, SPECIAL
from fine_edge.graph.view import (
    Finding,
    GraphView,
    attribute_int,
    attribute_ints,
    attribute_text,
    has_attribute,
    input_name,
    is_static,
    label,
    type_name,
)
from fine_edge.graph.walk import subgraphs_of

# The rule on QuantizeLinear and DequantizeLinear: symmetric INT8, FP8 or INT4, as TensorRT's parser imports them.

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


# The rule on Resize and Upsample: the ways of interpolation that TensorRT's parser imports.

_COORDINATES = ("align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn")
# Innermost dimensions that a mode can resize by scales.
_WIDEST = {"linear": 3, "bilinear": 3, "cubic": 2}

_PLAIN = "interpolate nearest or linear, with half_pixel, asymmetric or align_corners"


def resize_mode(graph: GraphView) -> list[Finding]:
    """FE13: Resize without antialiasing, by a mode, coordinates and axes that the parser imports.

    Source: onnx-tensorrt 10.6, ``docs/operators.md``, the importer and checker of Resize: nearest and linear are
    documented, cubic is imported as well; the parser says "Antialiasing is not supported".
    Hint: nearest or linear, ``antialias=False``.
    """
    found = []
    for node in graph.nodes:
        limits = {"Resize": _resize, "Upsample": _upsample}.get(node.op_type)
        for limit in limits(graph, node) if limits else ():
            message = f"{node.op_type} {limit.message}"
            found.append(Finding("FE13", limit.severity, label(node), message, limit.hint))
    return found


def _resize(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    if attribute_int(node, "antialias", 0):
        yield Limit("with antialiasing is refused", "interpolate with antialias=False")
    policy = attribute_text(node, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        yield Limit(f"with keep_aspect_ratio_policy {policy!r} is refused", "name both sizes: stretch")
    mode = attribute_text(node, "mode", "nearest")
    if mode not in ("nearest", "linear", "cubic"):
        yield Limit(f"with mode {mode!r} is refused", _PLAIN)
    if mode == "cubic":
        hint = "use nearest or linear, or build it on the device before relying on it"
        yield Limit("with mode 'cubic' is imported, and not in the parser's published table", hint, "warning")
    if graph.opset >= 11:
        yield from _coordinates(node)
    yield from _axes(graph, node)
    yield from _scales(graph, node, input_name(node, 2 if graph.opset >= 11 else 1), mode)


def _coordinates(node: NodeProto) -> Iterator[Limit]:
    coordinates = attribute_text(node, "coordinate_transformation_mode", "half_pixel")
    nearest = attribute_text(node, "nearest_mode", "round_prefer_floor")
    if coordinates not in _COORDINATES:
        yield Limit(f"with coordinates {coordinates!r} is refused", _PLAIN)
    if coordinates == "tf_half_pixel_for_nn" and nearest != "round_prefer_floor":
        yield Limit(f"with tf_half_pixel_for_nn and nearest_mode {nearest!r} is refused", _PLAIN)
    if coordinates == "tf_half_pixel_for_nn" and input_name(node, 3):
        yield Limit("with tf_half_pixel_for_nn takes scales, not sizes", "name scales, or use half_pixel")


def _axes(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    rank, axes = graph.rank(input_name(node, 0)), attribute_ints(node, "axes")
    if rank is None:
        return
    if rank == 0:
        yield Limit("of a scalar is refused", "resize a map")
    normal = [axis + rank if axis < 0 else axis for axis in axes]
    if len(set(normal)) < len(normal):
        yield Limit("with the same axis twice is refused", "name each axis once")
    scales = input_name(node, 2)
    if axes and normal != list(range(rank)) and scales and not input_name(node, 3) and not graph.is_weights(scales):
        yield Limit("with axes and computed scales is refused", "store the scales as a constant")


def _upsample(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    mode = attribute_text(node, "mode", "nearest")
    if mode not in ("nearest", "linear", "bilinear"):
        yield Limit(f"with mode {mode!r} is refused", "use nearest or linear")
    if graph.opset >= 9:
        yield from _scales(graph, node, input_name(node, 1), mode)


def _scales(graph: GraphView, node: NodeProto, name: str, mode: str) -> Iterator[Limit]:
    scales, rank = graph.constant(name), graph.rank(input_name(node, 0))
    if name and not graph.is_constant(name):
        yield Limit("by scales from the network's input is refused", "name the sizes, or export with a fixed factor")
    if scales is None or scales.dtype.kind != "f" or not scales.size or input_name(node, 3):
        return
    if scales.ndim != 1:
        yield Limit(f"with scales of {scales.ndim} dimensions is refused", "store the scales as a vector")
        return
    axes = attribute_ints(node, "axes")
    if rank is not None and len(scales) != (len(axes) or rank):
        yield Limit(f"of {rank} dimensions with {len(scales)} scales is refused", "give one scale a dimension")
    elif rank is not None and mode in _WIDEST:
        normal = [axis + rank if axis < 0 else axis for axis in axes] or list(range(rank))
        outer = [scale for axis, scale in zip(normal, scales, strict=False) if axis < rank - _WIDEST[mode]]
        if any(float(scale) != 1.0 for scale in outer):
            yield Limit(
                f"{mode} over more than {_WIDEST[mode]} dimensions is refused", "resize the innermost ones only"
            )


_LIMITS = LAYER_LIMITS | TENSOR_LIMITS
_OTHER_WAY = "write it with operators that the parser knows, or compute it on the host"


def known_operators(graph: GraphView) -> list[Finding]:
    """FE20: ONNX operators that the parser imports.

    Source: onnx-tensorrt 10.6, ``docs/operators.md``: it refuses some by name, and searches a plugin for the others.
    Hint: write it with other operators, or compute it on the host.
    """
    found = []
    for node in graph.nodes:
        name = node.op_type
        if node.domain not in ("", "ai.onnx") or name in OPERATORS or name in SPECIAL or name.endswith("_TRT"):
            continue
        if name in REFUSED:
            message = f"{name}: TensorRT refuses it"
        else:
            message = f"{name}: the parser does not know it and searches a plugin of this name"
        found.append(Finding("FE20", "error", label(node), message, _OTHER_WAY))
    return found


def operator_types(graph: GraphView) -> list[Finding]:
    """FE21: element types that the parser takes for an operator, and one type where two inputs meet.

    Source: onnx-tensorrt 10.6, the importers; a strongly typed network refuses what is not of one type.
    Hint: cast before the node.
    """
    found = []
    for node in graph.nodes:
        operator = OPERATORS.get(node.op_type)
        if operator is None or node.domain in PLUGIN_DOMAINS:
            continue
        if problem := _not_taken(graph, node, operator) or _not_alike(graph, node, operator):
            message, hint = problem
            found.append(Finding("FE21", "error", label(node), f"{node.op_type} {message}", hint))
    return found


def _not_taken(graph: GraphView, node: NodeProto, operator: Operator) -> tuple[str, str] | None:
    for index, types in enumerate(operator.takes):
        dtype = graph.parsed_type(input_name(node, index))
        if dtype and dtype not in types:
            return f"of {type_name(dtype)} (input {index}): TensorRT takes {_listed(types)}", "cast it before the node"
    return None


def _not_alike(graph: GraphView, node: NodeProto, operator: Operator) -> tuple[str, str] | None:
    types = {}
    for index in operator.alike:
        if index >= len(node.input):
            break
        if dtype := graph.parsed_type(node.input[index]):
            types[dtype] = index
    if len(types) < 2:
        return None
    listed = " and ".join(type_name(dtype) for dtype in types)
    return f"of {listed}: a strongly typed network takes one type", "cast all inputs of the node to one type"


def _listed(types: Types) -> str:
    """Return the names of types, those that networks compute with first."""
    return ", ".join(type_name(dtype) for dtype in sorted(types, key=lambda dtype: (dtype not in FLOATING, dtype)))


def operator_limits(graph: GraphView) -> list[Finding]:
    """FE22: attributes, shapes and outputs that the parser imports.

    Source: onnx-tensorrt 10.6, ``docs/operators.md``, the importers and ``onnxOpCheckers.cpp``.
    Hint: one for each limit.
    """
    found = []
    for node in graph.nodes:
        if node.op_type not in _LIMITS or node.domain in PLUGIN_DOMAINS:
            continue
        for limit in _LIMITS[node.op_type](graph, node):
            message = f"{node.op_type}: {limit.message}"
            found.append(Finding("FE22", limit.severity, label(node), message, limit.hint))
    for sparse in graph.model.graph.sparse_initializer:
        message = f"the parser does not read the sparse constant {sparse.values.name!r}"
        found.append(Finding("FE22", "error", "graph", message, "store it as a dense tensor"))
    return found


def dimensions(graph: GraphView) -> list[Finding]:
    """FE23: at most 8 dimensions a tensor, and 24 subgraphs inside each other.

    Source: TensorRT's ``Dims::MAX_DIMS``; onnx-tensorrt 10.6, ``ModelImporter.cpp``.
    Hint: merge dimensions, or export without nested control flow.
    """
    found = []
    for name, rank in graph.ranks().items():
        if rank > MOST_DIMENSIONS:
            node = graph.producer(name)
            message = f"a tensor of {rank} dimensions, TensorRT has {MOST_DIMENSIONS}"
            found.append(Finding("FE23", "error", label(node) if node else "graph", message, "merge dimensions"))
    if _depth(graph.model.graph.node) > DEEPEST_NESTING:
        message = f"more than {DEEPEST_NESTING} subgraphs inside each other"
        found.append(Finding("FE23", "error", "graph", message, "export without nested control flow"))
    return found


def _depth(nodes: Iterable[NodeProto]) -> int:
    """Return how many subgraphs stand inside each other."""
    deepest, pending = 0, [(nodes, 0)]
    while pending:
        inner, depth = pending.pop()
        deepest = max(deepest, depth)
        pending += [(graph.node, depth + 1) for node in inner for graph in subgraphs_of(node)]
    return deepest
