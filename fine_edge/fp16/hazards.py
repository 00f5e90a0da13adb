"""Harm that FP16 does to the observed tensors of a graph, too large or too small for it, and inside operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

import numpy as np
from onnx import NodeProto

from fine_edge.fp16.observe import SMALLEST_NORMAL, Observation, TensorStats
from fine_edge.graph.half_range import HALF_MAX
from fine_edge.graph.view import GraphView, attribute_int, input_name, label, output_name

# A value within this factor of 65504 is reported: a few pictures do not show the largest value there is.
HEADROOM = 8.0

# A value within this factor of 65504 is kept in FP32, as if it overflowed.
KEPT_HEADROOM = 2.0

# The factor for results of Exp and Pow: an exponent larger by 4 makes the value 55 times larger.
EXP_HEADROOM = 64.0

# Relative error by subnormal values from which a tensor is reported: 16 times FP16's ordinary rounding.
NOTICEABLE_LOSS = 2.0**-8

HazardKind = Literal[
    "overflow",
    "edge of range",
    "zero division",
    "not finite",
    "accumulation",
    "inverse sigmoid",
    "box decode",
    "subnormal loss",
    "near overflow",
    "variance",
]
# All kinds, the worst first.
KINDS: tuple[HazardKind, ...] = get_args(HazardKind)


@dataclass(frozen=True)
class Hazard:
    """A tensor that FP16 would harm.

    Attributes:
        tensor: the name of the tensor.
        node: the node that computes it; for a constant, the first that reads it.
        max_abs: the largest finite magnitude observed.
        reason: what happens in FP16 and why.
        keep_fp32: whether the node is proposed to stay FP32.
        kind: the kind of harm.
        keep: names of the nodes that must be FP32 to avoid it; empty where FP32 does not help.
    """

    tensor: str
    node: str
    max_abs: float
    reason: str
    keep_fp32: bool
    kind: HazardKind
    keep: frozenset[str]

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {
            "tensor": self.tensor,
            "node": self.node,
            "max_abs": self.max_abs,
            "reason": self.reason,
            "keep_fp32": self.keep_fp32,
        }


@dataclass(frozen=True)
class Evidence:
    """The input of every rule.

    Attributes:
        view: the view of the graph.
        observation: the ranges of its tensors.
        box_output: name of the output with boxes; empty when there is none.
        pixels: the longer side of the input.
    """

    view: GraphView
    observation: Observation
    box_output: str = ""
    pixels: int = 0

    def stats(self, tensor: str) -> TensorStats:
        """Return the figures of a tensor; all are zero when it was not observed."""
        return self.observation.stats.get(tensor, TensorStats(tensor))

    def hazard(
        self,
        kind: HazardKind,
        tensor: str,
        nodes: list[NodeProto],
        reason: str,
        *,
        propose: bool = True,
        helps: bool = True,
    ) -> Hazard:
        """Return a hazard of the first of some nodes; all of them in FP32 avoid it, unless ``helps`` is false."""
        keep = frozenset(label(node) for node in nodes) if helps else frozenset()
        text = f"{kind}: {reason}"
        return Hazard(tensor, label(nodes[0]), self.stats(tensor).max_abs, text, propose and helps, kind, keep)

    def around(self, tensor: str) -> list[NodeProto]:
        """Return the node that computes a tensor and all that read it; the tensor is never cast if all are FP32."""
        producer = self.view.producer(tensor)
        made = [producer] if producer is not None and producer.op_type != "Constant" else []
        return made + self.view.consumers(tensor)


HazardRule = Callable[[Evidence], list[Hazard]]


def value_ranges(evidence: Evidence) -> list[Hazard]:
    """Find tensors beyond FP16's range, near its end, or with many values that FP16 rounds to zero."""
    found = []
    for name, stats in evidence.observation.stats.items():
        around = evidence.around(name)
        if around:
            found += _too_large(evidence, stats, around) or _too_small(evidence, stats, around)
            found += _not_finite(evidence, stats, around)
    return found


def _too_large(evidence: Evidence, stats: TensorStats, around: list[NodeProto]) -> list[Hazard]:
    growth = _growth(evidence.view, evidence.view.producer(stats.tensor))
    if stats.max_abs > HALF_MAX:
        reason = f"{stats.max_abs:.4g} becomes infinite beyond 65504{growth}"
        return [evidence.hazard("overflow", stats.tensor, around, reason)]
    headroom = EXP_HEADROOM if growth else HEADROOM
    if stats.max_abs <= HALF_MAX / headroom or _is_fixed(evidence, stats.tensor):
        return []
    reason = f"{HALF_MAX / stats.max_abs:.1f} times below 65504 on these pictures{growth}"
    if stats.max_abs > HALF_MAX / KEPT_HEADROOM:
        return [evidence.hazard("edge of range", stats.tensor, around, reason)]
    return [evidence.hazard("near overflow", stats.tensor, around, reason, propose=False)]


