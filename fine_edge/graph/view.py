"""A read-only view of a graph: its nodes, who computes and who reads each tensor, shapes, types and constants."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from fine_edge.graph.walk import graphs_in, nodes_in, tensors_in

Dims = tuple[int | None, ...]

# Shape inference reads the scales and sizes of Resize, which are far smaller.
_SMALL_BYTES = 1024

_TERM = r"[A-Za-z]*(\.\.\.[A-Za-z]*)?"
_EQUATION = re.compile(f"{_TERM}(,{_TERM})*(->{_TERM})?")

# The most entries of a shape or list of indices with which shapes are inferred.
LONGEST_LIST = 2**20

# The most elements of a tensor with which shapes are inferred.
LARGEST_TENSOR = 2**40


class GraphView:
    """A view of a model that may be malformed: a look-up returns ``None`` for what is unknown and raises nothing.

    Attributes:
        model: the model as given.
        nodes: the nodes of the main graph, then of graphs inside If, Loop and Scan.
        opset: the version of the default ONNX domain, 0 when none is imported.
        path: the file, beside which weights may lie; ``None`` for a model in memory.
    """

    def __init__(self, model: onnx.ModelProto, path: Path | None = None) -> None:
        self.model = model
        self.path = path
        self.opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
        graphs = list(graphs_in(model))
        self.nodes: tuple[NodeProto, ...] = tuple(node for graph in graphs for node in graph.node)
        self._initializers: dict[str, TensorProto] = {
            tensor.name: tensor for graph in graphs for tensor in graph.initializer
        }
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)
        self._values = {value.name: value for value in _inferred_values(model)}
        # Asked of every node in turn, each of which would be followed back to the inputs again.
        self._constant: dict[str, bool] = {}

    def producer(self, name: str) -> NodeProto | None:
        """Return the node that computes a tensor; ``None`` for inputs, initialisers and unknown names."""
        return self._producers.get(name)

    def consumers(self, name: str) -> list[NodeProto]:
        """Return the nodes that read a tensor."""
        return self._consumers.get(name, [])

    def shape(self, name: str) -> Dims | None:
        """Return the inferred dimensions, ``None`` for an unknown one; ``None`` when the rank is unknown."""
        if name in self._initializers:
            return tuple(self._initializers[name].dims)
        value = self._values.get(name)
        if value is None or not value.type.tensor_type.HasField("shape"):
            return None
        return value_dims(value)

    def dtype(self, name: str) -> int:
        """Return the element type as a ``TensorProto.DataType``, 0 when it is unknown."""
        if name in self._initializers:
            return int(self._initializers[name].data_type)
        value = self._values.get(name)
        return int(value.type.tensor_type.elem_type) if value is not None else 0

    def dtypes(self) -> dict[str, int]:
        """Return the element type of every tensor whose type is known."""
        return {name: self.dtype(name) for name in (*self._initializers, *self._values) if self.dtype(name)}

    def computes_fp32(self, node: NodeProto) -> bool:
        """Return whether one of a node's outputs is FP32."""
        return any(self.dtype(name) == TensorProto.FLOAT for name in node.output)

    def constant_tensor(self, name: str) -> TensorProto | None:
        """Return the tensor of an initialiser or of a Constant node; ``None`` for anything else."""
        if name in self._initializers:
            return self._initializers[name]
        attribute = self._constant_attribute(name)
        if attribute is None or not attribute.HasField("t"):
            return None
        tensor: TensorProto = attribute.t
        return tensor

    def constant(self, name: str) -> NDArray[np.generic] | None:
        """Return the value of an initialiser or of a Constant node; ``None`` when there is none that can be read."""
        tensor = self.constant_tensor(name)
        if tensor is not None:
            return tensor_values(tensor)
        attribute = self._constant_attribute(name)
        lists = {"value_int": "i", "value_float": "f", "value_ints": "ints", "value_floats": "floats"}
        field = None if attribute is None else lists.get(attribute.name)
        return None if field is None else np.asarray(getattr(attribute, field))

    def _constant_attribute(self, name: str) -> AttributeProto | None:
        node = self.producer(name)
        return next(iter(node.attribute), None) if node is not None and node.op_type == "Constant" else None

    def is_weights(self, name: str) -> bool:
        """Return whether TensorRT's parser knows a tensor's values: an initialiser or the output of a Constant node."""
        node = self.producer(name)
        return name in self._initializers or (node is not None and node.op_type == "Constant")

    def parsed_type(self, name: str) -> int:
        """Return the element type that TensorRT's parser gives a tensor, 0 when it is unknown.

        It computes DOUBLE as FLOAT, holds UINT8 weights as INT32, and quantizes to INT8 where ONNX says UINT8.
        """
        dtype, node = self.dtype(name), self.producer(name)
        if dtype == TensorProto.DOUBLE:
            return int(TensorProto.FLOAT)
        if dtype == TensorProto.UINT8 and self.is_weights(name):
            return int(TensorProto.INT32)
        if dtype == TensorProto.UINT8 and node is not None and node.op_type == "QuantizeLinear":
            return int(TensorProto.INT8)
        return dtype

    def rank(self, name: str) -> int | None:
        """Return the number of dimensions; ``None`` when it is unknown."""
        dims = self.shape(name)
        return None if dims is None else len(dims)

    def ranks(self) -> dict[str, int]:
        """Return the number of dimensions of every tensor of which it is known."""
        known = {name: self.rank(name) for name in (*self._initializers, *self._values)}
        return {name: rank for name, rank in known.items() if rank is not None}

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor can be folded: it depends on no network input, or only on an input's static shape."""
        if name not in self._constant:
            self._constant[name] = self._depends_on_no_input(name)
        return self._constant[name]

    def _depends_on_no_input(self, name: str) -> bool:
        pending, seen = [name], set()
        while pending:
            current = pending.pop()
            if current in seen or current in self._initializers or not current or self._constant.get(current):
                continue
            seen.add(current)
            node = self.producer(current)
            if node is None or current in self._constant:  # known, and no constant
                return False
            if node.op_type == "Shape" and is_static(self.shape(input_name(node, 0))):
                continue
            pending.extend(node.input)
        return True


