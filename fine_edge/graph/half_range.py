"""Search for constants that FP16 cannot hold."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from fine_edge.graph.view import GraphView, label, tensor_values

# The largest finite FP16 number (IEEE 754 binary16).
HALF_MAX = 65504.0


# The magnitude from which a constant is a mask or a sentinel, which 65504 replaces in FP16 without a difference.
# Attention masks use -1e9 or the lowest FP32 number, RT-DETR marks invalid anchors with the highest.
STANDS_FOR_INFINITY = 1e9


@dataclass(frozen=True)
class BeyondHalf:
    """A constant with finite values beyond FP16's range, and the first node that reads it."""

    tensor: str
    node: str
    largest: float
    sentinel: bool


def beyond_half(view: GraphView, keep_fp32: Collection[str] = ()) -> list[BeyondHalf]:
    """Return FP32 constants with a magnitude above 65504 that a node outside ``keep_fp32`` reads."""
    found: dict[str, BeyondHalf] = {}
    for name, tensor, node in _constants_read(view):
        if node.name in keep_fp32:
            continue
        magnitudes = _magnitudes(tensor)
        too_large = magnitudes[magnitudes > HALF_MAX]
        if too_large.size:
            sentinel = bool((too_large >= STANDS_FOR_INFINITY).all())
            found.setdefault(name, BeyondHalf(name, label(node), float(too_large.max()), sentinel))
    return list(found.values())


def _magnitudes(tensor: TensorProto) -> NDArray[np.float32]:
    """Return the finite magnitudes of an FP32 tensor as a flat array; an empty one when it cannot be read as FP32."""
    values = tensor_values(tensor) if tensor.data_type == TensorProto.FLOAT else None
    if values is None:
        return np.empty(0, dtype=np.float32)
    magnitudes = np.abs(values.astype(np.float32).ravel())
    return np.extract(np.isfinite(magnitudes), magnitudes)


def _constants_read(view: GraphView) -> Iterator[tuple[str, TensorProto, NodeProto]]:
    """Yield name and tensor of each constant with a node that reads it; tensors in attributes come first."""
    for node in view.nodes:
        if node.op_type != "Constant":
            owned = (attribute.t for attribute in node.attribute if attribute.HasField("t"))
            yield from ((f"{label(node)}.{tensor.name or 'value'}", tensor, node) for tensor in owned)
    for node in view.nodes:
        for name in node.input:
            tensor = view.constant_tensor(name)
            if tensor is not None:
                yield name, tensor, node
