"""The list of all rules, and the checks that a graph must pass before it is run or compiled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import inliner

from fine_edge.errors import ArtifactError
from fine_edge.graph import rules_attention, rules_model, rules_operators, rules_parser
from fine_edge.graph.model_file import read_model
from fine_edge.graph.runaway import expansion, runaway
from fine_edge.graph.view import Finding, GraphView, without_weights

Rule = Callable[[GraphView], list[Finding]]

# FE01 to FE24, in order; docs/COMMANDS.md lists them.
RULES: tuple[Rule, ...] = (
    rules_model.valid_onnx,
    rules_model.opset_range,
    rules_model.split_layer_norm,
    rules_model.static_shapes,
    rules_model.supported_types,
    rules_model.weights_inside,
    rules_model.half_range,
    rules_operators.gridsample_mode,
    rules_operators.gridsample_rank,
    rules_operators.scatter_nd,
    rules_operators.topk_size,
    rules_operators.constant_axes,
    rules_parser.resize_mode,
    rules_operators.special_operators,
    rules_operators.foreign_domains,
    rules_attention.attention_fuses,
    rules_attention.fine_operators,
    rules_model.finite_weights,
    rules_model.fits_memory,
    rules_parser.known_operators,
    rules_parser.operator_types,
    rules_parser.operator_limits,
    rules_parser.dimensions,
    rules_parser.quantization,
)

# FE08 to FE15 and FE20 to FE24 look into functions, as the parser does.
_OF_THE_PARSER = frozenset((*RULES[7:15], *RULES[19:]))
_ORDER = ("error", "warning", "info")


def check(model: onnx.ModelProto, path: Path | None = None) -> list[Finding]:
    """Return the findings of all rules, errors first, then in the order of the rules.

    Args:
        model: the graph, with its weights or without those that other files hold.
        path: its file; weights in other files are read from beside it.
    """
    return check_view(GraphView(model, path))


def check_view(graph: GraphView) -> list[Finding]:
    """Return the findings of all rules, as :func:`check` does, for a view that exists already."""
    parsed = _written_out(graph)
    findings = [finding for rule in RULES for finding in rule(parsed if rule in _OF_THE_PARSER else graph)]
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))


def _written_out(graph: GraphView) -> GraphView:
    """Return a view with the functions of the model in place of their calls, as TensorRT's parser imports them.

    Functions that cannot be inlined stay: FE01 and FE19 say why.
    """
    if not graph.model.functions or expansion(graph.model):
        return graph
    try:
        return GraphView(inliner.inline_local_functions(without_weights(graph.model)), graph.path)
    except (onnx.checker.ValidationError, ValueError, RuntimeError, TypeError):
        return graph


def read_vetted(path: Path) -> GraphView:
    """Read a model that may be given to a runtime or compiler; weights that other files hold are not loaded.

    Raises:
        ArtifactError: for the reasons of :func:`fine_edge.graph.model_file.read_model` and of :func:`vet`.
    """
    view = GraphView(read_model(path, weights=False), path)
    vet(view, path)
    return view


def vet(view: GraphView, path: Path) -> None:
    """Refuse a graph that may not end, may not fit into memory, or has weights that are not finite.

    Raises:
        ArtifactError: names the node or tensor.
    """
    if reason := runaway(view):
        hint = "export it with fixed shapes and unrolled loops; do not use a file from an untrusted source"
        raise ArtifactError(reason, where=path, hint=hint)
    for finding in rules_model.finite_weights(view):
        raise ArtifactError(f"{finding.message} ({finding.rule})", where=path, hint=finding.hint)
