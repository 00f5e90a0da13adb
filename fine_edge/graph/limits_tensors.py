"""Limits of TensorRT's parser on operators that move, compare, select and make numbers, and on branches.

Each function yields what is wrong with one node. Source: onnx-tensorrt 10.6, the importers and ``onnxOpCheckers.cpp``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, NodeProto
from onnx import TensorProto as T

from fine_edge.graph.limits_layers import Limit, Limits, all_outputs
from fine_edge.graph.parser_operators import CASTABLE, OLDEST_BROADCAST
from fine_edge.graph.view import (
    GraphView,
    attribute_int,
    attribute_text,
    has_attribute,
    input_name,
    type_name,
    value_dims,
)
from fine_edge.graph.walk import subgraphs_of

_PAD_MODES = ("constant", "edge", "reflect", "wrap")
_SAMPLE_PADDINGS = ("zeros", "border", "reflection")
_AGAIN = "export the model again"
_NUMBERS = "export with Python numbers, not tensors"


def _elementwise(graph: GraphView, _: NodeProto) -> Iterator[Limit]:
    if graph.opset < OLDEST_BROADCAST:
        yield Limit(f"nothing is broadcast in opset {graph.opset}", "export with opset 17 to 19")


def _cast(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    target = attribute_int(node, "to", T.FLOAT)
    if node.op_type == "CastLike":
        target = graph.parsed_type(input_name(node, 1)) or T.FLOAT
    if target not in CASTABLE:
        yield Limit(f"there is no cast to {type_name(target)}", "cast to FLOAT, FLOAT16, INT32, INT64 or BOOL")


def _clip(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    bounds = [name for name in node.input[1:] if name]
    if graph.parsed_type(input_name(node, 0)) == T.INT8 and bounds:
        yield Limit("limits of INT8 are read as 0", "clip in FP32, before QuantizeLinear")


def _constant(_: GraphView, node: NodeProto) -> Iterator[Limit]:
    for name in ("sparse_value", "value_string", "value_strings"):
        if has_attribute(node, name):
            yield Limit(f"the parser does not read {name}", "store a dense tensor of numbers")


def _blocks(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    rank = graph.rank(input_name(node, 0))
    if rank not in (4, None):
        yield Limit(f"its map has {rank} dimensions, not 4", "reshape it to (N, C, H, W)")


def _einsum(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    equation = attribute_text(node, "equation", "").replace(" ", "")
    strange = sorted({letter for letter in equation if not ("a" <= letter <= "z" or letter in "->.,")})
    if strange:
        yield Limit(f"{''.join(strange[:9])!r} in its equation", "use lower-case letters")
    left, arrow, right = equation.partition("->")
    repeated = {letter for letter, times in Counter(right).items() if letter.isalpha() and times > 1}
    unknown = {letter for letter in set(right) - set(left) if letter.isalpha()}
    if arrow and repeated | unknown:
        letters = "".join(sorted(repeated | unknown)[:9])
        yield Limit(f"{letters!r} on its right-hand side", "name each letter of the left-hand side once at most")
    terms = left.split(",")
    hidden = set()
    for index, term in enumerate(terms):
        rank = graph.rank(input_name(node, index))
        if "..." in term and rank is not None:
            hidden.add(rank - len(term.replace("...", "")))
    if len(hidden) > 1:
        yield Limit("its ellipses stand for different numbers of dimensions", "write the dimensions out")


def _eye(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    dims = graph.shape(input_name(node, 0))
    if dims is not None and (len(dims) != 2 or None in dims):
        yield Limit("its input is no matrix of static shape", "store the matrix as a constant")


def _expand(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    if graph.rank(input_name(node, 1)) not in (1, None):
        yield Limit("its shape is no vector", _AGAIN)


def _gelu(_: GraphView, node: NodeProto) -> Iterator[Limit]:
    kind = attribute_text(node, "approximate", "none")
    if kind not in ("none", "tanh"):
        yield Limit(f"approximate is {kind!r}", "use none or tanh")


def _grid_sample(_: GraphView, node: NodeProto) -> Iterator[Limit]:
    mode = attribute_text(node, "padding_mode", "zeros")
    if mode not in _SAMPLE_PADDINGS:
        yield Limit(f"padding_mode {mode!r} is read as zeros", f"use {', '.join(_SAMPLE_PADDINGS)}")


def _infinite(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    both = attribute_int(node, "detect_negative", 1) and attribute_int(node, "detect_positive", 1)
    dtype = graph.parsed_type(input_name(node, 0))
    if not both and dtype not in (T.FLOAT, 0):
        yield Limit(f"one sign of {type_name(dtype)} is compared with FLOAT", "detect both signs, or cast to FLOAT")


def _branches(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    taken = list(subgraphs_of(node))
    if graph.is_weights(input_name(node, 0)) or len(taken) != 2:
        return
    then, other = taken
    if len(then.output) != len(other.output):
        yield Limit("its branches have different numbers of outputs", _AGAIN)
    for one, two in zip(then.output, other.output, strict=False):
        yield from _outputs_alike(graph, one.name, two.name, (then, other))


def _outputs_alike(graph: GraphView, one: str, two: str, graphs: tuple[GraphProto, GraphProto]) -> Iterator[Limit]:
    ranks = [_declared_rank(graph, name, branch) for name, branch in zip((one, two), graphs, strict=True)]
    types = [graph.parsed_type(name) for name in (one, two)]
    if one == two:
        yield Limit(f"both branches name an output {one!r}", "give the outputs of the branches different names")
    elif None not in ranks and ranks[0] != ranks[1]:
        yield Limit(f"its branches give {ranks[0]} and {ranks[1]} dimensions", "give both branches one rank")
    elif 0 not in types and types[0] != types[1]:
        yield Limit(f"its branches give {type_name(types[0])} and {type_name(types[1])}", "cast one of them")


def _declared_rank(graph: GraphView, name: str, branch: GraphProto) -> int | None:
    declared = {value.name: value for value in branch.output}[name]
    known = graph.rank(name)
    return known if known is not None or not declared.type.tensor_type.HasField("shape") else len(value_dims(declared))


def _modulo(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    dtype = graph.parsed_type(input_name(node, 0))
    if not attribute_int(node, "fmod", 0) and dtype not in (T.INT32, T.INT64, 0):
        yield Limit(f"fmod is 0 for {type_name(dtype)}", "use INT32 or INT64, or fmod = 1")


def _suppression(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    for index, meaning in enumerate(("boxes", "scores")):
        rank = graph.rank(input_name(node, index))
        if rank not in (3, None):
            yield Limit(f"its {meaning} have {rank} dimensions, not 3", "reshape to (batch, ..., ...)")
    for index in range(2, len(node.input)):
        yield from _scalar(graph, node, index)
    if attribute_int(node, "center_point_box", 0) not in (0, 1):
        yield Limit("center_point_box is neither 0 nor 1", _AGAIN)


def _scalar(graph: GraphView, node: NodeProto, index: int) -> Iterator[Limit]:
    dims = graph.shape(input_name(node, index))
    if dims is not None and any(dim not in (1, None) for dim in dims):
        yield Limit(f"its input {index} is no single number", _AGAIN)


def _one_hot(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    yield from _scalar(graph, node, 1)
    if not graph.is_constant(input_name(node, 1)):
        yield Limit("its depth is computed from the network's input", _NUMBERS)


def _pad(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    mode = attribute_text(node, "mode", "constant")
    if mode not in _PAD_MODES:
        yield Limit(f"mode is {mode!r}", f"use {', '.join(_PAD_MODES)}")
    pads = graph.constant(input_name(node, 1)) if graph.opset >= 11 else None
    declared = [attribute.ints for attribute in node.attribute if attribute.name == "pads"]
    negative = any(pad < 0 for ints in declared for pad in ints)
    if negative or (pads is not None and pads.dtype.kind == "i" and (pads.astype(np.int64) < 0).any()):
        yield Limit("pads are negative", "cut with Slice instead")
    value, name = graph.parsed_type(input_name(node, 2)), input_name(node, 2)
    data = graph.parsed_type(input_name(node, 0))
    fills = value in (T.FLOAT, T.FLOAT16, T.BFLOAT16) and graph.is_weights(name)
    if value and data and value != data and not fills:
        yield Limit(f"{type_name(value)} fills {type_name(data)}", "store the value in the type of the data")


def _random(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    dtype = attribute_int(node, "dtype", T.FLOAT)
    if not has_attribute(node, "dtype") and node.op_type.endswith("Like"):
        dtype = graph.parsed_type(input_name(node, 0)) or T.FLOAT
    if dtype not in (T.FLOAT, T.FLOAT16) and not (dtype == T.BFLOAT16 and not has_attribute(node, "dtype")):
        yield Limit(f"random numbers of {type_name(dtype)}", "use FLOAT or FLOAT16")
    if node.op_type.endswith("Like") and graph.is_weights(input_name(node, 0)):
        yield Limit("its input is a constant", "name the shape in RandomNormal or RandomUniform")


def _log_sum_exp(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    if graph.opset >= 18 and input_name(node, 1):
        yield Limit("the parser forgets its axes and reduces all", "export with opset 17", "warning")


def _reversed(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    if attribute_int(node, "batch_axis", 1) == attribute_int(node, "time_axis", 0):
        yield Limit("batch_axis is time_axis", _AGAIN)
    rank = graph.rank(input_name(node, 0))
    if rank is not None and rank < 2:
        yield Limit("its input has one dimension", "give it a batch dimension")


def _scatter(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    reduction = attribute_text(node, "reduction", "none")
    if reduction != "none":
        hint = "write it with Where or OneHot, or load libnvinfer_plugin and name the plugin in the graph"
        yield Limit(f"reduction {reduction!r} becomes the plugin ScatterElements", hint)
    data, indices, updates = (graph.shape(input_name(node, index)) for index in range(3))
    for dims, meaning in ((indices, "indices"), (updates, "updates")):
        if data is None or dims is None:
            continue
        if len(dims) != len(data):
            yield Limit(f"its {meaning} have {len(dims)} dimensions, the data {len(data)}", _AGAIN)
        elif any(one is not None and two is not None and one > two for one, two in zip(dims, data, strict=True)):
            yield Limit(f"its {meaning} are larger than the data", "scatter less at once")


def _slice(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    if graph.opset >= 10 and not 3 <= len(node.input) <= 5:
        yield Limit(f"{len(node.input)} inputs, not 3 to 5", _AGAIN)
    if len(node.input) > 4 and not node.input[3]:
        yield Limit("axes are left out before steps", "name the axes")


def _split(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    yield from all_outputs(graph, node)
    parts = attribute_int(node, "num_outputs", len(node.output))
    if graph.opset >= 18 and has_attribute(node, "num_outputs") and input_name(node, 1):
        yield Limit("it has both sizes and num_outputs", "remove num_outputs")
    elif graph.opset >= 18 and parts != len(node.output):
        yield Limit(f"num_outputs is {parts}, it has {len(node.output)}", _AGAIN)


def _triangle(graph: GraphView, node: NodeProto) -> Iterator[Limit]:
    rank = graph.rank(input_name(node, 0))
    if rank is not None and rank < 2:
        yield Limit("its input is no matrix", "reshape it to two dimensions")


TENSOR_LIMITS: dict[str, Limits] = {
    **dict.fromkeys(("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), _elementwise),
    **dict.fromkeys(("Max", "Min", "Mul", "Or", "Pow", "Sub", "Sum", "Xor"), _elementwise),
    **dict.fromkeys(("Cast", "CastLike"), _cast),
    "Clip": _clip,
    "Constant": _constant,
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
    "Einsum": _einsum,
    "Expand": _expand,
    "EyeLike": _eye,
    "Gelu": _gelu,
    "GridSample": _grid_sample,
    "If": _branches,
    "IsInf": _infinite,
    "Mod": _modulo,
    "NonMaxSuppression": _suppression,
    "OneHot": _one_hot,
    "Pad": _pad,
    **dict.fromkeys(("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"), _random),
    "ReduceLogSumExp": _log_sum_exp,
    "ReverseSequence": _reversed,
    **dict.fromkeys(("Scatter", "ScatterElements"), _scatter),
    "Slice": _slice,
    "Split": _split,
    "Trilu": _triangle,
}