def _growth(view: GraphView, producer: NodeProto | None) -> str:
    """Return a remark on operators whose results grow faster than their arguments; an empty text for others."""
    if producer is None or producer.op_type not in ("Exp", "Pow"):
        return ""
    if producer.op_type == "Exp":
        readers = {reader.op_type for output in producer.output for reader in view.consumers(output)}
        is_softmax = {"ReduceSum", "Div"} <= readers
        kind = ", a softmax that does not subtract its maximum" if is_softmax else ""
        return f" (Exp{kind}: overflows from 11.1 on)"
    return " (Pow)"


def _is_fixed(evidence: Evidence, tensor: str) -> bool:
    """Return whether a tensor holds only values of constants, selected or moved: no picture makes them larger."""
    if evidence.view.is_constant(tensor):
        return True
    producer = evidence.view.producer(tensor)
    moves = producer is not None and producer.op_type in ("Gather", "GatherElements", "GatherND")
    return moves and producer is not None and evidence.view.is_constant(input_name(producer, 0))


def _too_small(evidence: Evidence, stats: TensorStats, around: list[NodeProto]) -> list[Hazard]:
    if stats.loss <= NOTICEABLE_LOSS or _is_epsilon(evidence, stats, around):
        return []
    share = (stats.subnormal + stats.vanishing) / stats.values
    reason = (
        f"{share:.0%} of the values are below 6.1e-5 ({stats.vanishing / stats.values:.0%} become zero),"
        f" an error of {stats.loss:.1%} where rounding makes 0.02%"
    )
    return [evidence.hazard("subnormal loss", stats.tensor, around, reason)]


def _is_epsilon(evidence: Evidence, stats: TensorStats, readers: list[NodeProto]) -> bool:
    """Return whether a tensor is a scalar constant, such as an epsilon, that is added to or limits larger values."""
    if stats.tensor not in evidence.observation.constants or stats.values != 1:
        return False
    results = [evidence.stats(output).smallest for reader in readers for output in reader.output]
    return all(r.op_type in ("Add", "Sub", "Max", "Clip") for r in readers) and min(results) >= SMALLEST_NORMAL


def _not_finite(evidence: Evidence, stats: TensorStats, around: list[NodeProto]) -> list[Hazard]:
    if not stats.non_finite:
        return []
    reason = f"{stats.non_finite} values are infinite or NaN in FP32 already, so keeping FP32 does not help"
    return [evidence.hazard("not finite", stats.tensor, around, reason, helps=False)]


def zero_divisions(evidence: Evidence) -> list[Hazard]:
    """Find divisors and arguments of logarithms that become zero in FP16."""
    arguments = {"Div": 1, "Reciprocal": 0, "Log": 0}
    found = []
    for node in evidence.view.nodes:
        name = input_name(node, arguments.get(node.op_type, 9))
        stats = evidence.stats(name)
        if not name or not stats.vanishing or name in evidence.observation.constants:
            continue
        producer = evidence.view.producer(name)
        nodes = [node] if producer is None else [node, producer]
        reason = f"{node.op_type} of values down to {stats.smallest:.1g}, which become zero in FP16"
        found.append(evidence.hazard("zero division", name, nodes, reason))
    return found


def found_in(evidence: Evidence, rules: Iterable[HazardRule]) -> list[Hazard]:
    """Return the hazards that the rules find, the worst first."""
    every = [hazard for rule in rules for hazard in rule(evidence)]
    return sorted(every, key=lambda h: (KINDS.index(h.kind), -h.max_abs, h.node, h.tensor))


def open_hazards(hazards: Collection[Hazard], kept: Collection[str]) -> list[Hazard]:
    """Return the hazards that remain when the nodes in ``kept`` stay FP32."""
    return [hazard for hazard in hazards if not hazard.keep or not hazard.keep <= set(kept)]


# Harm of FP16 inside operators whose tensors all fit: long sums, logits of scores, boxes in pixels.

# FP16's step in pixels from which boxes are reported; the error is half of it.
BOX_STEP_PX = 0.25

# The error of a logit from which an inverse sigmoid is reported.
LOGIT_ERROR = 0.1

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
