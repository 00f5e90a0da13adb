"""Rules on the values of weights, and on how much memory their folding takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from fine_edge.graph.runaway import too_large
from fine_edge.graph.view import Finding, GraphView, label, tensor_values
from fine_edge.graph.walk import constant_name, constants_in, nodes_in
from fine_edge.graph.weight_files import external_values

# An infinity in a constant of these operators is no mask or limit: it makes every result infinite or NaN.
_WEIGHTED = frozenset(
    (
        *("BatchNormalization", "Conv", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "GroupNormalization"),
        *("InstanceNormalization", "LSTM", "LayerNormalization", "MatMul", "Mul", "PRelu", "RNN", "RMSNormalization"),
    )
)
_HANDS_ON = frozenset(
    ("Cast", "Concat", "DequantizeLinear", "Flatten", "Identity", "Neg", "Reshape", "Slice", "Squeeze", "Transpose")
)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_AGAIN = "export from a checkpoint with finite weights: the training diverged, or the file was damaged"
_BLOCK = 1 << 22


def finite_weights(graph: GraphView) -> list[Finding]:
    """FE18: no constant holds NaN, and no weight holds an infinity.

    Source: IEEE 754: one NaN makes every detection NaN, and no score of NaN is above a threshold, so nothing is found
    and no error is raised. Infinities in masks (Add, Where) and limits (Clip, Pad) are legitimate.
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
    """FE19: no tensor is larger than any device's memory, and folded constants take at most a GiB.

    Source: ONNX Runtime and TensorRT fold constants while they load a graph, whatever their size: a few bytes of
    ConstantOfShape, Expand or Tile fill all memory before anything can be stopped.
    Hint: export with fixed shapes.
    """
    reason = too_large(graph)
    return [Finding("FE19", "error", "graph", reason, "export with fixed shapes")] if reason else []


def _finding(node: str, message: str) -> Finding:
    return Finding("FE18", "error", node, message, _AGAIN)


def _non_finite(graph: GraphView) -> Iterator[tuple[str, str, int, int]]:
    """Yield constants that are not finite: name, owner, number of NaN, number of infinities."""
    for constant in constants_in(graph.model):
        if constant.tensor.data_type in _FLOATS:
            nan, inf = _count(_values(constant.tensor, graph.path))
            if nan or inf:
                yield constant.name, label(constant.owner) if constant.owner is not None else "graph", nan, inf
    # Numbers in attributes are no tensors. Infinite ones are limits, except in Constant nodes.
    for node in nodes_in(graph.model):
        for attribute in node.attribute:
            nan, inf = _count(np.asarray([attribute.f, *attribute.floats], np.float32))
            if nan or (inf and node.op_type == "Constant"):
                yield constant_name(node, attribute), label(node), nan, inf


def _values(tensor: TensorProto, path: Path | None) -> NDArray[np.generic] | None:
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor_values(tensor)
    return external_values(tensor, path) if path else None


def _count(values: NDArray[np.generic] | None) -> tuple[int, int]:
    """Return the number of NaN and of infinities in an array; blocks keep the temporary arrays small."""
    nan = inf = 0
    flat = np.empty(0) if values is None else values.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        if not np.isfinite(block).all():
            nan += int(np.isnan(block).sum())
            inf += int(np.isinf(block).sum())
    return nan, inf


def _weights(graph: GraphView, names: set[str]) -> Iterator[tuple[NodeProto, str]]:
    """Yield the nodes that compute with one of these constants, directly or after moves and casts."""
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
