"""Rules on the model as a whole: validity, operator sets, shapes, types, weights and their values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from fine_edge.graph.half_range import beyond_half
from fine_edge.graph.input_size import described, has_open_batch, is_open, network_inputs
from fine_edge.graph.model_file import external_tensors, external_values, outside_folder
from fine_edge.graph.open_batch import largest_batch
from fine_edge.graph.parser_operators import KNOWN
from fine_edge.graph.runaway import too_large
from fine_edge.graph.view import Finding, GraphView, Severity, input_name, is_static, label, tensor_values, type_name
from fine_edge.graph.walk import constant_name, constants_in, nodes_in

# The first opset with LayerNormalization as one operator.
OLDEST_OPSET = 17

# The last opset in which GridSample's modes have the names that 10.x parsers know.
NEWEST_OPSET = 19

# Operators that can give a network output of UINT8; weights of this type are held as INT32.
_GIVES_UINT8 = ("Cast", "CastLike", "Identity", "QuantizeLinear")
_DEPRECATED = "deprecated"
_OUTSIDE = "save the model with its weights inside the .onnx file"


def valid_onnx(graph: GraphView) -> list[Finding]:
    """FE01: the graph obeys the ONNX specification.

    Source: the ONNX IR specification, as ``onnx.checker`` implements it.
    Hint: export again; the missing parts of an edited or cut file cannot be restored.
    """
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    for tensor in external_tensors(model):
        # The checker would search the current folder for weight files; empty tensors need none.
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
        tensor.dims[:] = [0]
    _move_deprecated(model, graph.opset)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:240]
        return [Finding("FE01", "error", "graph", f"the graph is not valid ONNX: {reason}", "export the model again")]
    return []


def _move_deprecated(model: onnx.ModelProto, opset: int) -> None:
    """Move operators that ONNX deprecates into a domain that the checker does not know: TensorRT imports them."""
    deprecated: dict[str, bool] = {}
    for node in nodes_in(model):
        name = node.op_type
        if node.domain in ("", "ai.onnx"):
            if name not in deprecated:
                deprecated[name] = _is_deprecated(name, opset)
            if deprecated[name]:
                node.domain = _DEPRECATED
    if any(deprecated.values()):
        model.opset_import.append(onnx.helper.make_opsetid(_DEPRECATED, 1))


def _is_deprecated(name: str, opset: int) -> bool:
    try:
        return bool(onnx.defs.get_schema(name, opset, "").deprecated)
    except (onnx.defs.SchemaError, TypeError):  # unknown to this opset, or no version that there can be
        return False


def opset_range(graph: GraphView) -> list[Finding]:
    """FE02: opset 17 to 19.

    Source: ONNX operator changelog (LayerNormalization-17, GridSample-20); which opset is the highest
    that 10.7 reads is not documented, so a newer one is a warning.
    Hint: export with ``opset_version=17``.
    """
    if OLDEST_OPSET <= graph.opset <= NEWEST_OPSET:
        return []
    if graph.opset < OLDEST_OPSET:
        message = f"opset {graph.opset} has no LayerNormalization: exporters split it into pieces that overflow in FP16"
    else:
        message = f"opset {graph.opset} is newer than the newest known to work with TensorRT 10.7"
    return [Finding("FE02", "warning", "graph", message, f"export with opset {OLDEST_OPSET} to {NEWEST_OPSET}")]


def split_layer_norm(graph: GraphView) -> list[Finding]:
    """FE03: no LayerNorm in pieces (Pow, ReduceMean, Add, Sqrt).

    Source: D-FINE issue 44 and TensorRT issue 3657: squares overflow FP16 and no object is detected.
    Hint: export with opset 17 or newer, or keep these nodes in FP32.
    """
    found = []
    for node in graph.nodes:
        if node.op_type != "ReduceMean":
            continue
        square = graph.producer(input_name(node, 0))
        squares = square is not None and (
            square.op_type == "Pow" or (square.op_type == "Mul" and input_name(square, 0) == input_name(square, 1))
        )
        sums = [user for output in node.output for user in graph.consumers(output) if user.op_type == "Add"]
        roots = [user for add in sums for output in add.output for user in graph.consumers(output)]
        if squares and any(user.op_type == "Sqrt" for user in roots):
            message = "a LayerNorm in pieces: its squares overflow in FP16, and nothing is detected"
            hint = f"export with opset {OLDEST_OPSET} or newer, or keep {label(node)} and its neighbours in FP32"
            found.append(Finding("FE03", "error", label(node), message, hint))
    return found


def static_shapes(graph: GraphView) -> list[Finding]:
    """FE04: every input and output has numbers for dimensions.

    Source: the contract of this package: one engine has one shape; TensorRT needs an optimisation profile
    for a dynamic input, and a contract cannot describe an output without a shape.
    The batch of an export with ``--batch MIN:MAX`` may stay open, and so may that of any graph that an engine is built
    of with it: contract and manifest say what they take.
    Hint: export without ``dynamic_axes`` or ``dynamic_shapes``, or name a size with ``--input-size``.
    """
    hint = "export with static shapes, or compile for one: engine build FILE.onnx --input-size 640x640"
    found = []
    batched = largest_batch(graph.model) is not None
    for value in network_inputs(graph.model):
        if is_open(value) and not (batched and has_open_batch(value)):
            message = f"input {described(value)} has a dynamic shape"
            found.append(Finding("FE04", "error", "graph", message, hint))
    for value in graph.model.graph.output:
        shape = graph.shape(value.name)
        if not is_static(shape) and not (batched and shape and is_static(shape[1:])):
            found.append(Finding("FE04", "error", "graph", f"output {value.name!r} has no static shape", hint))
    return found


def supported_types(graph: GraphView) -> list[Finding]:
    """FE05: only element types that TensorRT 10.7 has.

    Source: onnx-tensorrt, docs/operators.md: FP32, FP16, BF16, INT32, INT64, INT8, INT4, FP8 (E4M3FN), BOOL; UINT8
    only at network inputs and outputs, and as INT32 in weights; DOUBLE is computed as FP32, clamped to its range.
    Hint: cast to FP32, INT32 or INT64 before the export.
    """
    edges = {value.name for value in graph.model.graph.input}
    outputs = {value.name for value in graph.model.graph.output}
    for name in outputs:
        node = graph.producer(name)
        if node is not None and node.op_type in _GIVES_UINT8:
            edges.add(name)
    uint8 = TensorProto.UINT8
    problems: dict[tuple[int, Severity, str], list[str]] = {}
    for name, dtype in graph.dtypes().items():
        if dtype not in KNOWN:
            problems.setdefault((dtype, "error", "TensorRT has no such type"), []).append(name)
        # A type that the graph only states for a constant is none that flows: its weights become INT32.
        elif dtype == uint8 and name not in edges and (name in outputs or graph.parsed_type(name) == uint8):
            problems.setdefault((dtype, "error", "TensorRT has it at inputs and outputs only"), []).append(name)
        elif dtype == TensorProto.DOUBLE:
            problems.setdefault((dtype, "warning", "TensorRT computes it as FP32"), []).append(name)
    hint = "cast to FP32, INT32 or INT64 before the export"
    found = [
        Finding("FE05", "error", "graph", f"{value.name!r} is a sequence or optional, no tensor", "use tensors")
        for value in (*graph.model.graph.input, *graph.model.graph.output)
        if value.type.WhichOneof("value") not in ("tensor_type", None)
    ]
    return found + [
        Finding("FE05", severity, "graph", f"{type_name(dtype)} in {_some(names)}: {reason}", hint)
        for (dtype, severity, reason), names in problems.items()
    ]


def weights_inside(graph: GraphView) -> list[Finding]:
    """FE06: the weights are in the ONNX file.

    Source: ONNX external data specification; people copy a file without the files it needs, and a location outside
    the folder lets a model read files that it should not.
    Hint: save the model with its weights inside.
    """
    locations = [
        entry.value
        for tensor in external_tensors(graph.model)
        for entry in tensor.external_data
        if entry.key == "location"
    ]
    outside = sorted({location for location in locations if outside_folder(location)})
    if outside:
        return [Finding("FE06", "error", "graph", f"weights outside the folder: {_some(outside)}", _OUTSIDE)]
    if locations:
        message = f"weights are in {_some(sorted(set(locations)))}, which must be copied with the model"
        return [Finding("FE06", "warning", "graph", message, _OUTSIDE)]
    return []


def half_range(graph: GraphView) -> list[Finding]:
    """FE07: FP32 constants fit into FP16.

    Source: IEEE 754 binary16, largest finite number 65504.
    Hint: keep the node that reads the constant in FP32, or rescale.
    """
    found = []
    for entry in beyond_half(graph):
        message = f"constant {entry.tensor!r} holds {entry.largest:.6g}, beyond FP16's 65504"
        if entry.sentinel:
            message += ": read as a mask, it becomes 65504"
        hint = (
            "nothing, where it is a mask" if entry.sentinel else f"keep {entry.node} in FP32, or rescale the constant"
        )
        found.append(Finding("FE07", "info" if entry.sentinel else "warning", entry.node, message, hint))
    return found


def _some(names: list[str]) -> str:
    """Return the first three names, and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(name) for name in names[:3]) + more


