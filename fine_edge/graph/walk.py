"""Going through all of a model: its graphs, those inside nodes and functions, and every constant."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import NodeProto, SparseTensorProto, TensorProto


def graphs_in(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and, depth first, the graphs inside If, Loop and Scan."""
    yield from _nested([model.graph])


def _nested(pending: list[onnx.GraphProto]) -> Iterator[onnx.GraphProto]:
    while pending:
        graph = pending.pop()
        yield graph
        pending.extend(inner for node in graph.node for inner in subgraphs_of(node))


def subgraphs_of(node: NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds as attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """As :func:`graphs_in`, and the graphs inside nodes of functions."""
    inside = [graph for function in model.functions for node in function.node for graph in subgraphs_of(node)]
    yield from _nested([model.graph, *inside])


def all_nodes(model: onnx.ModelProto) -> Iterator[NodeProto]:
    """Every node, of functions too."""
    for function in model.functions:
        yield from function.node
    for graph in all_graphs(model):
        yield from graph.node


def sparse_in(model: onnx.ModelProto) -> Iterator[SparseTensorProto]:
    """Every sparse constant."""
    for graph in all_graphs(model):
        yield from graph.sparse_initializer
    for node in all_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor"):
                yield attribute.sparse_tensor
            yield from attribute.sparse_tensors


def tensors_in(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every constant: initialisers, sparse ones, and tensors in attributes, subgraphs and functions."""
    for graph in all_graphs(model):
        yield from graph.initializer
    for node in all_nodes(model):
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
    for sparse in sparse_in(model):
        yield sparse.values
        yield sparse.indices
