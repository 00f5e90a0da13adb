"""Rules on single operators that TensorRT 10.7's parser or builder refuses, slows down or computes wrongly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from fine_edge.graph.parser_operators import OPERATORS
from fine_edge.graph.runaway import MOST_TRIPS, unbounded_loop
from fine_edge.graph.view import (
    Finding,
    GraphView,
    Severity,
    attribute_int,
    attribute_text,
    has_attribute,
    input_name,
    label,
)

# The largest K of TensorRT's TopK layer. 3841 passes the parser and fails in the builder.
TOPK_LIMIT = 3840

# Domains whose nodes are TensorRT plugins by convention. In other domains a name that ends in ``_TRT`` is one.
PLUGIN_DOMAINS = ("trt.plugins",)

_DEVICE_CHECK = "build it on the device before relying on it"
_UNROLLED = "it becomes a loop, iteration by iteration, and nothing fuses across it"
_PLUGIN_HINT = "write it with ONNX operators, or export it as a node of the domain trt.plugins for a plugin of yours"

# Operator: severity, what happens, hint.
# Operators that are more than a layer: sequences are as well.
SPECIAL: dict[str, tuple[Severity, str, str]] = {
    "Unique": ("error", "its output's shape depends on data", "leave it out of the graph"),
    "Compress": ("error", "its output's shape depends on data", "use Where or a mask of fixed size"),
    "NonZero": ("warning", "its output's shape depends on data", "use Where or a mask of fixed size"),
    "If": ("warning", "both branches are kept and nothing fuses across it", "export the branch that is taken"),
    **dict.fromkeys(("Loop", "Scan"), ("error", _UNROLLED, "unroll it before the export")),
    "CumSum": ("error", _UNROLLED, "multiply with a constant triangular matrix"),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), ("error", _UNROLLED, "unroll its steps, or use attention or convolution")),
    "NonMaxSuppression": (
        "warning",
        "its number of boxes depends on data, and it compiles only on a machine with a GPU",
        "suppress on the host, or compile only the part of the graph before it",
    ),
    "RoiAlign": ("error", "it becomes the plugin ROIAlign_TRT", _PLUGIN_HINT),
    "DeformConv": ("error", "it becomes the plugin ModulatedDeformConv2d", _PLUGIN_HINT),
}

_SAMPLE_MODES = ("bilinear", "bicubic", "nearest")


def gridsample_mode(graph: GraphView) -> list[Finding]:
    """FE08: GridSample's mode is one that the parser knows: bilinear, bicubic or nearest.

    Source: onnx-tensorrt pull request 1060 and TensorRT issue 4646: 10.x parsers know the modes by their
    names of opset 16 and read ``linear`` and ``cubic`` of opset 20 as nearest, so boxes are wrong without a
    warning. Without the attribute they read bilinear, which is right.
    Hint: export with opset 17 to 19.
    """
    found = []
    for node in graph.nodes:
        mode = attribute_text(node, "mode", "bilinear")
        if node.op_type == "GridSample" and mode not in _SAMPLE_MODES:
            message = f"mode {mode!r} of opset {graph.opset} is read as nearest: boxes are silently wrong"
            found.append(Finding("FE08", "error", label(node), message, "export with opset 17 to 19"))
    return found


def gridsample_rank(graph: GraphView) -> list[Finding]:
    """FE09: GridSample on 4-D maps.

    Source: TensorRT operators documentation, GridSample: input and grid of rank 4; TensorRT issue 4619: 10.6 refuses 5.
    Hint: fold the extra dimension into the batch.
    """
    found = []
    for node in graph.nodes:
        dims = graph.shape(input_name(node, 0))
        if node.op_type == "GridSample" and dims is not None and len(dims) != 4:
            message = f"GridSample of a {len(dims)}-D map; TensorRT has only the 4-D one"
            found.append(Finding("FE09", "error", label(node), message, "fold the extra dimension into the batch"))
    return found


def scatter_nd(graph: GraphView) -> list[Finding]:
    """FE10: no ScatterND with the attribute reduction, whatever its value.

    Source: onnx-tensorrt 10.6: the parser refuses the attribute; TensorRT 10.9 release notes: opset 18 is fixed there.
    Hint: write the update as Concat or Where, or export with opset 17.
    """
    found = []
    for node in graph.nodes:
        if node.op_type != "ScatterND":
            continue
        if has_attribute(node, "reduction"):
            message = f"the attribute reduction {attribute_text(node, 'reduction', '?')!r} of ScatterND is refused"
            hint = "remove the attribute where it is none; else write it as Concat or Where"
            found.append(Finding("FE10", "error", label(node), message, hint))
        elif graph.opset >= 18:
            message = f"ScatterND of opset {graph.opset} was mended in TensorRT 10.9"
            hint = f"use Concat or Where, export with opset 17, or {_DEVICE_CHECK}"
            found.append(Finding("FE10", "warning", label(node), message, hint))
    return found


def topk_size(graph: GraphView) -> list[Finding]:
    """FE11: TopK with a constant K of at most 3840.

    Source: TensorRT operators documentation, TopK; measured: 3840 builds, 3841 parses and fails in the builder.
    Hint: select fewer, or in two steps.
    """
    found = []
    for node in graph.nodes:
        if node.op_type != "TopK":
            continue
        name = input_name(node, 1)
        number = attribute_int(node, "k", 0) if graph.opset < 10 else _single(graph.constant(name))
        if number is not None and number > TOPK_LIMIT:
            message = f"K is {number}, the limit is {TOPK_LIMIT}"
            found.append(Finding("FE11", "error", label(node), message, "select fewer, or in two steps"))
        elif graph.opset >= 10 and not graph.is_constant(name):
            message = "K is not constant: the output has no static shape"
            found.append(Finding("FE11", "warning", label(node), message, "export with a fixed K"))
    return found


def _single(value: NDArray[np.generic] | None) -> int | None:
    """Return the only number of an array of integers; ``None`` for any other."""
    if value is None or value.size != 1 or value.dtype.kind not in "iu":
        return None
    return int(value.ravel()[0])


# Operators whose axes must be in the file; the parser computes none of them.
_STORED_AXES = {
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax"), 18),
    **dict.fromkeys(("ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"), 18),
    **dict.fromkeys(("ReduceSum", "Squeeze", "Unsqueeze"), 13),
}
_COMPUTABLE_AXES = {"Slice": ((3, "axes"),), "Pad": ((1, "pads"), (3, "axes"))}


def constant_axes(graph: GraphView) -> list[Finding]:
    """FE12: axes of Reduce operators, Squeeze and Unsqueeze are weights; axes of Slice and Pad, and pads, constant.

    Source: onnx-tensorrt, ``docs/operators.md``: ``axes`` must be an initialiser, and the parser folds nothing; since
    10.3 and 10.4 Slice and Pad take computed ones, whose output has no static shape.
    Hint: export with Python numbers instead of tensors.
    """
    found = []
    for node in graph.nodes:
        name = input_name(node, 1)
        if graph.opset >= _STORED_AXES.get(node.op_type, graph.opset + 1) and name and not graph.is_weights(name):
            message = f"axes of {node.op_type} are no constant of the file"
            hint = "export with Python numbers, or fold the constants: polygraphy surgeon sanitize --fold-constants"
            found.append(Finding("FE12", "error", label(node), message, hint))
        for index, meaning in _COMPUTABLE_AXES.get(node.op_type, ()):
            name = input_name(node, index)
            if name and not graph.is_constant(name):
                message = f"{meaning} of {node.op_type} are computed from the network's input"
                found.append(
                    Finding("FE12", "warning", label(node), message, "export with Python numbers, not tensors")
                )
    return found


def special_operators(graph: GraphView) -> list[Finding]:
    """FE14: no operator whose output's shape depends on data, no control flow or loop, none that becomes a plugin.

    Source: onnx-tensorrt 10.6, ``docs/operators.md`` and the importers, which make loops of CumSum and of recurrent
    networks and plugins of DeformConv and RoiAlign; what TensorRT-RTX 1.7.1 refuses without a GPU was measured.
    Hint: one for each operator.
    """
    found = []
    unbounded = unbounded_loop(graph, graph.model.graph.node)
    for node in graph.nodes:
        is_sequence = "Sequence" in node.op_type or node.op_type.startswith("Optional")
        if node.domain in ("", "ai.onnx") and is_sequence and node.op_type != "ReverseSequence":
            found.append(_special(node, "error", "TensorRT has no sequences", "use tensors"))
        elif node.op_type == "Loop" and node is unbounded:
            message = f"nothing bounds its iterations to {MOST_TRIPS}"
            found.append(_special(node, "error", message, SPECIAL["Loop"][2]))
        elif node.domain in ("", "ai.onnx") and node.op_type in SPECIAL:
            found.append(_special(node, *SPECIAL[node.op_type]))
    return found


def _special(node: NodeProto, severity: Severity, reason: str, hint: str) -> Finding:
    return Finding("FE14", severity, label(node), f"{node.op_type}: {reason}", hint)


def foreign_domains(graph: GraphView) -> list[Finding]:
    """FE15: only ONNX operators and TensorRT plugins.

    Source: onnx-tensorrt: the parser imports an operator by its name, whatever its domain; it searches the plugin
    registry for an unknown name, and refuses it otherwise.
    Hint: export without the library that adds its own operators, or write a plugin.
    """
    local = {(function.domain, function.name) for function in graph.model.functions}
    found = []
    for node in graph.nodes:
        if node.domain in ("", "ai.onnx") or (node.domain, node.op_type) in local:
            continue
        name = f"{node.domain}::{node.op_type}"
        if node.domain in PLUGIN_DOMAINS or node.op_type.endswith("_TRT"):
            message = f"{name} is a plugin: it needs its library on the device"
            found.append(Finding("FE15", "warning", label(node), message, "load the plugin library before the build"))
        elif node.op_type in OPERATORS:
            message = f"{name} is read as ONNX's {node.op_type}: the parser ignores domains"
            found.append(Finding("FE15", "warning", label(node), message, "export with ONNX operators only"))
        else:
            message = f"{name} is neither ONNX nor a known plugin"
            hint = "export with ONNX operators only, or provide a TensorRT plugin"
            found.append(Finding("FE15", "error", label(node), message, hint))
    return found
