"""All rules, and running them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from fine_edge.graph import rules_attention, rules_model, rules_operators, rules_weights
from fine_edge.graph.view import Finding, GraphView

Rule = Callable[[GraphView], list[Finding]]

# FE01 to FE19, in order.
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
    rules_operators.resize_mode,
    rules_operators.special_operators,
    rules_operators.foreign_domains,
    rules_attention.attention_fuses,
    rules_attention.fine_operators,
    rules_weights.finite_weights,
    rules_weights.fits_memory,
)

_ORDER = ("error", "warning", "info")


def check(model: onnx.ModelProto, path: Path | None = None) -> list[Finding]:
    """Findings of all rules, errors first, then in the order of the rules.

    Args:
        model: with its weights, or without those that other files hold.
        path: of its file, to find those.
    """
    return check_view(GraphView(model, path))


def check_view(graph: GraphView) -> list[Finding]:
    """As :func:`check`, for a graph that was looked at already."""
    findings = [finding for rule in RULES for finding in rule(graph)]
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))
