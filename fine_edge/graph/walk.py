"""Traversal of a model: its graphs, those inside nodes and functions, all nodes and all constants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, NodeProto, SparseTensorProto, TensorProto


def graphs_in(model: onnx.ModelProto, *, functions: bool = False) -> Iterator[onnx.GraphProto]:
    """Yield the main graph and the graphs inside If, Loop and Scan; with ``functions``, those inside functions too."""
    pending = [model.graph]
    if functions:
        pending += [graph for function in model.functions for node in function.node for graph in subgraphs_of(node)]
    while pending:
        graph = pending.pop()
        yield graph
        pending.extend(inner for node in graph.node for inner in subgraphs_of(node))


def subgraphs_of(node: NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node holds as attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nodes_in(model: onnx.ModelProto) -> Iterator[NodeProto]:
    """Yield every node, first those of functions."""
    for function in model.functions:
        yield from function.node
    for graph in graphs_in(model, functions=True):
        yield from graph.node


@dataclass(frozen=True)
class Constant:
    """A constant of a model.

    Attributes:
        name: of the initialiser, of the tensor that a Constant node gives, or of the attribute that holds it.
        value: a dense or a sparse tensor.
        owner: the node whose attribute holds it; ``None`` for an initialiser.
    """

    name: str
    value: TensorProto | SparseTensorProto
    owner: NodeProto | None = None

    @property
    def tensor(self) -> TensorProto:
        """The dense tensor, or the values of the sparse one."""
        return self.value.values if isinstance(self.value, SparseTensorProto) else self.value


def constants_in(model: onnx.ModelProto) -> Iterator[Constant]:
    """Yield initialisers, then tensors in attributes, of subgraphs and functions too."""
    for graph in graphs_in(model, functions=True):
        yield from (Constant(tensor.name, tensor) for tensor in graph.initializer)
        yield from (Constant(sparse.values.name, sparse) for sparse in graph.sparse_initializer)
    for node in nodes_in(model):
        for attribute in node.attribute:
            name = constant_name(node, attribute)
            yield from (Constant(name, value, node) for value in _values_of(attribute))


def constant_name(node: NodeProto, attribute: AttributeProto) -> str:
    """Return what names an attribute's value: the output of a Constant node, or else the attribute."""
    return node.output[0] if node.op_type == "Constant" and node.output else attribute.name


def _values_of(attribute: AttributeProto) -> Iterator[TensorProto | SparseTensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    if attribute.HasField("sparse_tensor"):
        yield attribute.sparse_tensor
    yield from attribute.tensors
    yield from attribute.sparse_tensors


def tensors_in(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield the tensor of every constant, and the indices of sparse ones."""
    for constant in constants_in(model):
        yield constant.tensor
        if isinstance(constant.value, SparseTensorProto):
            yield constant.value.indices
