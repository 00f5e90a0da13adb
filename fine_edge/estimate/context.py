"""Estimate the device memory of an execution context of TensorRT 10.7 from activations that are needed at one moment.

TensorRT 10.7 gives a graph whose branches run side by side, such as RT-DETR's decoder, one large block of scratch and
streams of their own. What the compiler here plans is no measure of that: it has streams of its own where 10.7 has none.
Logs that others published, in MiB, beside what is needed at one moment: RT-DETR R18 64.2 (21.8), with FINE 66.2 (21.8),
linear 68.9 (21.8), R50 109.0 (34.1), FP32 135.6, 139.5 and 140.3 (43.6); YOLOv5-S 16.4 (9.4), with FINE 17.2 (9.4),
YOLOv6-S with FINE 12.5 (9.4), YOLOv8-S 17.0 (10.9), YOLO11n in FP32 18.8 (10.9), MobileNetV2 3.3 (2.9).
"""

from __future__ import annotations

from dataclasses import dataclass

from fine_edge.estimate.engine import EngineWork
from fine_edge.machine import MIB

# What the logs have beyond the activations of one moment, over these: likely, least, most.
_WITH_DECODER = (2.1, 1.9, 2.3)
_PLAIN = (0.65, 0.15, 0.9)
# The extra block was of at most 100 MiB; dense attention in FP32 needs much at one moment and no more of it.
_MOST_EXTENDED_MIB = 48.0
# A decoder that samples maps is known by how much a kernel reads at computed indices: 7 MiB in a layer of RT-DETR, and
# 2.4 where a YOLO selects its boxes.
_LEAST_SAMPLED_MIB = 4.0
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
    decoder = any(work.gathered_bytes >= _LEAST_SAMPLED_MIB * MIB for work in engine.works)
    scores_mib = _COPIES_OF_SCORES * max((work.scores_bytes for work in engine.works), default=0) / MIB
    extended = min(engine.live_mib, _MOST_EXTENDED_MIB)
    factors = _WITH_DECODER if decoder else _PLAIN
    return ContextMemory(*(engine.live_mib + factor * extended + scores_mib for factor in factors))
