"""Rules on attention: whether TensorRT fuses it, and which operators the FINE block may contain."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

from fine_edge.graph.view import Finding, GraphView, input_name, label, output_name

# Head dimensions that the fused kernel takes: 16 <= d <= 256, d a multiple of 8.
SMALLEST_HEAD, LARGEST_HEAD, HEAD_STEP = 16, 256, 8

# Operators allowed between the product of queries and keys and the softmax, and between the softmax and the values.
_BETWEEN = ("Mul", "Div", "Add", "Sub", "Where", "Cast", "Identity", "Reshape", "Dropout")
_FUSED_TYPES = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8)

_FINE_FORBIDDEN = ("Shape", "Gather", "Cast", "ScatterND", "If", "Loop", "NonZero", "Where")
_FINE_EXPECTED = (
    *("AveragePool", "MaxPool", "Conv", "MatMul", "Gemm", "Softmax", "LayerNormalization"),
    *("Gelu", "Erf", "Div", "Mul", "Add", "Sub", "Tanh"),
    *("Reshape", "Transpose", "Expand", "Resize", "Constant", "Identity"),
)


@dataclass(frozen=True)
class Attention:
    """The nodes of one softmax(Q K^T) V, and its head dimension d; ``None`` where it is unknown."""

    scores: NodeProto
    softmax: NodeProto
    head_dim: int | None
    dtype: int


def attentions(graph: GraphView) -> list[Attention]:
    """Return every MatMul -> ... -> Softmax -> ... -> MatMul of the graph."""
    found = []
    for node in graph.nodes:
        if node.op_type != "Softmax" or not _reaches_values(graph, node):
            continue
        scores = _scores_before(graph, node)
        if scores is not None:
            keys = graph.shape(input_name(scores, 1))  # (..., d, m)
            head_dim = keys[-2] if keys is not None and len(keys) >= 2 else None
            found.append(Attention(scores, node, head_dim, graph.dtype(input_name(scores, 0))))
    return found


def _scores_before(graph: GraphView, softmax: NodeProto) -> NodeProto | None:
    """Return the MatMul whose result, scaled and masked, enters the softmax; ``None`` when there is none."""
    pending, seen = [input_name(softmax, 0)], set()
    while pending:
        name = pending.pop(0)
        node = graph.producer(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type == "MatMul":
            return node
        if node.op_type in _BETWEEN:
            pending.extend(node.input)
    return None


def _reaches_values(graph: GraphView, softmax: NodeProto) -> bool:
    """Return whether the softmax's result becomes the left factor of a MatMul."""
    pending, seen = [output_name(softmax)], set()
    while pending:
        name = pending.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        for node in graph.consumers(name):
            if node.op_type == "MatMul" and input_name(node, 0) == name:
                return True
            if node.op_type in _BETWEEN:
                pending.extend(node.output)
    return False


def attention_fuses(graph: GraphView) -> list[Finding]:
    """FE16: attention in FP16 with a head dimension of 16 to 256 that is a multiple of 8.

    Source: TensorRT developer guide, multi-head attention fusion; measured with TensorRT-RTX 1.7.1 for SM86:
    d = 16 is fused, d = 8 is not, FP32 never is.
    Hint: convert to FP16; choose heads so that C / heads is 16, 24, 32 ...
    """
    found = []
    every = attentions(graph)
    slow = [entry for entry in every if entry.dtype == TensorProto.FLOAT]
    if slow:
        message = f"{len(slow)} attention(s) in FP32, which is never fused: the score matrices go through memory"
        found.append(Finding("FE16", "warning", label(slow[0].softmax), message, "compile the FP16 model"))
    for entry in every:
        d = entry.head_dim
        if d is None or (SMALLEST_HEAD <= d <= LARGEST_HEAD and d % HEAD_STEP == 0):
            continue
        if entry.dtype in _FUSED_TYPES or entry.dtype == TensorProto.FLOAT:
            message = f"attention with head dimension {d} is not fused"
            hint = f"choose heads so that d is a multiple of {HEAD_STEP} from {SMALLEST_HEAD} to {LARGEST_HEAD}"
            found.append(Finding("FE16", "warning", label(entry.softmax), message, hint))
    return found


def module_path(node: NodeProto) -> tuple[str, ...]:
    """Return the names of the modules that a node was exported from, outermost first.

    The exporter of PyTorch >= 2.9 keeps the path of every module in the node's metadata, whose last
    entry is the operation itself. The older one writes ``/model/encoder/fine/query/MatMul`` as the name.
    """
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    paths = list(_name_scopes(metadata.get("pkg.torch.onnx.name_scopes", "")))
    if not paths:
        # "neck: package.Neck/neck.fine: package.Fine/view: aten.view": the paths are left of the colons.
        paths = [part.split(":")[0].strip() for part in metadata.get("namespace", "").split("/")]
    paths = paths[:-1] or [node.name.rpartition("/")[0]]
    return tuple(part for path in paths for part in path.replace("/", ".").split(".") if part)


def _name_scopes(text: str) -> Iterator[str]:
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return
    if isinstance(scopes, list):
        yield from (scope for scope in scopes if isinstance(scope, str))


def fine_operators(graph: GraphView) -> list[Finding]:
    """FE17: the FINE block consists of pooling, matrix products and elementwise operators on static shapes.

    Source: the lowerings measured for this package: only these operators become few kernels and a fused attention;
    shape arithmetic, casts, gathers and masks split the block.
    Hint: export again with static shapes; check which module the named node came from.
    """
    found = []
    for node in graph.nodes:
        if node.op_type in _FINE_EXPECTED or "fine" not in module_path(node):
            continue
        if node.op_type in _FINE_FORBIDDEN:
            message = f"{node.op_type} inside FINE splits the block"
            hint = "export with static shapes and without masks"
            found.append(Finding("FE17", "error", label(node), message, hint))
        else:
            message = f"{node.op_type} inside FINE is not part of its fast form"
            hint = "compare the number of kernels: python -m fine_edge engine inspect FILE.onnx"
            found.append(Finding("FE17", "info", label(node), message, hint))
    return found
