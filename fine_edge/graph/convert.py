"""Conversion of FP32 graphs to strongly typed FP16, the form that TensorRT 10.7, its successors and RTX all take.

ONNX Runtime's ``convert_float_to_float16`` rounds the weights and places the casts. This module does what that function
leaves undone: it refuses unsuitable graphs, sorts the nodes and removes casts that cancel each other.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection

import onnx
from onnx import NodeProto, TensorProto, helper

from fine_edge.errors import ArtifactError
from fine_edge.graph.half_range import beyond_half
from fine_edge.graph.model_file import external_tensors
from fine_edge.graph.rules_model import valid_onnx
from fine_edge.graph.view import GraphView, attribute_int, input_name
from fine_edge.graph.walk import graphs_in, subgraphs_of

# TensorRT computes these operators in FP32 only, or FP16 loses too much in them: sums over a long axis, coordinates,
# suppression.
_FP32_OPERATORS = ("CumSum", "NonMaxSuppression", "RandomUniformLike", "Range", "RoiAlign")

# Scopes that compute boxes in logits, in [0, 1] and in pixels: FP16 is wrong by up to half a pixel at 640.  The
# compiler fuses these nodes with their neighbours, so FP32 costs no kernel and no memory here.
EXPORTER_SCOPES = (
    "/detector/refine/",
    "/detector/proposals/",
    "/detector/boxes/",
    "/postprocess/",
    "/preprocess/boxes/",
)

# Positions at which deformable convolutions read a map: FP16 moves them by a hundredth of a pixel and more.
_SAMPLING_SCOPE = "/sampling/"


def kept_by_exporter(model: onnx.ModelProto) -> list[str]:
    """Return the names of nodes that every FP16 export keeps in FP32."""
    names = (node.name for node in model.graph.node)
    return [name for name in names if name.startswith(EXPORTER_SCOPES) or _SAMPLING_SCOPE in name]


def to_fp16(graph: onnx.ModelProto | GraphView, *, keep_fp32: Collection[str] = ()) -> onnx.ModelProto:
    """Return a copy of a model in FP16; network inputs and outputs stay FP32.

    Masks (magnitudes from 1e9 up) become +-65504. Values that FP16 rounds to zero become its smallest number.

    Args:
        graph: an FP32 model with its weights loaded, or a view of one.
        keep_fp32: names of nodes that stay FP32, with casts around them.

    Raises:
        ArtifactError: when a name in ``keep_fp32`` is not in the graph, the model is FP16 already, a constant
            is beyond FP16's range, or the result would not be a valid strongly typed graph.
    """
    view = graph if isinstance(graph, GraphView) else GraphView(graph)
    _refuse(view, keep_fp32)
    copy = onnx.ModelProto()
    copy.CopyFrom(view.model)
    for one in graphs_in(copy):
        _lift_constants(one)
        _compute_constant_outputs(one)
    converted = _convert(copy, keep_fp32)
    sort_nodes(converted.graph)
    _remove_cancelling_casts(converted)
    _drop_stale_values(converted.graph)
    try:
        onnx.checker.check_model(converted, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ArtifactError(
            f"does not convert to FP16 ({error})", hint="python -m fine_edge graph check FILE"
        ) from error
    return converted


def _refuse(graph: GraphView, keep_fp32: Collection[str]) -> None:
    for finding in valid_onnx(graph):
        raise ArtifactError(finding.message, hint=finding.hint)
    unknown = sorted(set(keep_fp32) - {node.name for node in graph.nodes})
    if unknown or "" in keep_fp32:
        raise ArtifactError(
            f"no node named {unknown[0] if unknown else ''!r} in the graph",
            hint="check the keep-list: it holds one node name of this graph a line",
        )
    if TensorProto.FLOAT16 in graph.dtypes().values():
        raise ArtifactError("the graph holds FP16 tensors already", hint="convert the FP32 export")
    if external_tensors(graph.model):
        raise ArtifactError(
            "the weights are not loaded", hint="read the file with fine_edge.graph.model_file.read_model"
        )
    for entry in beyond_half(graph, keep_fp32):
        if not entry.sentinel:
            raise ArtifactError(
                f"constant {entry.tensor!r} holds {entry.largest:.6g}, beyond FP16's 65504",
                where=entry.node,
                hint=f"keep node {entry.node!r} in FP32: add it to the keep-list",
            )


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes with FP32 values into initialisers, which stay FP32 where a kept node reads them."""
    for node in [node for node in graph.node if node.op_type == "Constant" and len(node.attribute) == 1]:
        attribute = node.attribute[0]
        if attribute.name in ("value_float", "value_floats"):
            dims = [] if attribute.name == "value_float" else [len(attribute.floats)]
            values = [attribute.f] if attribute.name == "value_float" else attribute.floats
            graph.initializer.append(helper.make_tensor(node.output[0], TensorProto.FLOAT, dims, values))
        elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
            tensor = graph.initializer.add()
            tensor.CopyFrom(attribute.t)
            tensor.name = node.output[0]
        else:
            continue
        graph.node.remove(node)


