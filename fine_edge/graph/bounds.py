"""How large a model becomes once its functions are put in place of their calls: small files can expand without end."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import FunctionProto, NodeProto

from fine_edge.graph.walk import subgraphs_of

MOST_NODES = 200_000
"""Nodes after expansion; the largest language models have a tenth of it."""

DEEPEST = 64
"""Graphs and functions inside each other."""

_Key = tuple[str, str, str]


def expansion(model: onnx.ModelProto) -> str:
    """Return why a model cannot be expanded, or nothing: recursive, too many or too deeply nested functions."""
    functions: dict[_Key, FunctionProto] = {}
    for function in model.functions:
        key = _key(function.domain, function.name, function.overload)
        if key in functions:
            return f"the function {function.name!r} is defined twice"
        functions[key] = function
    try:
        counter = _Counter(functions)
        nodes = counter.count(model.graph.node, 0)[0]
        for function in functions.values():  # called or not: readers look into all of them
            counter.count(function.node, 1)
    except _TooDeepError:
        return f"functions that call themselves, or {DEEPEST} of them or of graphs inside each other"
    return f"its functions expand to more than {MOST_NODES} nodes" if nodes > MOST_NODES else ""


def _key(domain: str, name: str, overload: str) -> _Key:
    return ("" if domain == "ai.onnx" else domain, name, overload)


class _TooDeepError(Exception):
    """Going on would not end, or only by overflowing the stack of whoever reads the model next."""


class _Counter:
    """Counts nodes, each function once."""

    def __init__(self, functions: dict[_Key, FunctionProto]) -> None:
        self._functions = functions
        self._counted: dict[_Key, tuple[int, int]] = {}

    def count(self, nodes: Iterable[NodeProto], depth: int) -> tuple[int, int]:
        """Number of nodes and the levels below these."""
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
