"""Constants that FP16 cannot hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from fine_edge.graph.view import label, tensor_values
from fine_edge.graph.walk import graphs_in

HALF_MAX = 65504.0
"""Largest finite FP16 number (IEEE 754 binary16)."""

STANDS_FOR_INFINITY = 1e9
"""From here on a constant is a mask or a sentinel: the largest finite number does the same in FP16.

Attention masks use -1e9 or the lowest FP32 number, RT-DETR marks invalid anchors with the highest.
"""


@dataclass(frozen=True)
class BeyondHalf:
    """A constant with finite values beyond FP16's range, and the first node that reads it."""

    tensor: str
    node: str
    largest: float
    sentinel: bool


def beyond_half(model: onnx.ModelProto, keep_fp32: Collection[str] = ()) -> list[BeyondHalf]:
    """FP32 constants with a magnitude above 65504 that a node outside ``keep_fp32`` reads."""
    found: dict[str, BeyondHalf] = {}
    for name, tensor, node in _constants(model):
        magnitudes = _magnitudes(tensor)
        too_large = magnitudes[magnitudes > HALF_MAX]
        if too_large.size and node.name not in keep_fp32:
            sentinel = bool((too_large >= STANDS_FOR_INFINITY).all())
            found.setdefault(name, BeyondHalf(name, label(node), float(too_large.max()), sentinel))
    return list(found.values())


def _magnitudes(tensor: TensorProto) -> NDArray[np.float32]:
    """Absolute finite values of an FP32 tensor, flat; none when it has another type or cannot be read."""
    values = tensor_values(tensor) if tensor.data_type == TensorProto.FLOAT else None
    if values is None:
        return np.empty(0, dtype=np.float32)
    magnitudes = np.abs(values.astype(np.float32).ravel())
    return np.extract(np.isfinite(magnitudes), magnitudes)


def _constants(model: onnx.ModelProto) -> Iterator[tuple[str, TensorProto, NodeProto]]:
    """(name, tensor, node that reads it): initialisers and Constant nodes by reader, tensors in attributes by owner."""
    named: dict[str, TensorProto] = {}
    nodes = [node for graph in graphs_in(model) for node in graph.node]
    for graph in graphs_in(model):
        named |= {tensor.name: tensor for tensor in graph.initializer}
    for node in nodes:
        owned = [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        if node.op_type == "Constant":
            named |= dict(zip(node.output, owned, strict=False))
        else:
            yield from ((f"{label(node)}.{tensor.name or 'value'}", tensor, node) for tensor in owned)
    for node in nodes:
        yield from ((name, named[name], node) for name in node.input if name in named)
