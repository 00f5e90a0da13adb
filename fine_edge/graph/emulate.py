"""What FP16 can hold, and its emulation on a CPU: an FP32 graph with explicit casts that round every result.

On x86, ONNX Runtime has only FP32 kernels for most operators. It runs an FP16 node as FP32 between two casts and then
removes the casts between neighbours, at every optimisation level (tried with 1.32: ``MatMul -> Relu -> MatMul`` whose
middle is 400000 comes out finite). So an FP16 file that overflows on a GPU passes on a CPU. ONNX Runtime keeps the
casts that a graph itself holds, so this module writes the rounding out as casts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fine_edge.graph.view import GraphView, label, tensor_values
from fine_edge.graph.walk import graphs_in, tensors_in

# Search for constants that FP16 cannot hold.

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


# Operators that move, select or compare values: their results are rounded when their inputs are.
# fmt: off
MOVES_ONLY = frozenset({
    "Abs", "Cast", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather",
    "GatherElements", "GatherND", "Identity", "Max", "MaxPool", "Min", "Neg", "Pad", "Relu", "Reshape",
    "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose",
    "Trilu", "Unsqueeze", "Where",
})
# fmt: on


def emulated(half: onnx.ModelProto) -> onnx.ModelProto:
    """Return an FP32 copy of an FP16 graph in which every result that was FP16 is rounded once to FP16.

    Sums inside an operator are FP32, as in tensor core kernels with an FP32 accumulator. Kernels that accumulate in
    FP16 lose more, and kernels that fuse several operators round less often.
    """
    view = GraphView(half)
    model = onnx.ModelProto()
    model.CopyFrom(half)
    for graph in graphs_in(model):
        nodes = [rounded for node in graph.node for rounded in _with_rounding(node, view)]
        del graph.node[:]
        graph.node.extend(nodes)
        # The declared types of intermediates no longer hold; ONNX Runtime infers them.
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in tensors_in(model):
        if tensor.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    return model


def _with_rounding(node: NodeProto, view: GraphView) -> list[NodeProto]:
    """Return a node, followed by the casts that round its FP16 results and widen them again."""
    halves = [name for name in node.output if name and view.dtype(name) == TensorProto.FLOAT16]
    narrows = node.op_type == "Cast" and bool(halves)
    if not halves or (node.op_type in MOVES_ONLY and not narrows):
        return [node]
    exact = NodeProto()
    exact.CopyFrom(node)
    if narrows:  # a cast to FP16 becomes one to FP32, and the casts behind it round
        attribute = next(a for a in exact.attribute if a.name == "to")
        attribute.i = TensorProto.FLOAT
    exact.output[:] = [f"{name}/exact" if name in halves else name for name in node.output]
    casts = [
        cast
        for name in halves
        for cast in (
            helper.make_node("Cast", [f"{name}/exact"], [f"{name}/half"], f"{name}/round", to=TensorProto.FLOAT16),
            helper.make_node("Cast", [f"{name}/half"], [name], f"{name}/widen", to=TensorProto.FLOAT),
        )
    ]
    return [exact, *casts]