# Rules on the values of weights, and on how much memory their folding takes.

# An infinity in a constant of these operators is no mask or limit: it makes every result infinite or NaN.
_WEIGHTED = frozenset(
    (
        *("BatchNormalization", "Conv", "ConvTranspose", "DeformConv", "Einsum", "GRU", "Gemm", "GroupNormalization"),
        *("InstanceNormalization", "LSTM", "LayerNormalization", "MatMul", "Mul", "PRelu", "RNN", "RMSNormalization"),
    )
)
_HANDS_ON = frozenset(
    ("Cast", "Concat", "DequantizeLinear", "Flatten", "Identity", "Neg", "Reshape", "Slice", "Squeeze", "Transpose")
)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
_AGAIN = "export from a checkpoint with finite weights: the training diverged, or the file was damaged"
_BLOCK = 1 << 22


def finite_weights(graph: GraphView) -> list[Finding]:
    """FE18: no constant holds NaN, and no weight holds an infinity.

    Source: IEEE 754: one NaN makes every detection NaN, and no score of NaN is above a threshold, so nothing is found
    and no error is raised. Infinities in masks (Add, Where) and limits (Clip, Pad) are legitimate.
    Hint: export from a checkpoint with finite weights.
    """
    found, infinite = [], set()
    for name, owner, nan, inf in _non_finite(graph):
        if nan:
            found.append(_finding(owner, f"constant {name!r} holds NaN in {nan} places"))
        elif inf:
            infinite.add(name)
    if infinite:
        found += [
            _finding(label(node), f"weight {name!r} of {node.op_type} holds infinities")
            for node, name in _weights(graph, infinite)
        ]
    return found


