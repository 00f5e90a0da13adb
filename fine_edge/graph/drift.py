"""How far detections move when a graph is rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.detections import Detections, agree, iou
from fine_edge.parity.tolerance import Tolerance

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """Detections of several pictures against their reference.

    Attributes:
        matched: pairs of the same class that overlap and score alike.
        flipped: detections of either side without a partner although they score clearly above the cut-off.
        flipped_share: the same as a share of both sides' detections.
        box_px: median, nine tenths and largest difference of a box coordinate over the pairs; ``None`` without pairs.
        score: the same of their scores.
    """

    matched: int
    flipped: int
    flipped_share: float
    box_px: tuple[float, float, float] | None
    score: tuple[float, float, float] | None

    def within(self, tolerance: Tolerance) -> bool:
        """Whether there are any, few enough are lost, and nine tenths of the others within reach of where they were."""
        if self.box_px is None or self.score is None:  # nothing in common, or nothing at all: that proves nothing
            return False
        return (
            self.flipped_share <= tolerance.flipped
            and self.box_px[1] <= tolerance.box_px
            and self.score[1] <= tolerance.score
        )

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        names = ("median", "p90", "max")
        spread = {key: dict(zip(names, getattr(self, key) or (None,) * 3, strict=True)) for key in ("box_px", "score")}
        return asdict(self) | spread


def drift(reference: Sequence[Detections], candidate: Sequence[Detections], tolerance: Tolerance) -> Drift:
    """Compare detections picture by picture, as :func:`fine_edge.detections.agree` pairs them."""
    agreements = [agree(a, b, score_tolerance=tolerance.score) for a, b in zip(reference, candidate, strict=True)]
    matched, flipped, ties = (sum(getattr(a, key) for a in agreements) for key in ("matched", "flipped", "ties"))
    pairs = [_differences(a, b) for a, b in zip(reference, candidate, strict=True)]
    boxes, scores = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    return Drift(matched, flipped, flipped / max(1, 2 * matched + flipped + ties), _spread(boxes), _spread(scores))


def _differences(reference: Detections, candidate: Detections) -> tuple[Doubles, Doubles]:
    """Box and score differences of the pairs of one picture: the assignment of ``agree``, pair by pair."""
    from scipy.optimize import linear_sum_assignment

    if not len(reference) or not len(candidate):
        return np.empty(0), np.empty(0)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(reference.boxes_xyxy_px[:, None] - candidate.boxes_xyxy_px[None]).max(axis=2)  # (N, M) px
        near = (iou(reference.boxes_xyxy_px, candidate.boxes_xyxy_px) >= 0.5) | (distance <= 0.5)
        score_gap = np.abs(reference.scores[:, None] - candidate.scores[None])
    same_class = reference.labels[:, None] == candidate.labels[None]
    allowed = same_class & near & np.isfinite(distance) & np.isfinite(score_gap)
    rows, columns = linear_sum_assignment(np.where(allowed, np.minimum(distance, 1e4) / 1e4 + score_gap, 1e3))
    paired = allowed[rows, columns]
    rows, columns = rows[paired], columns[paired]
    return distance[rows, columns].astype(np.float64), score_gap[rows, columns].astype(np.float64)


def _spread(values: Doubles) -> tuple[float, float, float] | None:
    if not values.size:
        return None
    median, nine_tenths, largest = np.quantile(values, (0.5, 0.9, 1.0))
    return float(median), float(nine_tenths), float(largest)
