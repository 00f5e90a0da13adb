"""Refusal of graphs that would not end, or would fill all memory, in the program that runs or compiles them.

A small file can hold a Loop without an end, functions that call each other without end, or operators that make large
tensors of a few numbers. Runtimes compute the latter while they load a graph, before anything can stop them.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import onnx
from onnx import FunctionProto, NodeProto, SparseTensorProto, inliner

from fine_edge.graph.view import (
    LARGEST_TENSOR,
    GraphView,
    input_name,
    is_static,
    label,
    unreadable_equation,
    without_weights,
)
from fine_edge.graph.walk import constants_in, graphs_in, subgraphs_of

# The most iterations of a Loop, multiplied by those of the loops around it.
MOST_TRIPS = 2**16

# The most elements of one tensor: 4 GiB in FP32.
MOST_ELEMENTS = 2**30

# The most elements of all tensors that depend on no input and are computed at loading: 1 GiB in FP32.
MOST_FOLDED = 2**28

# The most nodes after expansion of functions; the largest language models have a tenth of it.
MOST_NODES = 200_000

# The most levels of graphs and functions inside each other.
DEEPEST = 64

# Operators that return a number they were given, or the smallest of several.
_PASSES = frozenset(("Cast", "Gather", "Identity", "Min", "Reshape", "Slice", "Squeeze", "Unsqueeze"))
_SIZES = frozenset(("Shape", "Size"))
# Operators whose result is as large as the numbers they are given.
_MAKES_SIZES = frozenset(("ConstantOfShape", "Expand", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"))


_Key = tuple[str, str, str]


def runaway(view: GraphView) -> str:
    """Return why a graph may not end or may not fit into memory; an empty text when it does both."""
    return _runaway(view, loops=True)


def too_large(view: GraphView) -> str:
    """Return why a graph may not fit into memory; an empty text when it does."""
    return _runaway(view, loops=False)


def _runaway(view: GraphView, *, loops: bool) -> str:
    if reason := _impossible(view.model):
        return reason
    model = without_weights(view.model)
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except (onnx.checker.ValidationError, ValueError, RuntimeError, TypeError) as error:
            return f"its functions cannot be inlined ({str(error).splitlines()[0][:200]})"
    _forget_declared(model)
    expanded = GraphView(model)
    return _too_large(expanded) or (endless(expanded) if loops else "")


def _forget_declared(model: onnx.ModelProto) -> None:
    """Remove the shapes that a graph declares for its own results: they may be false, so they are inferred anew."""
    for graph in graphs_in(model, functions=True):
        del graph.value_info[:]
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")


def endless(view: GraphView) -> str:
    """Return which Loop has no bound; an empty text when all have one."""
    node = unbounded_loop(view, view.model.graph.node)
    return "" if node is None else f"nothing bounds the iterations of {label(node)} (Loop) to {MOST_TRIPS}"


def unbounded_loop(view: GraphView, nodes: Iterable[NodeProto], around: int = 1) -> NodeProto | None:
    """Return the first Loop that may exceed the limit, when loops around it already iterate ``around`` times."""
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
    """Return the largest value that a scalar can have, or ``None`` when the graph does not bound it.

    The size of a tensor counts as 1: memory bounds it.
    """
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
    """Return which constant, tensor or equation shape inference cannot process; an empty text when it can all."""
    node = unreadable_equation(model)
    if node is not None:
        return f"the equation of {label(node)} (Einsum) cannot be read"
    for constant in constants_in(model):
        sparse, dims = isinstance(constant.value, SparseTensorProto), constant.value.dims
        if sparse and (min(dims, default=0) < 0 or prod(dims) > MOST_FOLDED):
            return f"the sparse constant {constant.tensor.name!r} has {_shown(dims)} elements"
    for graph in graphs_in(model, functions=True):
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
    """Return which tensor, or that all constants together, would not fit; an empty text when all fit."""
    folded = {tensor.name for graph in graphs_in(view.model, functions=True) for tensor in graph.initializer}
    total = 0
    for node in view.nodes:
        shapes = [view.shape(name) for name in node.output if name]
        # An unknown dimension is counted as one.
        largest = max((prod(dim or 1 for dim in dims) for dims in shapes if dims is not None), default=0)
        if largest > MOST_ELEMENTS:
            return f"{label(node)} ({node.op_type}) makes a tensor of {largest} elements"
        if node.op_type == "Constant":  # no larger than the file
            folded.update(node.output)
        elif all(name in folded for name in node.input if name):
            if node.op_type in _MAKES_SIZES and not all(is_static(dims) for dims in shapes):
                return f"the size of the output of {label(node)} ({node.op_type}) is unknown before it is computed"
            folded.update(node.output)
            total += sum(prod(dim or 1 for dim in dims) for dims in shapes if dims is not None)
    if total > MOST_FOLDED:
        return f"{total} elements depend on no input and would be computed at loading; the limit is {MOST_FOLDED}"
    return ""


def expansion(model: onnx.ModelProto) -> str:
    """Return why the functions of a model cannot be inlined; an empty text when they can.

    A small file can expand without end: its functions are recursive, too many, or nested too deeply.
    """
    functions: dict[_Key, FunctionProto] = {}
    for function in model.functions:
        key = _key(function.domain, function.name, function.overload)
        if key in functions:
            return f"the function {function.name!r} is defined twice"
        functions[key] = function
    try:
        counter = _Counter(functions)
        nodes = counter.count(model.graph.node, 0)[0]
        for function in functions.values():  # whether called or not: runtimes process all of them
            counter.count(function.node, 1)
    except _TooDeepError:
        return f"functions that call themselves, or {DEEPEST} of them or of graphs inside each other"
    return f"its functions expand to more than {MOST_NODES} nodes" if nodes > MOST_NODES else ""


def _key(domain: str, name: str, overload: str) -> _Key:
    return ("" if domain == "ai.onnx" else domain, name, overload)


class _TooDeepError(Exception):
    """Signals functions that recurse, or that overflow the stack of the program that reads the model next."""


class _Counter:
    """A counter of nodes after expansion; it visits each function once."""

    def __init__(self, functions: dict[_Key, FunctionProto]) -> None:
        self._functions = functions
        self._counted: dict[_Key, tuple[int, int]] = {}

    def count(self, nodes: Iterable[NodeProto], depth: int) -> tuple[int, int]:
        """Return the number of nodes, and the number of levels below them."""
        if depth > DEEPEST:
            raise _TooDeepError
        total = levels = 0
        for node in nodes:
            total += 1
            inside = [self.count(graph.node, depth + 1) for graph in subgraphs_of(node)]
            key = _key(node.domain, node.op_type, node.overload)
            if key in self._functions:
                inside.append(self._function(key, depth + 1))
            total += sum(count for count, _ in inside)
            levels = max(levels, *(1 + below for _, below in inside), 0)
        if depth + levels > DEEPEST:
            raise _TooDeepError
        return total, levels

    def _function(self, key: _Key, depth: int) -> tuple[int, int]:
        if key not in self._counted:
            self._counted[key] = self.count(self._functions[key].node, depth)
        count, levels = self._counted[key]
        if depth + levels > DEEPEST:
            raise _TooDeepError
        return count, levels
