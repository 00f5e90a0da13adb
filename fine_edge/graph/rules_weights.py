"""Rules on the values of weights, and on how much is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto

from fine_edge.graph.runaway import too_large
from fine_edge.graph.view import Finding, GraphView, label, tensor_values
from fine_edge.graph.walk import all_graphs, all_nodes
from fine_edge.graph.weight_files import external_values

# Operators in whose constants an infinity is no mask or limit: it makes every result infinite or NaN.
_WEIGHTED = frozenset(
    (
        *("BatchNormalization", "Conv", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "GroupNormalization"),
        *("InstanceNormalization", "LSTM", "LayerNormalization", "MatMul", "Mul", "PRelu", "RNN", "RMSNormalization"),
    )
)
_HANDS_ON = frozenset(
    ("Cast", "Concat", "DequantizeLinear", "Flatten", "Identity", "Neg", "Reshape", "Slice", "Squeeze", "Transpose")
)
_HALVES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_AGAIN = "export from a checkpoint with finite weights: the training diverged, or the file was damaged"
_BLOCK = 1 << 22


def finite_weights(graph: GraphView) -> list[Finding]:
    """FE18: no constant holds NaN, and no weight holds an infinity.

    Source: IEEE 754: one NaN makes every detection NaN, and no score of NaN is above a threshold, so that nothing is
    found and nothing complains. Infinities in masks (Add, Where) and limits (Clip, Pad) are legitimate.
    Hint: export from a checkpoint with finite weights.
    """
    found, infinite = [], set()
    for name, owner, nan, inf in _non_finite(graph):
        if nan:
            found.append(_finding(owner, f"constant {name!r} holds NaN in {nan} places"))
        elif inf:
            infinite.add(name)
    if infinite:
        found += [
            _finding(label(node), f"weight {name!r} of {node.op_type} holds infinities")
            for node, name in _weights(graph, infinite)
        ]
    return found


def fits_memory(graph: GraphView) -> list[Finding]:
    """FE19: no tensor is larger than any device's memory, and constants are not worked out to more than a GiB.

    Source: ONNX Runtime and TensorRT fold constants while they load a graph, whatever their size: a few bytes of
    ConstantOfShape, Expand or Tile fill all memory before anything can be stopped.
    Hint: export with fixed shapes.
    """
    reason = too_large(graph)
    return [Finding("FE19", "error", "graph", reason, "export with fixed shapes")] if reason else []


def _finding(node: str, message: str) -> Finding:
    return Finding("FE18", "error", node, message, _AGAIN)


def _non_finite(graph: GraphView) -> Iterator[tuple[str, str, int, int]]:
    """Constants that are not finite: name, node that owns it, how many NaN, how many infinities."""
    for tensor, name, owner in _constants(graph):
        if tensor.data_type in _HALVES:
            nan, inf = _count(_values(tensor, graph.path))
            if nan or inf:
                yield name, owner, nan, inf
    for node in all_nodes(graph.model):
        for attribute in node.attribute:
            nan, inf = _count(np.asarray([attribute.f, *attribute.floats], np.float32))
            if nan or (inf and node.op_type == "Constant"):
                name = node.output[0] if node.op_type == "Constant" and node.output else attribute.name
                yield name, label(node), nan, inf


def _constants(graph: GraphView) -> Iterator[tuple[TensorProto, str, str]]:
    """Every constant, its name, and the node it belongs to."""
    for inner in all_graphs(graph.model):
        yield from ((tensor, tensor.name, "graph") for tensor in inner.initializer)
        yield from ((sparse.values, sparse.values.name, "graph") for sparse in inner.sparse_initializer)
    for node in all_nodes(graph.model):
        for attribute in node.attribute:
            name = node.output[0] if node.op_type == "Constant" and node.output else attribute.name
            yield from ((tensor, name, label(node)) for tensor in _tensors_of(attribute))


def _tensors_of(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    if attribute.HasField("sparse_tensor"):
        yield attribute.sparse_tensor.values
    yield from attribute.tensors
    yield from (sparse.values for sparse in attribute.sparse_tensors)


def _values(tensor: TensorProto, path: Path | None) -> NDArray[np.generic] | None:
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor_values(tensor)
    return external_values(tensor, path) if path else None


def _count(values: NDArray[np.generic] | None) -> tuple[int, int]:
    """How many NaN and infinities an array holds, a block of it at a time."""
    nan = inf = 0
    flat = np.empty(0) if values is None else values.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        if not np.isfinite(block).all():
            nan += int(np.isnan(block).sum())
            inf += int(np.isinf(block).sum())
    return nan, inf


def _weights(graph: GraphView, names: set[str]) -> Iterator[tuple[NodeProto, str]]:
    """Nodes that compute with one of these constants, moved and cast or not."""
    pending = [(name, name) for name in sorted(names)]
    seen = set(names)
    while pending:
        name, origin = pending.pop()
        for node in graph.consumers(name):
            if node.op_type in _WEIGHTED:
                yield node, origin
            elif node.op_type in _HANDS_ON:
                pending += [(output, origin) for output in node.output if output not in seen]
                seen.update(node.output)
