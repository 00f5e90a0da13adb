"""Rules on single operators that TensorRT 10.7's parser or builder refuses, slows down or computes wrongly."""

from __future__ import annotations

from onnx import NodeProto

from fine_edge.graph.runaway import MOST_TRIPS, unbounded_loop
from fine_edge.graph.view import Finding, GraphView, Severity, attribute_int, attribute_text, input_name, label

TOPK_LIMIT = 3840
"""The largest K of TensorRT's TopK layer. 3841 passes the parser and fails in the builder."""

PLUGIN_DOMAINS = ("trt.plugins",)
"""Domains whose nodes are TensorRT plugins by convention. In other domains a name that ends in ``_TRT`` is one."""

_DEVICE_CHECK = "build it on the device before relying on it"
# Operator: severity, what happens, hint.
_SPECIAL: dict[str, tuple[Severity, str, str]] = {
    "NonZero": ("error", "its output's shape depends on data", "use Where or a mask of fixed size"),
    "Unique": ("error", "its output's shape depends on data", "leave it out of the graph"),
    "Compress": ("error", "its output's shape depends on data", "use Where or a mask of fixed size"),
    "If": ("warning", "both branches are kept and nothing fuses across it", "export the branch that is taken"),
    "Loop": ("warning", "it runs iteration by iteration and nothing fuses across it", "unroll it before the export"),
    "Scan": ("warning", "it runs iteration by iteration and nothing fuses across it", "unroll it before the export"),
    "NonMaxSuppression": (
        "warning",
        "its number of boxes depends on data, and it compiles only on a machine with a GPU",
        "suppress on the host, or compile only the part of the graph before it",
    ),
    "RoiAlign": (
        "warning",
        "it becomes the plugin ROIAlign_TRT and compiles only on a machine with a GPU",
        "load libnvinfer_plugin on the device, or compile only the part of the graph before it",
    ),
    "DeformConv": (
        "warning",
        "it becomes a plugin since 10.1 and is unknown to TensorRT-RTX",
        "load libnvinfer_plugin on the device",
    ),
}


def gridsample_mode(graph: GraphView) -> list[Finding]:
    """FE08: no interpolating GridSample of opset 20 or newer.

    Source: onnx-tensorrt pull request 1060 and TensorRT issue 4646: 10.x parsers know the modes by their
    names of opset 16 and read ``linear`` and ``cubic`` as nearest, so boxes are wrong without a warning.
    Hint: export with opset 17 to 19.
    """
    found = []
    for node in graph.nodes:
        mode = attribute_text(node, "mode", "linear")
        if node.op_type == "GridSample" and graph.opset >= 20 and mode != "nearest":
            message = f"mode {mode!r} of opset {graph.opset} is read as nearest: boxes are silently wrong"
            found.append(Finding("FE08", "error", label(node), message, "export with opset 17 to 19"))
    return found


def gridsample_rank(graph: GraphView) -> list[Finding]:
    """FE09: GridSample on 4-D maps.

    Source: TensorRT operators documentation, GridSample: input and grid of rank 4.
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
    """FE10: no ScatterND with a reduction, nor of opset 18 or newer.

    Source: TensorRT 10.9 release notes (opset 18 is fixed there); the parser refuses every reduction.
    Hint: write the update as Concat or Where, or export with opset 17.
    """
    found = []
    for node in graph.nodes:
        if node.op_type != "ScatterND":
            continue
        reduction = attribute_text(node, "reduction", "none")
        if reduction != "none":
            message = f"ScatterND with reduction {reduction!r} is refused"
            found.append(Finding("FE10", "error", label(node), message, "write it as Concat or Where"))
        elif graph.opset >= 18:
            message = f"ScatterND of opset {graph.opset} is wrong before TensorRT 10.9"
            found.append(Finding("FE10", "error", label(node), message, "use Concat or Where, or export with opset 17"))
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
        value = graph.constant(name)
        if value is not None and value.size == 1 and value.dtype.kind in "iu" and int(value.ravel()[0]) > TOPK_LIMIT:
            message = f"K is {int(value.ravel()[0])}, the limit is {TOPK_LIMIT}"
            found.append(Finding("FE11", "error", label(node), message, "select fewer, or in two steps"))
        elif graph.opset >= 10 and not graph.is_constant(name):
            message = "K is not constant: the output has no static shape"
            found.append(Finding("FE11", "error", label(node), message, "export with a fixed K"))
    return found


def constant_axes(graph: GraphView) -> list[Finding]:
    """FE12: Slice and Pad with constant axes, Pad with constant pads.

    Source: onnx-tensorrt, docs/operators.md: ``axes`` must be an initialiser; static shapes need the pads.
    Hint: export with Python numbers instead of tensors.
    """
    found = []
    inputs = {"Slice": ((3, "axes"),), "Pad": ((1, "pads"), (3, "axes"))}
    for node in graph.nodes:
        for index, meaning in inputs.get(node.op_type, ()):
            name = input_name(node, index)
            if name and not graph.is_constant(name):
                message = f"{meaning} of {node.op_type} are computed from the network's input"
                found.append(Finding("FE12", "error", label(node), message, "export with Python numbers, not tensors"))
    return found


def resize_mode(graph: GraphView) -> list[Finding]:
    """FE13: Resize without antialiasing, nearest or linear.

    Source: onnx-tensorrt, docs/operators.md (nearest, linear); the parser says "Antialiasing is not supported".
    Hint: nearest or linear, ``antialias=False``.
    """
    found = []
    for node in graph.nodes:
        if node.op_type != "Resize":
            continue
        if attribute_int(node, "antialias", 0):
            message = "Resize with antialiasing is refused"
            found.append(Finding("FE13", "error", label(node), message, "interpolate with antialias=False"))
        if attribute_text(node, "mode", "nearest") == "cubic":
            message = "cubic Resize is not documented for 10.7"
            found.append(Finding("FE13", "warning", label(node), message, f"use nearest or linear, or {_DEVICE_CHECK}"))
    return found


def special_operators(graph: GraphView) -> list[Finding]:
    """FE14: no operator whose output's shape depends on data, no control flow, no operator that becomes a plugin.

    Source: onnx-tensorrt, docs/operators.md; TensorRT 10.1 release notes (DeformConv, ROIAlign_TRT version 2);
    what TensorRT-RTX 1.7.1 refuses without a GPU was measured.
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
            found.append(_special(node, "error", message, _SPECIAL["Loop"][2]))
        elif node.domain in ("", "ai.onnx") and node.op_type in _SPECIAL:
            found.append(_special(node, *_SPECIAL[node.op_type]))
    return found


def _special(node: NodeProto, severity: Severity, reason: str, hint: str) -> Finding:
    return Finding("FE14", severity, label(node), f"{node.op_type}: {reason}", hint)


def foreign_domains(graph: GraphView) -> list[Finding]:
    """FE15: only ONNX operators and TensorRT plugins.

    Source: onnx-tensorrt: the parser searches the plugin registry for an unknown operator, and refuses it otherwise.
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
        else:
            message = f"{name} is neither ONNX nor a known plugin"
            hint = "export with ONNX operators only, or provide a TensorRT plugin"
            found.append(Finding("FE15", "error", label(node), message, hint))
    return found
