"""Operators that lose in FP16 although every tensor fits: long sums, logits of scores, boxes in pixels."""

from __future__ import annotations

import math
from math import prod

import numpy as np
from onnx import NodeProto

from fine_edge.fp16.hazards import KEPT_HEADROOM, Evidence, Hazard, Rule, value_ranges, zero_divisions
from fine_edge.graph.half_range import HALF_MAX
from fine_edge.graph.view import attribute_int, input_name, output_name

BOX_STEP_PX = 0.25
"""FP16's step, in pixels, from which boxes are named: half of it is the error."""

LOGIT_ERROR = 0.1
"""Error of a logit from which an inverse sigmoid is named."""

# Reductions whose result is smaller than the sum they take.
_REDUCTIONS = {"ReduceMean", "GlobalAveragePool", "ReduceL2"}
_SCORE_OPERATORS = {"Log", "Div", "Sub", "Neg", "Add", "Clip", "Min", "Max", "Sigmoid"}
_BOX_OPERATORS = {"Mul", "Add", "Sub", "Div", "MatMul", "Pow", "Clip", "Min", "Max"}
_BOX_MOVES = {"Concat", "Gather", "GatherElements", "GatherND", "Reshape", "Slice", "Split", "Squeeze"}
_BOX_MOVES |= {"Transpose", "Unsqueeze", "Expand", "Tile", "Where", "Identity"}


def reductions(evidence: Evidence) -> list[Hazard]:
    """Means whose sum, taken before the division, is beyond 65504: squares of a LayerNorm in pieces above all."""
    found = []
    for node in evidence.view.nodes:
        before, after = (evidence.view.shape(name) for name in (input_name(node, 0), output_name(node)))
        if node.op_type not in _REDUCTIONS or not before or after is None or None in before or None in after:
            continue
        terms = prod(d or 1 for d in before) // max(1, prod(d or 1 for d in after))
        seen = evidence.stats(output_name(node))
        squared = node.op_type == "ReduceL2"
        total = seen.max_abs**2 if squared else seen.max_abs * terms
        if total > HALF_MAX >= seen.max_abs:
            what = "squares" if squared else "values"
            reason = f"{node.op_type} adds {terms} {what} to {total:.4g} on the way, beyond 65504"
            found.append(evidence.hazard("accumulation", seen.tensor, [node], reason))
    return found


def layer_norms(evidence: Evidence) -> list[Hazard]:
    """LayerNormalization whose sum of squares is beyond 65504, although input and output are within.

    TensorRT 10.7 computes INormalizationLayer in FP32 unless told otherwise (its Python documentation of
    ``compute_precision``), so nothing needs to be kept for it.
    """
    found = []
    for node in evidence.view.nodes:
        seen = evidence.stats(input_name(node, 0))
        if node.op_type == "LayerNormalization" and seen.row_squares > HALF_MAX >= seen.max_abs:
            reason = f"squares add up to {seen.row_squares:.4g}; TensorRT 10.7 adds them in FP32, other kernels may not"
            found.append(evidence.hazard("variance", seen.tensor, [node], reason, propose=False))
    return found


def long_products(evidence: Evidence) -> list[Hazard]:
    """MatMul, Gemm and Conv whose typical products, all of one sign, add up beyond 65504."""
    found = []
    for node in evidence.view.nodes:
        terms = _terms(evidence, node)
        a, b = (evidence.stats(input_name(node, index)) for index in (0, 1))
        seen = evidence.stats(output_name(node))
        in_range = max(seen.max_abs, a.max_abs, b.max_abs) <= HALF_MAX / KEPT_HEADROOM  # else it is named already
        if in_range and terms * a.rms * b.rms > HALF_MAX:
            reason = (
                f"{terms} products of {a.rms:.3g} x {b.rms:.3g} in size can pass 65504 on the way (bound"
                f" {terms * a.max_abs * b.max_abs:.3g}) in kernels that add in FP16; the result reaches"
                f" {seen.max_abs:.4g}"
            )
            found.append(evidence.hazard("accumulation", seen.tensor, [node], reason))
    return found


