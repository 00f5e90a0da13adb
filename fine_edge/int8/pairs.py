"""Pairs of QuantizeLinear and DequantizeLinear in an FP16 graph: symmetric, zero points 0, weights by channel.

The rest of the graph stays as it is, so the result is strongly typed: INT8 between the pairs, FP16 elsewhere. Scales
are FP16, which these operators take from opset 19 on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fine_edge.errors import ArtifactError
from fine_edge.graph.convert import sort_nodes
from fine_edge.graph.view import GraphView, input_name, output_name
from fine_edge.graph.walk import graphs_in
from fine_edge.int8.placement import Convolution

# The oldest opset whose QuantizeLinear and DequantizeLinear take FP16 scales; TensorRT 10.7 takes it.
OPSET = 19

# The largest INT8 magnitude in use; -128 is left out, so that the range is symmetric.
LEVELS = 127

_SMALLEST_SCALE = float(np.finfo(np.float16).smallest_normal)


def raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model of opset 19 or newer.

    From 18 on only the number changes: 19 gives the operators of 18 more types and attributes whose defaults are what
    18 does (ONNX operator changelog). Older graphs go through ONNX's own converter.

    Raises:
        ArtifactError: when the converter refuses the graph, or drops names of nodes.
    """
    opset = GraphView(model).opset
    if opset >= OPSET:
        return model
    newer = onnx.ModelProto()
    newer.CopyFrom(model)
    if opset < OPSET - 1:
        hint = f"export it with opset {OPSET - 1} or {OPSET}"
        try:
            newer = onnx.version_converter.convert_version(model, OPSET)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:160]
            raise ArtifactError(f"opset {opset} cannot be raised to {OPSET} ({reason})", hint=hint) from error
        if {node.name for node in model.graph.node} - {node.name for node in newer.graph.node}:
            raise ArtifactError(f"nodes were lost when opset {opset} was raised to {OPSET}", hint=hint)
    for entry in newer.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = OPSET
    newer.ir_version = max(newer.ir_version, 9)  # the oldest that goes with opset 19
    return newer


def with_pairs(
    half: onnx.ModelProto,
    chosen: Sequence[Convolution],
    magnitudes: Mapping[str, float],
    original: GraphView,
) -> onnx.ModelProto:
    """Return a copy of an FP16 graph in which the chosen convolutions compute in INT8.

    A convolution reads its map and its weights through DequantizeLinear. What is added to its result reads through a
    pair as well where that map has one already, so that convolution, addition and activation can be one kernel.

    Args:
        half: the FP16 graph of opset 19, with the nodes of the FP32 graph under the same names.
        chosen: the convolutions.
        magnitudes: by the name of the map in the FP32 graph.
        original: view of the FP32 graph, which holds the weights before they were rounded to FP16.

    Raises:
        ArtifactError: when a convolution is not FP16 in ``half``, or the result is no valid graph.
    """
    model = onnx.ModelProto()
    model.CopyFrom(half)
    graph = _Pairs(model)
    nodes = {node.name: node for node in model.graph.node}
    maps: dict[str, str] = {}
    for one in chosen:
        node = nodes.get(one.name)
        if node is None or graph.view.dtype(output_name(node)) != TensorProto.FLOAT16:
            hint = f"leave it out: --keep {one.name}"
            raise ArtifactError("this convolution is not FP16, so INT8 would cost casts", where=one.name, hint=hint)
        maps[node.input[0]] = one.activation
        node.input[0] = graph.of_map(node.input[0], magnitudes[one.activation])
        values = original.constant(one.weight)
        assert values is not None  # placement takes constant weights only
        node.input[1] = graph.of_weights(one.weight, np.asarray(values, dtype=np.float32))
    _share_additions(graph, {one.name for one in chosen}, maps, magnitudes)
    return graph.finished()


