"""Harm of FP16 inside operators whose tensors all fit: long sums, logits of scores, boxes in pixels."""

from __future__ import annotations

import math
from math import prod

import numpy as np
from onnx import NodeProto

from fine_edge.fp16.hazards import KEPT_HEADROOM, Evidence, Hazard, HazardRule, value_ranges, zero_divisions
from fine_edge.graph.half_range import HALF_MAX
from fine_edge.graph.view import attribute_int, input_name, output_name

BOX_STEP_PX = 0.25
"""FP16's step in pixels from which boxes are reported; the error is half of it."""

LOGIT_ERROR = 0.1
"""The error of a logit from which an inverse sigmoid is reported."""

# The result of these reductions is smaller than the sum they compute first.
_REDUCTIONS = {"ReduceMean", "GlobalAveragePool", "ReduceL2"}
_SCORE_OPERATORS = {"Log", "Div", "Sub", "Neg", "Add", "Clip", "Min", "Max", "Sigmoid"}
_BOX_OPERATORS = {"Mul", "Add", "Sub", "Div", "MatMul", "Pow", "Clip", "Min", "Max"}
_BOX_MOVES = {"Concat", "Gather", "GatherElements", "GatherND", "Reshape", "Slice", "Split", "Squeeze"}
_BOX_MOVES |= {"Transpose", "Unsqueeze", "Expand", "Tile", "Where", "Identity"}


def reductions(evidence: Evidence) -> list[Hazard]:
    """Find means whose sum, computed before the division, is beyond 65504, as in a LayerNorm in pieces."""
    found = []
    for node in evidence.view.nodes:
        before, after = (evidence.view.shape(name) for name in (input_name(node, 0), output_name(node)))
        if node.op_type not in _REDUCTIONS or not before or after is None or None in before or None in after:
            continue
        terms = prod(d or 1 for d in before) // max(1, prod(d or 1 for d in after))
        stats = evidence.stats(output_name(node))
        squared = node.op_type == "ReduceL2"
        total = stats.max_abs**2 if squared else stats.max_abs * terms
        if total > HALF_MAX >= stats.max_abs:
            what = "squares" if squared else "values"
            reason = f"{node.op_type} adds {terms} {what} to an intermediate sum of {total:.4g}, beyond 65504"
            found.append(evidence.hazard("accumulation", stats.tensor, [node], reason))
    return found


def layer_norms(evidence: Evidence) -> list[Hazard]:
    """Find LayerNormalization whose sum of squares is beyond 65504 although input and output are within.

    TensorRT 10.7 computes INormalizationLayer in FP32 by default (its Python documentation of
    ``compute_precision``), so no node needs to be kept for it.
    """
    found = []
    for node in evidence.view.nodes:
        stats = evidence.stats(input_name(node, 0))
        if node.op_type == "LayerNormalization" and stats.row_squares > HALF_MAX >= stats.max_abs:
            total = f"{stats.row_squares:.4g}"
            reason = f"squares add up to {total}; TensorRT 10.7 adds them in FP32, other kernels may not"
            found.append(evidence.hazard("variance", stats.tensor, [node], reason, propose=False))
    return found


def long_products(evidence: Evidence) -> list[Hazard]:
    """Find MatMul, Gemm and Conv whose typical products, if all have one sign, add up beyond 65504."""
    found = []
    for node in evidence.view.nodes:
        terms = _terms(evidence, node)
        a, b = (evidence.stats(input_name(node, index)) for index in (0, 1))
        stats = evidence.stats(output_name(node))
        # Tensors beyond this limit are reported already.
        in_range = max(stats.max_abs, a.max_abs, b.max_abs) <= HALF_MAX / KEPT_HEADROOM
        if in_range and terms * a.rms * b.rms > HALF_MAX:
            reason = (
                f"the sum of {terms} products of size {a.rms:.3g} x {b.rms:.3g} can exceed 65504 (at most"
                f" {terms * a.max_abs * b.max_abs:.3g}) in kernels that add in FP16; the result reaches"
                f" {stats.max_abs:.4g}"
            )
            found.append(evidence.hazard("accumulation", stats.tensor, [node], reason))
    return found


