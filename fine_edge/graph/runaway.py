"""Graphs that would not end, or would fill all memory, in whatever runs or compiles them.

Small files can hold both: a Loop without an end, and operators that make large tensors of a few numbers, which runtimes
work out before anything can be stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import onnx
from onnx import NodeProto, inliner

from fine_edge.graph.view import LARGEST_TENSOR, GraphView, input_name, is_static, label, without_weights
from fine_edge.graph.walk import all_graphs, sparse_in, subgraphs_of

MOST_TRIPS = 2**16
"""Iterations of a Loop, those of the loops around it included."""

MOST_ELEMENTS = 2**30
"""Of one tensor: 4 GiB in FP32."""

MOST_FOLDED = 2**28
"""Elements of all tensors that depend on no input and are worked out when a graph is loaded: 1 GiB in FP32."""

# What hands on a number that it was given, or the smallest of several.
_PASSES = frozenset(("Cast", "Gather", "Identity", "Min", "Reshape", "Slice", "Squeeze", "Unsqueeze"))
_SIZES = frozenset(("Shape", "Size"))
# What makes a tensor as large as the numbers that it is given.
_MAKES_SIZES = frozenset(("ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"))


def runaway(view: GraphView) -> str:
    """Return why a graph need not end or fit into memory, or nothing."""
    return _runaway(view, loops=True)


def too_large(view: GraphView) -> str:
    """Return why a graph need not fit into memory, or nothing."""
    return _runaway(view, loops=False)


def _runaway(view: GraphView, *, loops: bool) -> str:
    if reason := _impossible(view.model):
        return reason
    model = without_weights(view.model)
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except (onnx.checker.ValidationError, ValueError, RuntimeError, TypeError) as error:
            return f"its functions cannot be put in place of their calls ({str(error).splitlines()[0][:200]})"
    _forget_declared(model)
    expanded = GraphView(model)
    return _too_large(expanded) or (endless(expanded) if loops else "")


def _forget_declared(model: onnx.ModelProto) -> None:
    """Drop what a graph says of the shapes of its own results, which need not be so."""
    for graph in all_graphs(model):
        del graph.value_info[:]
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")


def endless(view: GraphView) -> str:
    """Return which Loop nothing bounds, or nothing."""
    node = unbounded_loop(view, view.model.graph.node)
    return "" if node is None else f"nothing bounds the iterations of {label(node)} (Loop) to {MOST_TRIPS}"


def unbounded_loop(view: GraphView, nodes: Iterable[NodeProto], around: int = 1) -> NodeProto | None:
    """Return the first Loop that may go on beyond the limit, inside ``around`` iterations of others."""
    for node in nodes:
        trips = around
        if node.op_type == "Loop":
            bound = _bound(view, input_name(node, 0))
            if bound is None or bound * around > MOST_TRIPS:
                return node
            trips *= bound
        for graph in subgraphs_of(node):
            if found := unbounded_loop(view, graph.node, trips):
                return found
    return None


def _bound(view: GraphView, name: str) -> int | None:
    """The largest value that a number can have; 1 for the size of some tensor, which memory bounds; else ``None``."""
    pending, seen = [name], set()
    while pending:
        current = pending.pop()
        if not current or current in seen:
            continue
        seen.add(current)
        value = view.constant(current)
        if value is not None and value.size == 1 and value.dtype.kind in "iu":
            return max(1, int(value.ravel()[0]))
        node = view.producer(current)
        if node is not None and node.op_type in _SIZES:
            return 1
        if node is not None and node.op_type in _PASSES:
            pending.extend(node.input if node.op_type == "Min" else node.input[:1])
    return None


def _impossible(model: onnx.ModelProto) -> str:
    """A constant with dimensions that no tensor has, which shape inference does not survive."""
    for sparse in sparse_in(model):
        if min(sparse.dims, default=0) < 0 or prod(sparse.dims) > MOST_FOLDED:
            return f"the sparse constant {sparse.values.name!r} has {_shown(sparse.dims)} elements"
    for graph in all_graphs(model):
        for tensor in graph.initializer:
            if min(tensor.dims, default=0) < 0 or prod(tensor.dims) > LARGEST_TENSOR:
                return f"the constant {tensor.name!r} has {_shown(tensor.dims)} elements"
        for value in (*graph.input, *graph.output, *graph.value_info):
            dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            if prod(max(dim, 1) for dim in dims) > LARGEST_TENSOR:
                return f"the tensor {value.name!r} has {_shown(dims)} elements"
    return ""


def _shown(dims: Iterable[int]) -> str:
    return " x ".join(str(dim) for dim in dims)


def _too_large(view: GraphView) -> str:
    """The first tensor, or all constants together, that would not fit."""
    folded = {tensor.name for graph in all_graphs(view.model) for tensor in graph.initializer}
    total = 0
    for node in view.nodes:
        shapes = [view.shape(name) for name in node.output if name]
        # An unknown dimension is counted as one.
        largest = max((prod(dim or 1 for dim in dims) for dims in shapes if dims is not None), default=0)
        if largest > MOST_ELEMENTS:
            return f"{label(node)} ({node.op_type}) makes a tensor of {largest} elements"
        if node.op_type == "Constant":  # of the file's own size
            folded.update(node.output)
        elif all(name in folded for name in node.input if name):
            if node.op_type in _MAKES_SIZES and not all(is_static(dims) for dims in shapes):
                return f"the size of what {label(node)} ({node.op_type}) makes cannot be told before it is made"
            folded.update(node.output)
            total += sum(prod(dim or 1 for dim in dims) for dims in shapes if dims is not None)
    if total > MOST_FOLDED:
        return f"{total} elements depend on no input and would be worked out at loading, at most {MOST_FOLDED} may"
    return ""