def _inferred_values(model: onnx.ModelProto) -> list[ValueInfoProto]:
    """Return inputs, outputs and intermediates with inferred types; with the declared types where inference fails."""
    model = without_weights(model)
    # A graph that is not valid is reported by FE01.
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError):
        if _is_plausible(model):
            model = onnx.shape_inference.infer_shapes(model)
        # The second run follows the values of shapes through their arithmetic.
        if _is_plausible(model):
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return [value for graph in graphs_in(model) for value in (*graph.value_info, *graph.output, *graph.input)]


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without the bytes of weights; shape inference copies the model and needs their shapes only."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in tensors_in(light):
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16) and len(tensor.raw_data) > _SMALL_BYTES:
            tensor.ClearField("raw_data")
    return light


def unreadable_equation(model: onnx.ModelProto) -> NodeProto | None:
    """Return the first Einsum whose equation is none; ``None`` when there is no such node."""
    for node in nodes_in(model):
        if node.op_type == "Einsum" and not _EQUATION.fullmatch(attribute_text(node, "equation", "").replace(" ", "")):
            return node
    return None


def _is_plausible(model: onnx.ModelProto) -> bool:
    """Return whether ONNX's shape inference can process the declared dimensions and equations safely.

    It aborts the process on some negative dimensions, overflows on very large ones, reserves memory for every entry of
    a tensor that could be a shape, and does not end on some equations of Einsum. No real graph has any of these.
    """
    if unreadable_equation(model) is not None:
        return False
    declared = [(tensor.data_type, list(tensor.dims)) for tensor in tensors_in(model)]
    for graph in graphs_in(model):
        for value in (*graph.value_info, *graph.output, *graph.input):
            tensor = value.type.tensor_type
            declared.append((tensor.elem_type, [dim.dim_value for dim in tensor.shape.dim]))
    return all(
        all(dim >= 0 for dim in dims)
        and prod(max(dim, 1) for dim in dims) <= LARGEST_TENSOR
        and (len(dims) != 1 or dtype == TensorProto.FLOAT or dims[0] <= LONGEST_LIST)
        for dtype, dims in declared
    )


def value_dims(value: ValueInfoProto) -> Dims:
    """Return the declared dimensions, ``None`` for one without a number."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
        for dim in value.type.tensor_type.shape.dim
    )


def is_static(dims: Dims | None) -> bool:
    """Return whether every dimension is a number."""
    return dims is not None and None not in dims


def tensor_values(tensor: TensorProto) -> NDArray[np.generic] | None:
    """Return a tensor as an array; ``None`` when its bytes do not fit its shape or are in another file."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, MemoryError):
        return None


def input_name(node: NodeProto, index: int) -> str:
    """Return the name of a node's input; an empty text when the node has no such input."""
    return node.input[index] if index < len(node.input) else ""


def output_name(node: NodeProto) -> str:
    """Return the name of a node's first output; an empty text when it has none."""
    return node.output[0] if node.output else ""


def label(node: NodeProto) -> str:
    """Return the name of a node for messages; nodes without a name are named by operator and output."""
    return node.name or f"{node.op_type} -> {output_name(node) or '?'}"


def attribute_int(node: NodeProto, name: str, default: int) -> int:
    """Return an integer attribute, or the default when it is absent or of another type."""
    for attribute in node.attribute:
        if attribute.name == name and attribute.type == AttributeProto.INT:
            return int(attribute.i)
    return default


def attribute_text(node: NodeProto, name: str, default: str) -> str:
    """Return a text attribute, or the default when it is absent or of another type."""
    for attribute in node.attribute:
        if attribute.name == name and attribute.type == AttributeProto.STRING:
            return str(attribute.s, "utf-8", errors="replace")
    return default


def attribute_ints(node: NodeProto, name: str) -> list[int]:
    """Return a list of integers; an empty one when it is absent or of another type."""
    for attribute in node.attribute:
        if attribute.name == name and attribute.type == AttributeProto.INTS:
            return list(attribute.ints)
    return []


def attribute_float(node: NodeProto, name: str, default: float) -> float:
    """Return a number, or the default when it is absent or of another type."""
    for attribute in node.attribute:
        if attribute.name == name and attribute.type == AttributeProto.FLOAT:
            return float(attribute.f)
    return default


def has_attribute(node: NodeProto, name: str) -> bool:
    """Return whether a node has an attribute, of whatever type."""
    return any(attribute.name == name for attribute in node.attribute)


def type_name(dtype: int) -> str:
    """Return ONNX's name of an element type."""
    return str(TensorProto.DataType.Name(dtype)) if dtype in TensorProto.DataType.values() else f"type {dtype}"


Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """A violation of one rule at one place.

    Attributes:
        rule: the number of the rule, ``FE04``.
        severity: ``error``: TensorRT 10.7 refuses the graph or computes something else; ``warning``: it
            builds, and is slower or needs more than the graph; ``info``: good to know.
        node: the name of the node, or ``graph`` where no single node is the cause.
        message: what is wrong and what follows from it.
        hint: what to do about it.
    """

    rule: str
    severity: Severity
    node: str
    message: str
    hint: str

    def to_json(self) -> dict[str, str]:
        """Return the object that ``--json`` prints."""
        return {
            "rule": self.rule,
            "severity": self.severity,
            "node": self.node,
            "message": self.message,
            "hint": self.hint,
        }
