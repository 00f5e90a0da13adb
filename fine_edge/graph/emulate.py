"""Emulation of FP16 on a CPU: an FP32 graph with explicit casts that round every result.

On x86, ONNX Runtime has only FP32 kernels for most operators. It runs an FP16 node as FP32 between two casts and then
removes the casts between neighbours, at every optimisation level (tried with 1.32: ``MatMul -> Relu -> MatMul`` whose
middle is 400000 comes out finite). So an FP16 file that overflows on a GPU passes on a CPU. ONNX Runtime keeps the
casts that a graph itself holds, so this module writes the rounding out as casts.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fine_edge.graph.view import GraphView
from fine_edge.graph.walk import graphs_in, tensors_in

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