def _compute_constant_outputs(graph: onnx.GraphProto) -> None:
    """Let a node make each output that is a constant: the converter casts outputs, and casts what a node makes."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for name in [value.name for value in graph.output if value.name in tensors]:
        tensors[name].name = f"{name}_constant"
        graph.node.insert(0, helper.make_node("Identity", [tensors[name].name], [name], name=f"{name}_constant"))


def _convert(model: onnx.ModelProto, keep_fp32: Collection[str]) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    try:
        converted: onnx.ModelProto = convert_float_to_float16(
            model,
            keep_io_types=True,
            op_block_list=list(_FP32_OPERATORS),
            node_block_list=sorted(keep_fp32),
        )
    except (onnx.shape_inference.InferenceError, AssertionError, ValueError, RuntimeError, AttributeError) as error:
        raise ArtifactError(
            f"does not convert to FP16 ({error})", hint="python -m fine_edge graph check FILE"
        ) from error
    return converted


def _reads(node: NodeProto) -> set[str]:
    """Return the names that a node and the nodes of its subgraphs read."""
    return set(node.input).union(*(_reads(inner) for graph in subgraphs_of(node) for inner in graph.node))


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Order nodes so that producers come first and all else stays in place: the converter appends its casts."""
    nodes = list(graph.node)
    producer = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waits = [{producer[name] for name in _reads(node) if name in producer} - {i} for i, node in enumerate(nodes)]
    followers: list[list[int]] = [[] for _ in nodes]
    for index, needed in enumerate(waits):
        for before in needed:
            followers[before].append(index)
    ready = [index for index, needed in enumerate(waits) if not needed]
    order = []
    while ready:
        # Of all nodes that can come next the one that stood first, so that the order stays where it may.
        index = heapq.heappop(ready)
        order.append(index)
        for follower in followers[index]:
            waits[follower].discard(index)
            if not waits[follower]:
                heapq.heappush(ready, follower)
    if len(order) != len(nodes):
        raise ArtifactError("the graph has a cycle: a node needs its own result", hint="export the model again")
    del graph.node[:]
    graph.node.extend(nodes[index] for index in order)


def _remove_cancelling_casts(model: onnx.ModelProto) -> None:
    """Remove casts to the type that a tensor has already, and pairs of casts that lead back to that type."""
    view = GraphView(model)
    outputs = {value.name for value in model.graph.output}
    origin: dict[str, str] = {}  # output of a superfluous cast -> the tensor to read instead
    for node in model.graph.node:
        if node.op_type != "Cast":
            continue
        target = attribute_int(node, "to", 0)
        for source in _sources(view, node):
            if view.dtype(source) == target:
                origin[node.output[0]] = origin.get(source, source)
    for graph in graphs_in(model):
        for node in graph.node:
            node.input[:] = [origin.get(name, name) for name in node.input]
    for node in list(model.graph.node):
        if node.op_type == "Cast" and node.output[0] in origin and node.output[0] in outputs:
            # An output must keep its name, so it reads the original through Identity, which costs nothing.
            node.op_type, node.input[0] = "Identity", origin[node.output[0]]
            del node.attribute[:]
    _remove_unread_casts(model)


def _sources(view: GraphView, cast: NodeProto) -> list[str]:
    """Return what a cast reads, followed by what the cast before it reads if both casts are between float types."""
    source = input_name(cast, 0)
    before = view.producer(source)
    halves = (TensorProto.FLOAT, TensorProto.FLOAT16)
    if before is None or before.op_type != "Cast" or view.dtype(input_name(before, 0)) not in halves:
        return [source]
    return [source, input_name(before, 0)] if view.dtype(source) in halves else [source]


def _remove_unread_casts(model: onnx.ModelProto) -> None:
    outputs = [value.name for graph in graphs_in(model) for value in graph.output]
    readers = Counter(name for graph in graphs_in(model) for node in graph.node for name in node.input)
    readers.update(outputs)
    # Backwards, so that a cast whose only reader was removed is removed too.
    for node in reversed(list(model.graph.node)):
        if node.op_type == "Cast" and not readers[node.output[0]]:
            readers[node.input[0]] -= 1
            model.graph.node.remove(node)


def _drop_stale_values(graph: onnx.GraphProto) -> None:
    """Remove the declared types of tensors that no longer exist."""
    alive = {name for node in graph.node for name in node.output}
    kept = [value for value in graph.value_info if value.name in alive]
    del graph.value_info[:]
    graph.value_info.extend(kept)
