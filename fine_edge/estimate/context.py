"""Estimate the device memory of an execution context of TensorRT 10.7 from what the compiler here plans.

TensorRT 10.7 gives a graph whose branches run side by side, such as RT-DETR's decoder, one large block of scratch and
streams of their own; the compiler here does not. Logs that others published, in MiB, beside activations planned here:
RT-DETR R18 64.2 (29.6), with FINE 66.2 (29.6), linear 68.9 (32.4), R50 109.0 (46.3), FP32 135.6 (54.7), 139.5 (54.7),
140.3 (59.6); YOLOv5-S 16.4 (17.2), with FINE 17.2 (17.2), YOLOv6-S with FINE 12.5 (17.2), YOLOv8-S 17.0 (17.2).
"""

from __future__ import annotations

from dataclasses import dataclass

from fine_edge.estimate.engine import EngineWork
from fine_edge.machine import MIB

# Context over planned activations: likely, least, most of the logs above.
_WITH_DECODER = (2.28, 2.1, 2.6)
_PLAIN = (0.97, 0.7, 1.05)
# Scores that are not fused are held before and after the softmax.
_COPIES_OF_SCORES = 2


@dataclass(frozen=True)
class ContextMemory:
    """Memory in MiB, and the bounds that other networks' logs give it."""

    likely: float
    low: float
    high: float


def context_mib(engine: EngineWork) -> ContextMemory:
    """Return the memory of an execution context, which trtexec prints as it creates it."""
    decoder = any(work.gathered_bytes for work in engine.works)
    scores_mib = _COPIES_OF_SCORES * max((work.scores_bytes for work in engine.works), default=0) / MIB
    factors = _WITH_DECODER if decoder else _PLAIN
    return ContextMemory(*(factor * engine.activation_mib + scores_mib for factor in factors))
