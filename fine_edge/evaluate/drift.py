"""What another precision or backend changes: one detector, two artifacts, the same images.

AP alone hides it: two artifacts can find other things and score the same. So detections are paired too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.detections import Detections, Pairs, pair
from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import Found
from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.matching import by_image

CONFIDENCE = 0.3
"""Detections that score less are nobody's loss; they are noise that any rounding moves."""
MARGIN = 0.1
"""How far below the confidence a detection may stand on the other side and still be the same."""


@dataclass(frozen=True)
class ImageDrift:
    """One image. Of the detections of either side with enough confidence, those that both find, and those alone.

    Attributes:
        pairs: of what both find.
        lost: indices into the whole reference of what the other artifact does not find.
        new: indices into the other whole of what the reference does not find.
        kept: indices into the reference of what both find, and ``kept_other`` into the other.
    """

    image_id: int
    pairs: Pairs
    lost: NDArray[np.int64]
    new: NDArray[np.int64]
    kept: NDArray[np.int64]
    kept_other: NDArray[np.int64]

    @property
    def flipped(self) -> int:
        """Detections that one side has alone."""
        return len(self.lost) + len(self.new)

    @property
    def worst_box_px(self) -> float:
        """Largest difference of a coordinate over the pairs."""
        return float(self.pairs.distances_px.max(initial=0.0))


@dataclass(frozen=True)
class DetectionDrift:
    """The comparison, the reference being A, and what became of the detections, image by image."""

    comparison: Comparison
    images: tuple[ImageDrift, ...]

    @property
    def ap_drop(self) -> float | None:
        """AP of the reference less that of the other, points; ``None`` where there is nothing to find."""
        reference, other = self.comparison.figures("ap")
        return 100 * (reference - other) if min(reference, other) >= 0 else None

    @property
    def matched(self) -> int:
        """Detections that both find."""
        return sum(len(image.pairs.reference) for image in self.images)

    @property
    def flipped(self) -> int:
        """Detections that one side has alone."""
        return sum(image.flipped for image in self.images)

    @property
    def found_nothing(self) -> bool:
        """Whether neither has a detection of any score: two broken artifacts agree, and that says nothing."""
        return not len(self.comparison.a.found.scores) and not len(self.comparison.b.found.scores)

    @property
    def flipped_share(self) -> float:
        """Of all of them."""
        return self.flipped / max(1, 2 * self.matched + self.flipped)

    def quantiles(self, measure: str) -> tuple[float, float, float] | None:
        """Median, 99th percentile and largest of ``score_gaps`` or ``distances_px``; ``None`` without a pair."""
        values = np.concatenate([[], *(getattr(image.pairs, measure) for image in self.images)])
        if not values.size:
            return None
        middle, rare = np.quantile(values, [0.5, 0.99], method="inverted_cdf")
        return float(middle), float(rare), float(values.max())

    def to_json(self) -> dict[str, Any]:
        """As it is printed."""
        named = {"score": self.quantiles("score_gaps"), "box_px": self.quantiles("distances_px")}
        return {
            **self.comparison.to_json(),
            "drift": {
                "ap_drop": self.ap_drop,
                "confidence": CONFIDENCE,
                "matched": self.matched,
                "flipped": self.flipped,
                "flipped_share": self.flipped_share,
                **{
                    name: dict(zip(("median", "p99", "max"), values, strict=True)) if values else None
                    for name, values in named.items()
                },
            },
        }


def _detections(found: Found, rows: NDArray[np.int64]) -> Detections:
    boxes = found.boxes_xywh[rows]
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    return Detections(found.category_ids[rows], corners.astype(np.float32), found.scores[rows].astype(np.float32))


def _of_image(image_id: int, first: Found, a: NDArray[np.int64], second: Found, b: NDArray[np.int64]) -> ImageDrift:
    """Pair all that may count on either side; of what is alone, what counts is lost or new."""
    a = a[first.scores[a] >= CONFIDENCE - MARGIN]
    b = b[second.scores[b] >= CONFIDENCE - MARGIN]
    pairs = pair(_detections(first, a), _detections(second, b))
    # Pairs of two that score too little are of no interest.
    counts = np.maximum(first.scores[a[pairs.reference]], second.scores[b[pairs.candidate]]) >= CONFIDENCE
    pairs = Pairs(*(part[counts] for part in vars(pairs).values()))
    lost, new = np.delete(a, pairs.reference), np.delete(b, pairs.candidate)
    return ImageDrift(
        image_id,
        pairs,
        lost[first.scores[lost] >= CONFIDENCE],
        new[second.scores[new] >= CONFIDENCE],
        a[pairs.reference],
        b[pairs.candidate],
    )


def drift(comparison: Comparison) -> DetectionDrift:
    """Pair what two artifacts of one model found.

    Raises:
        DataError: when they are of two models, or neither finds anything that could have changed.
    """
    models = [side.evaluation.origin.model for side in (comparison.a, comparison.b)]
    if models[0] != models[1]:
        raise DataError(
            f"{models[0]} and {models[1]} are two models", hint="python -m fine_edge evaluate compare A.json B.json"
        )
    first, second = comparison.a.found, comparison.b.found
    rows_a, rows_b = dict(by_image(first.image_ids)), dict(by_image(second.image_ids))
    none = np.array([], dtype=np.int64)
    images = tuple(
        _of_image(image, first, rows_a.get(image, none), second, rows_b.get(image, none))
        for image in comparison.data.images
    )
    found = DetectionDrift(comparison, images)
    if not found.matched and not found.flipped:
        what = f"neither finds anything that scores {CONFIDENCE:g} or more: there is nothing to compare"
        raise DataError(what, where=comparison.data.path, hint="evaluate a model that finds what the data holds")
    return found