def _share_additions(graph: _Pairs, chosen: set[str], maps: Mapping[str, str], magnitudes: Mapping[str, float]) -> None:
    """Let an addition behind an INT8 convolution read its other map through the pair that this map has."""
    for node in graph.model.graph.node:
        if node.op_type != "Add":
            continue
        for index in (0, 1):
            producer, other = graph.view.producer(node.input[index]), node.input[1 - index]
            if producer is not None and producer.name in chosen and other in maps:
                node.input[1 - index] = graph.of_map(other, magnitudes[maps[other]])
                break


class _Pairs:
    """An FP16 model that is being given pairs; every tensor gets one pair at most."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.view = GraphView(model)
        self._read_instead: dict[str, str] = {}
        self._new: list[NodeProto] = []

    def of_map(self, name: str, magnitude: float) -> str:
        """Return the tensor that holds a map after a pair with one scale."""
        if name not in self._read_instead:
            scale, zero = self._constants(name, np.float16(_scale(np.asarray(magnitude))), np.int8(0))
            self._add("QuantizeLinear", [name, scale, zero], f"{name}/int8")
            self._add("DequantizeLinear", [f"{name}/int8", scale, zero], f"{name}/dequantized")
            self._read_instead[name] = f"{name}/dequantized"
        return self._read_instead[name]

    def of_weights(self, name: str, values: NDArray[np.float32]) -> str:
        """Return the tensor that holds weights (O, I, H, W) after DequantizeLinear with one scale an output channel."""
        if name not in self._read_instead:
            scales = _scale(np.abs(values).reshape(len(values), -1).max(axis=1))  # (O,)
            steps = scales.astype(np.float32).reshape(-1, 1, 1, 1)
            rounded = np.clip(np.rint(values / steps), -LEVELS, LEVELS).astype(np.int8)
            self.model.graph.initializer.append(numpy_helper.from_array(rounded, f"{name}/int8"))
            scale, zero = self._constants(name, scales, np.zeros(len(values), np.int8))
            self._add("DequantizeLinear", [f"{name}/int8", scale, zero], f"{name}/dequantized", axis=0)
            self._read_instead[name] = f"{name}/dequantized"
        return self._read_instead[name]

    def _constants(self, name: str, scale: object, zero: object) -> tuple[str, str]:
        made = {f"{name}/scale": np.asarray(scale), f"{name}/zero": np.asarray(zero)}
        self.model.graph.initializer.extend(numpy_helper.from_array(value, title) for title, value in made.items())
        scale_name, zero_name = made
        return scale_name, zero_name

    def _add(self, op_type: str, inputs: list[str], output: str, axis: int | None = None) -> None:
        node = helper.make_node(op_type, inputs, [output], f"{output}/{op_type}")
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        self._new.append(node)

    def finished(self) -> onnx.ModelProto:
        """Return the model with all pairs, without weights that nothing reads any more.

        Raises:
            ArtifactError: when it is no valid graph.
        """
        graph = self.model.graph
        graph.node.extend(self._new)
        sort_nodes(graph)
        read = {name for inner in graphs_in(self.model) for node in inner.node for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        try:
            onnx.checker.check_model(self.model, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
            hint = "python -m fine_edge graph check FILE"
            raise ArtifactError(f"cannot take INT8 ({error})", hint=hint) from error
        return self.model


def _scale(magnitude: NDArray[np.generic]) -> NDArray[np.float16]:
    """Return the FP16 step of INT8 for magnitudes; a normal number, since devices may flush smaller ones to zero."""
    steps: NDArray[np.float16] = np.maximum(magnitude.astype(np.float64) / LEVELS, _SMALLEST_SCALE).astype(np.float16)
    return steps


def pair_count(model: onnx.ModelProto) -> int:
    """Return the number of tensors, maps and weights, that are dequantised in a graph."""
    return sum(node.op_type == "DequantizeLinear" for node in model.graph.node)


def weight_pairs(view: GraphView) -> frozenset[str]:
    """Return the names of the nodes that dequantise constants."""
    return frozenset(
        node.name for node in view.nodes if node.op_type == "DequantizeLinear" and view.is_constant(input_name(node, 0))
    )
