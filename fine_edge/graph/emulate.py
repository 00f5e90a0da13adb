"""FP16 arithmetic that ONNX Runtime really rounds on a CPU.

On x86, ONNX Runtime has FP32 kernels for most operators alone. It runs an FP16 node as FP32 between two casts and then
removes the casts between neighbours, at every optimisation level (tried with 1.32: ``MatMul -> Relu -> MatMul`` whose
middle is 400000 comes out finite). So an FP16 file that would overflow on a GPU passes on a CPU. Casts that a graph
holds itself stay, so the rounding is written out here.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fine_edge.graph.view import GraphView
from fine_edge.graph.walk import graphs_in, tensors_in

# Operators that move, pick or compare values: what goes in rounded comes out rounded.
# fmt: off
MOVES_ONLY = frozenset({
    "Abs", "Cast", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten", "Gather",
    "GatherElements", "GatherND", "Identity", "Max", "MaxPool", "Min", "Neg", "Pad", "Relu", "Reshape",
    "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK", "Transpose",
    "Trilu", "Unsqueeze", "Where",
})
# fmt: on


def emulated(half: onnx.ModelProto) -> onnx.ModelProto:
    """The FP32 graph that computes what an FP16 graph stores: every FP16 result is rounded once, to FP16.

    Sums inside an operator are FP32, as in tensor core kernels with an FP32 accumulator; kernels that accumulate in
    FP16 lose more, and kernels that fuse several operators round less often. The argument is left as it was.
    """
    view = GraphView(half)
    model = onnx.ModelProto()
    model.CopyFrom(half)
    for graph in graphs_in(model):
        nodes = [written for node in graph.node for written in _rounded(node, view)]
        del graph.node[:]
        graph.node.extend(nodes)
        # Types of intermediates are inferred anew.
        del graph.value_info[:]
        for value in (*graph.input, *graph.output):
            if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in tensors_in(model):
        if tensor.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    return model


def _rounded(node: NodeProto, view: GraphView) -> list[NodeProto]:
    """A node and the casts that round what it computes to FP16 and back."""
    halves = [name for name in node.output if name and view.dtype(name) == TensorProto.FLOAT16]
    narrows = node.op_type == "Cast" and bool(halves)
    if not halves or (node.op_type in MOVES_ONLY and not narrows):
        return [node]
    written = NodeProto()
    written.CopyFrom(node)
    if narrows:  # the cast itself rounds, what it reads is FP32 or an integer
        attribute = next(a for a in written.attribute if a.name == "to")
        attribute.i = TensorProto.FLOAT
    written.output[:] = [f"{name}/exact" if name in halves else name for name in node.output]
    casts = [
        cast
        for name in halves
        for cast in (
            helper.make_node("Cast", [f"{name}/exact"], [f"{name}/half"], f"{name}/round", to=TensorProto.FLOAT16),
            helper.make_node("Cast", [f"{name}/half"], [name], f"{name}/widen", to=TensorProto.FLOAT),
        )
    ]
    return [written, *casts]
