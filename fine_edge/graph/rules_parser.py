"""Rules of TensorRT 10.7's ONNX parser: which operators, types, attributes and ranks it imports."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto

from fine_edge.graph.limits_layers import LAYER_LIMITS
from fine_edge.graph.limits_tensors import TENSOR_LIMITS
from fine_edge.graph.parser_operators import (
    DEEPEST_NESTING,
    FLOATING,
    MOST_DIMENSIONS,
    OPERATORS,
    REFUSED,
    Operator,
    Types,
)
from fine_edge.graph.rules_operators import PLUGIN_DOMAINS, SPECIAL
from fine_edge.graph.view import Finding, GraphView, input_name, label, type_name
from fine_edge.graph.walk import subgraphs_of

_LIMITS = LAYER_LIMITS | TENSOR_LIMITS
_OTHER_WAY = "write it with operators that the parser knows, or compute it on the host"


def known_operators(graph: GraphView) -> list[Finding]:
    """FE20: ONNX operators that the parser imports.

    Source: onnx-tensorrt 10.6, ``docs/operators.md``: it refuses some by name, and searches a plugin for the others.
    Hint: write it with other operators, or compute it on the host.
    """
    found = []
    for node in graph.nodes:
        name = node.op_type
        if node.domain not in ("", "ai.onnx") or name in OPERATORS or name in SPECIAL or name.endswith("_TRT"):
            continue
        if name in REFUSED:
            message = f"{name}: TensorRT refuses it"
        else:
            message = f"{name}: the parser does not know it and searches a plugin of this name"
        found.append(Finding("FE20", "error", label(node), message, _OTHER_WAY))
    return found


def operator_types(graph: GraphView) -> list[Finding]:
    """FE21: element types that the parser takes for an operator, and one type where two inputs meet.

    Source: onnx-tensorrt 10.6, the importers; a strongly typed network refuses what is not of one type.
    Hint: cast before the node.
    """
    found = []
    for node in graph.nodes:
        operator = OPERATORS.get(node.op_type)
        if operator is None or node.domain in PLUGIN_DOMAINS:
            continue
        if problem := _not_taken(graph, node, operator) or _not_alike(graph, node, operator):
            message, hint = problem
            found.append(Finding("FE21", "error", label(node), f"{node.op_type} {message}", hint))
    return found


def _not_taken(graph: GraphView, node: NodeProto, operator: Operator) -> tuple[str, str] | None:
    for index, types in enumerate(operator.takes):
        dtype = graph.parsed_type(input_name(node, index))
        if dtype and dtype not in types:
            return f"of {type_name(dtype)} (input {index}): TensorRT takes {_listed(types)}", "cast it before the node"
    return None


def _not_alike(graph: GraphView, node: NodeProto, operator: Operator) -> tuple[str, str] | None:
    types = {}
    for index in operator.alike:
        if index >= len(node.input):
            break
        if dtype := graph.parsed_type(node.input[index]):
            types[dtype] = index
    if len(types) < 2:
        return None
    listed = " and ".join(type_name(dtype) for dtype in types)
    return f"of {listed}: a strongly typed network takes one type", "cast all inputs of the node to one type"


def _listed(types: Types) -> str:
    """Return the names of types, those that networks compute with first."""
    return ", ".join(type_name(dtype) for dtype in sorted(types, key=lambda dtype: (dtype not in FLOATING, dtype)))


def operator_limits(graph: GraphView) -> list[Finding]:
    """FE22: attributes, shapes and outputs that the parser imports.

    Source: onnx-tensorrt 10.6, ``docs/operators.md``, the importers and ``onnxOpCheckers.cpp``.
    Hint: one for each limit.
    """
    found = []
    for node in graph.nodes:
        if node.op_type not in _LIMITS or node.domain in PLUGIN_DOMAINS:
            continue
        for limit in _LIMITS[node.op_type](graph, node):
            message = f"{node.op_type}: {limit.message}"
            found.append(Finding("FE22", limit.severity, label(node), message, limit.hint))
    for sparse in graph.model.graph.sparse_initializer:
        message = f"the parser does not read the sparse constant {sparse.values.name!r}"
        found.append(Finding("FE22", "error", "graph", message, "store it as a dense tensor"))
    return found


def dimensions(graph: GraphView) -> list[Finding]:
    """FE23: at most 8 dimensions a tensor, and 24 subgraphs inside each other.

    Source: TensorRT's ``Dims::MAX_DIMS``; onnx-tensorrt 10.6, ``ModelImporter.cpp``.
    Hint: merge dimensions, or export without nested control flow.
    """
    found = []
    for name, rank in graph.ranks().items():
        if rank > MOST_DIMENSIONS:
            node = graph.producer(name)
            message = f"a tensor of {rank} dimensions, TensorRT has {MOST_DIMENSIONS}"
            found.append(Finding("FE23", "error", label(node) if node else "graph", message, "merge dimensions"))
    if _depth(graph.model.graph.node) > DEEPEST_NESTING:
        message = f"more than {DEEPEST_NESTING} subgraphs inside each other"
        found.append(Finding("FE23", "error", "graph", message, "export without nested control flow"))
    return found


def _depth(nodes: Iterable[NodeProto]) -> int:
    """Return how many subgraphs stand inside each other."""
    deepest, pending = 0, [(nodes, 0)]
    while pending:
        inner, depth = pending.pop()
        deepest = max(deepest, depth)
        pending += [(graph.node, depth + 1) for node in inner for graph in subgraphs_of(node)]
    return deepest