def _terms(evidence: Evidence, node: NodeProto) -> int:
    """Return K, the number of products that one result adds; 0 for other operators and unknown shapes."""
    a, b = (evidence.view.shape(input_name(node, index)) for index in (0, 1))
    if node.op_type == "MatMul" and a:
        return a[-1] or 0
    if node.op_type == "Gemm" and a:
        return a[0 if attribute_int(node, "transA", 0) else -1] or 0
    if node.op_type == "Conv" and b and None not in b:
        return prod(d or 0 for d in b[1:])
    return 0


def inverse_sigmoids(evidence: Evidence) -> list[Hazard]:
    """Find log(x / (1 - x)) and log(x) - log(1 - x): near 1, FP16's step between two scores is 2^-11."""
    found = []
    for node in evidence.view.nodes:
        chain = _scores_above(evidence, node) if node.op_type == "Log" else []
        if not any(part.op_type == "Sub" for part in chain):
            continue
        stats = evidence.stats(output_name(node))
        # Rounding a score x by e changes its logit L by e / (x (1 - x)), and 1 - x is about exp(-L).
        error = 2.0**-12 * math.exp(min(stats.max_abs, 30.0))
        if error > LOGIT_ERROR:
            reason = (
                f"logits reach {stats.max_abs:.3g}, where FP16's step between scores near 1 is an error of {error:.2g}"
            )
            found.append(evidence.hazard("inverse sigmoid", stats.tensor, chain, reason))
    return found


def _scores_above(evidence: Evidence, node: NodeProto) -> list[NodeProto]:
    """Return a logarithm and the nodes that compute its argument, up to the sigmoid."""
    chain: list[NodeProto] = []
    pending = [node]
    while pending and len(chain) < 12:
        current = pending.pop(0)
        if any(current is part for part in chain) or current.op_type not in _SCORE_OPERATORS:
            continue
        chain.append(current)
        if current.op_type != "Sigmoid":
            producers = (evidence.view.producer(name) for name in current.input)
            pending += [producer for producer in producers if producer is not None]
    return chain


def box_decodes(evidence: Evidence) -> list[Hazard]:
    """Find boxes whose FP16 step is visible: 0.5 px from 512 px on, 0.3 px for boxes in [0, 1] of 640 px."""
    chain = _boxes_above(evidence)
    coarse = []
    for node in chain:
        stats = evidence.stats(output_name(node))
        scale = evidence.pixels if stats.max_abs <= 2 else 1
        step_px = float(np.spacing(np.float16(min(stats.max_abs, HALF_MAX)))) * scale
        if step_px >= BOX_STEP_PX and stats.max_abs <= HALF_MAX:
            coarse.append((step_px, node))
    if not coarse:
        return []
    step_px, node = max(coarse, key=lambda pair: pair[0])
    chain.sort(key=lambda part: part is not node)  # the hazard is named after the node with the largest step
    reason = f"FP16 places boxes in steps of {step_px:.2g} px, an error of up to {step_px / 2:.2g} px"
    return [evidence.hazard("box decode", output_name(node), chain, reason)]


def _boxes_above(evidence: Evidence) -> list[NodeProto]:
    """Return the arithmetic nodes between the network's last layers (Sigmoid or Exp) and the box output."""
    start = evidence.view.producer(evidence.box_output)
    chain: list[NodeProto] = []
    pending = [start] if start is not None else []
    while pending and len(chain) < 64:
        node = pending.pop(0)
        if any(node is part for part in chain):
            continue
        # A product of more than four terms is a layer of the network, not arithmetic on boxes.
        if node.op_type not in _BOX_OPERATORS | _BOX_MOVES | {"Sigmoid", "Exp"} or _terms(evidence, node) > 4:
            continue
        chain.append(node)
        if node.op_type not in ("Sigmoid", "Exp"):
            producers = (evidence.view.producer(name) for name in node.input if not evidence.view.is_constant(name))
            pending += [p for p in producers if p is not None and evidence.stats(output_name(p)).values]
    return chain


RULES: tuple[HazardRule, ...] = (
    value_ranges,
    zero_divisions,
    reductions,
    layer_norms,
    long_products,
    inverse_sigmoids,
    box_decodes,
)
