"""Harm that FP16 does to the observed tensors of a graph: values too large or too small for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from onnx import NodeProto

from fine_edge.fp16.observe import SMALLEST_NORMAL, Observation, TensorStats
from fine_edge.graph.half_range import HALF_MAX
from fine_edge.graph.view import GraphView, input_name, label

HEADROOM = 8.0
"""A value within this factor of 65504 is reported: a few pictures do not show the largest value there is."""

KEPT_HEADROOM = 2.0
"""A value within this factor of 65504 is kept in FP32, as if it overflowed."""

EXP_HEADROOM = 64.0
"""The factor for results of Exp and Pow: an exponent larger by 4 makes the value 55 times larger."""

NOTICEABLE_LOSS = 2.0**-8
"""Relative error by subnormal values from which a tensor is reported: 16 times FP16's ordinary rounding."""

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
KINDS: tuple[HazardKind, ...] = get_args(HazardKind)
"""All kinds, the worst first."""


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