def fits_memory(graph: GraphView) -> list[Finding]:
    """FE19: no tensor is larger than any device's memory, and folded constants take at most a GiB.

    Source: ONNX Runtime and TensorRT fold constants while they load a graph, whatever their size: a few bytes of
    ConstantOfShape, Expand or Tile fill all memory before anything can be stopped.
    Hint: export with fixed shapes.
    """
    reason = too_large(graph)
    return [Finding("FE19", "error", "graph", reason, "export with fixed shapes")] if reason else []


def _finding(node: str, message: str) -> Finding:
    return Finding("FE18", "error", node, message, _AGAIN)


def _non_finite(graph: GraphView) -> Iterator[tuple[str, str, int, int]]:
    """Yield constants that are not finite: name, owner, number of NaN, number of infinities."""
    for constant in constants_in(graph.model):
        if constant.tensor.data_type in _FLOATS:
            nan, inf = _count(_values(constant.tensor, graph.path))
            if nan or inf:
                yield constant.name, label(constant.owner) if constant.owner is not None else "graph", nan, inf
    # Numbers in attributes are no tensors. Infinite ones are limits, except in Constant nodes.
    for node in nodes_in(graph.model):
        for attribute in node.attribute:
            nan, inf = _count(np.asarray([attribute.f, *attribute.floats], np.float32))
            if nan or (inf and node.op_type == "Constant"):
                yield constant_name(node, attribute), label(node), nan, inf


def _values(tensor: TensorProto, path: Path | None) -> NDArray[np.generic] | None:
    if tensor.data_location != TensorProto.EXTERNAL:
        return tensor_values(tensor)
    return external_values(tensor, path) if path else None


def _count(values: NDArray[np.generic] | None) -> tuple[int, int]:
    """Return the number of NaN and of infinities in an array; blocks keep the temporary arrays small."""
    nan = inf = 0
    flat = np.empty(0) if values is None else values.reshape(-1)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK]
        if not np.isfinite(block).all():
            nan += int(np.isnan(block).sum())
            inf += int(np.isinf(block).sum())
    return nan, inf


def _weights(graph: GraphView, names: set[str]) -> Iterator[tuple[NodeProto, str]]:
    """Yield the nodes that compute with one of these constants, directly or after moves and casts."""
    pending = [(name, name) for name in sorted(names)]
    seen = set(names)
    while pending:
        name, origin = pending.pop()
        for node in graph.consumers(name):
            if node.op_type in _WEIGHTED:
                yield node, origin
            elif node.op_type in _HANDS_ON:
                pending += [(output, origin) for output in node.output if output not in seen]
                seen.update(node.output)
