"""What FP16 would do to the observed tensors of a graph: too large, too small, or lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from onnx import NodeProto

from fine_edge.fp16.observe import SMALLEST_NORMAL, Observation, TensorStats
from fine_edge.graph.half_range import HALF_MAX
from fine_edge.graph.view import GraphView, input_name, label

HEADROOM = 8.0
"""A value within this factor of 65504 is named: a few pictures do not show the largest one there is."""

KEPT_HEADROOM = 2.0
"""A value within this factor of 65504 is kept in FP32, as if it overflowed."""

EXP_HEADROOM = 64.0
"""The same for Exp and Pow: four more in the exponent are a factor of 55."""

NOTICEABLE_LOSS = 2.0**-8
"""Share of a tensor's size that its subnormal values may lose: sixteen times what FP16 rounds anyway."""

Kind = Literal[
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
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The worst first."""


@dataclass(frozen=True)
class Hazard:
    """One tensor that FP16 would harm.

    Attributes:
        tensor: its name.
        node: what computes it; for a constant, what reads it first.
        max_abs: largest finite magnitude seen.
        reason: what happens in FP16 and why.
        keep_fp32: whether the node is proposed to stay FP32.
        kind: what kind of harm.
        keep: names of the nodes that must be FP32 to avert it; none where FP32 averts nothing.
    """

    tensor: str
    node: str
    max_abs: float
    reason: str
    keep_fp32: bool
    kind: Kind
    keep: frozenset[str]

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return {
            "tensor": self.tensor,
            "node": self.node,
            "max_abs": self.max_abs,
            "reason": self.reason,
            "keep_fp32": self.keep_fp32,
        }


@dataclass(frozen=True)
class Evidence:
    """What rules look at: the graph, what was seen in it, and where boxes come out."""

    view: GraphView
    seen: Observation
    box_output: str = ""
    pixels: int = 0

    def stats(self, tensor: str) -> TensorStats:
        """Figures of a tensor; all zero where it was not observed."""
        return self.seen.stats.get(tensor, TensorStats(tensor))

    def hazard(
        self, kind: Kind, tensor: str, nodes: list[NodeProto], reason: str, *, propose: bool = True, averts: bool = True
    ) -> Hazard:
        """A hazard of the first of some nodes, averted by keeping them all in FP32 unless ``averts`` is false."""
        keep = frozenset(label(node) for node in nodes) if averts else frozenset()
        text = f"{kind}: {reason}"
        return Hazard(tensor, label(nodes[0]), self.stats(tensor).max_abs, text, propose and averts, kind, keep)

    def around(self, tensor: str) -> list[NodeProto]:
        """What computes a tensor and all that read it: only if all are FP32 is it never cast."""
        producer = self.view.producer(tensor)
        made = [producer] if producer is not None and producer.op_type != "Constant" else []
        return made + self.view.consumers(tensor)


Rule = Callable[[Evidence], list[Hazard]]


def value_ranges(evidence: Evidence) -> list[Hazard]:
    """Tensors beyond FP16's range, near its end, or made of what it rounds away."""
    found = []
    for name, seen in evidence.seen.stats.items():
        around = evidence.around(name)
        if around:
            found += _too_large(evidence, seen, around) or _too_small(evidence, seen, around)
            found += _not_finite(evidence, seen, around)
    return found


def _too_large(evidence: Evidence, seen: TensorStats, around: list[NodeProto]) -> list[Hazard]:
    what = _growth(evidence.view, evidence.view.producer(seen.tensor))
    if seen.max_abs > HALF_MAX:
        reason = f"{seen.max_abs:.4g} becomes infinite beyond 65504{what}"
        return [evidence.hazard("overflow", seen.tensor, around, reason)]
    headroom = EXP_HEADROOM if what else HEADROOM
    if seen.max_abs <= HALF_MAX / headroom or _is_fixed(evidence, seen.tensor):
        return []
    reason = f"{HALF_MAX / seen.max_abs:.1f} times below 65504 on these pictures{what}"
    if seen.max_abs > HALF_MAX / KEPT_HEADROOM:
        return [evidence.hazard("edge of range", seen.tensor, around, reason)]
    return [evidence.hazard("near overflow", seen.tensor, around, reason, propose=False)]


def _growth(view: GraphView, producer: NodeProto | None) -> str:
    """What is said of operators whose results grow faster than their arguments; empty for others."""
    if producer is None or producer.op_type not in ("Exp", "Pow"):
        return ""
    if producer.op_type == "Exp":
        readers = {reader.op_type for output in producer.output for reader in view.consumers(output)}
        written_out = {"ReduceSum", "Div"} <= readers
        kind = ", a softmax that does not subtract its maximum" if written_out else ""
        return f" (Exp{kind}: overflows from 11.1 on)"
    return " (Pow)"


def _is_fixed(evidence: Evidence, tensor: str) -> bool:
    """Whether a tensor holds values of constants alone, picked or moved: no picture makes them larger."""
    if evidence.view.is_constant(tensor):
        return True
    producer = evidence.view.producer(tensor)
    moves = producer is not None and producer.op_type in ("Gather", "GatherElements", "GatherND")
    return moves and producer is not None and evidence.view.is_constant(input_name(producer, 0))


def _too_small(evidence: Evidence, seen: TensorStats, around: list[NodeProto]) -> list[Hazard]:
    if seen.loss <= NOTICEABLE_LOSS or _only_guards(evidence, seen, around):
        return []
    share = (seen.subnormal + seen.vanishing) / seen.values
    reason = (
        f"{share:.0%} of the values are below 6.1e-5 ({seen.vanishing / seen.values:.0%} become zero),"
        f" an error of {seen.loss:.1%} where rounding makes 0.02%"
    )
    return [evidence.hazard("subnormal loss", seen.tensor, around, reason)]


def _only_guards(evidence: Evidence, seen: TensorStats, readers: list[NodeProto]) -> bool:
    """Whether a tensor is a lone constant, such as an epsilon, whose sum or limit is never small."""
    if seen.tensor not in evidence.seen.constants or seen.values != 1:
        return False
    results = [evidence.stats(output).smallest for reader in readers for output in reader.output]
    return all(r.op_type in ("Add", "Sub", "Max", "Clip") for r in readers) and min(results) >= SMALLEST_NORMAL


def _not_finite(evidence: Evidence, seen: TensorStats, around: list[NodeProto]) -> list[Hazard]:
    if not seen.non_finite:
        return []
    reason = f"{seen.non_finite} values are infinite or NaN in FP32 already, so FP32 hints nothing"
    return [evidence.hazard("not finite", seen.tensor, around, reason, averts=False)]


def zero_divisions(evidence: Evidence) -> list[Hazard]:
    """Divisors and arguments of logarithms that become zero in FP16."""
    arguments = {"Div": 1, "Reciprocal": 0, "Log": 0}
    found = []
    for node in evidence.view.nodes:
        name = input_name(node, arguments.get(node.op_type, 9))
        seen = evidence.stats(name)
        if not name or not seen.vanishing or name in evidence.seen.constants:
            continue
        producer = evidence.view.producer(name)
        nodes = [node] if producer is None else [node, producer]
        reason = f"{node.op_type} of values down to {seen.smallest:.1g}, which become zero in FP16"
        found.append(evidence.hazard("zero division", name, nodes, reason))
    return found


def found_in(evidence: Evidence, rules: Iterable[Rule]) -> list[Hazard]:
    """Hazards of all rules, the worst first."""
    every = [hazard for rule in rules for hazard in rule(evidence)]
    return sorted(every, key=lambda h: (KINDS.index(h.kind), -h.max_abs, h.node, h.tensor))


def open_hazards(hazards: Collection[Hazard], kept: Collection[str]) -> list[Hazard]:
    """Those that nodes which stay FP32 anyway do not avert."""
    return [hazard for hazard in hazards if not hazard.keep or not hazard.keep <= set(kept)]