def _terms(evidence: Evidence, node: NodeProto) -> int:
    """K: how many products one result adds; 0 for other operators and unknown shapes."""
    a, b = (evidence.view.shape(input_name(node, index)) for index in (0, 1))
    if node.op_type == "MatMul" and a:
        return a[-1] or 0
    if node.op_type == "Gemm" and a:
        return a[0 if attribute_int(node, "transA", 0) else -1] or 0
    if node.op_type == "Conv" and b and None not in b:
        return prod(d or 0 for d in b[1:])
    return 0


def inverse_sigmoids(evidence: Evidence) -> list[Hazard]:
    """Logarithms of x / (1 - x), or of x less that of 1 - x: near 1, FP16 has 2^-11 between two scores."""
    found = []
    for node in evidence.view.nodes:
        chain = _scores_above(evidence, node) if node.op_type == "Log" else []
        if not any(part.op_type == "Sub" for part in chain):
            continue
        seen = evidence.stats(output_name(node))
        # A score at logit L moves it by step / (x (1 - x)), and 1 - x is about exp(-L).
        error = 2.0**-12 * math.exp(min(seen.max_abs, 30.0))
        if error > LOGIT_ERROR:
            reason = (
                f"up to logit {seen.max_abs:.3g}, where FP16's step between scores next to 1 is an error of {error:.2g}"
            )
            found.append(evidence.hazard("inverse sigmoid", seen.tensor, chain, reason))
    return found


def _scores_above(evidence: Evidence, node: NodeProto) -> list[NodeProto]:
    """A logarithm and what its argument is made of: limits, 1 - x, the division, up to the sigmoid."""
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
    """Boxes computed in steps of FP16: 0.5 px from 512 px on, 0.3 px when they are shares of 640 px."""
    chain = _boxes_above(evidence)
    coarse = []
    for node in chain:
        seen = evidence.stats(output_name(node))
        scale = evidence.pixels if seen.max_abs <= 2 else 1
        step_px = float(np.spacing(np.float16(min(seen.max_abs, HALF_MAX)))) * scale
        if step_px >= BOX_STEP_PX and seen.max_abs <= HALF_MAX:
            coarse.append((step_px, node))
    if not coarse:
        return []
    step_px, node = max(coarse, key=lambda pair: pair[0])
    chain.sort(key=lambda part: part is not node)  # the coarsest gives the hazard its name
    reason = f"FP16 places boxes in steps of {step_px:.2g} px, an error of up to {step_px / 2:.2g} px"
    return [evidence.hazard("box decode", output_name(node), chain, reason)]


def _boxes_above(evidence: Evidence) -> list[NodeProto]:
    """Arithmetic from the box output back to where boxes leave the network's last layers: Sigmoid or Exp."""
    start = evidence.view.producer(evidence.box_output)
    chain: list[NodeProto] = []
    pending = [start] if start is not None else []
    while pending and len(chain) < 64:
        node = pending.pop(0)
        if any(node is part for part in chain):
            continue
        # A product of more than four terms is a layer of the network.
        if node.op_type not in _BOX_OPERATORS | _BOX_MOVES | {"Sigmoid", "Exp"} or _terms(evidence, node) > 4:
            continue
        chain.append(node)
        if node.op_type not in ("Sigmoid", "Exp"):
            producers = (evidence.view.producer(name) for name in node.input if not evidence.view.is_constant(name))
            pending += [p for p in producers if p is not None and evidence.stats(output_name(p)).values]
    return chain


RULES: tuple[Rule, ...] = (
    value_ranges,
    zero_divisions,
    reductions,
    layer_norms,
    long_products,
    inverse_sigmoids,
    box_decodes,
)
