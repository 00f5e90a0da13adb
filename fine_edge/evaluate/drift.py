"""Measure what another precision or backend changes: one detector, two artifacts, the same images.

AP alone can hide a change: two artifacts can find different objects and score the same. So detections are paired too.
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
"""Lowest score of a detection whose loss counts; below it any rounding moves detections."""
MARGIN = 0.1
"""How far below the confidence the other side's detection may score and still be paired."""


@dataclass(frozen=True)
class ImageDrift:
    """The paired and unpaired detections of one image; at least one of each pair has enough confidence.

    Attributes:
        pairs: detections that both artifacts find.
        lost: indices into all detections of the reference that the other artifact does not find.
        new: indices into all detections of the other artifact that the reference does not find.
        kept: indices into the reference's detections that both find; ``kept_other`` are their partners.
    """

    image_id: int
    pairs: Pairs
    lost: NDArray[np.int64]
    new: NDArray[np.int64]
    kept: NDArray[np.int64]
    kept_other: NDArray[np.int64]

    @property
    def flipped(self) -> int:
        """Return the number of detections that only one side has."""
        return len(self.lost) + len(self.new)

    @property
    def worst_box_px(self) -> float:
        """Return the largest difference of a coordinate over the pairs."""
        return float(self.pairs.distances_px.max(initial=0.0))


@dataclass(frozen=True)
class DetectionDrift:
    """A comparison whose reference is A, with the pairing of the detections of each image."""

    comparison: Comparison
    images: tuple[ImageDrift, ...]

    @property
    def ap_drop(self) -> float | None:
        """Return AP of the reference minus AP of the other, in points; ``None`` where AP is undefined."""
        reference, other = self.comparison.figures("ap")
        return 100 * (reference - other) if min(reference, other) >= 0 else None

    @property
    def matched(self) -> int:
        """Return the number of detections that both sides find."""
        return sum(len(image.pairs.reference) for image in self.images)

    @property
    def flipped(self) -> int:
        """Return the number of detections that only one side has."""
        return sum(image.flipped for image in self.images)

    @property
    def found_nothing(self) -> bool:
        """Return whether neither side has any detection: two broken artifacts agree, which proves nothing."""
        return not len(self.comparison.a.found.scores) and not len(self.comparison.b.found.scores)

    @property
    def flipped_share(self) -> float:
        """Return the share of all detections that only one side has."""
        return self.flipped / max(1, 2 * self.matched + self.flipped)

    def quantiles(self, measure: str) -> tuple[float, float, float] | None:
        """Return median, 99th percentile and maximum of ``score_gaps`` or ``distances_px``; ``None`` without pairs."""
        values = np.concatenate([[], *(getattr(image.pairs, measure) for image in self.images)])
        if not values.size:
            return None
        middle, rare = np.quantile(values, [0.5, 0.99], method="inverted_cdf")
        return float(middle), float(rare), float(values.max())

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
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
    """Pair the detections of one image; an unpaired one with enough confidence is lost or new."""
    a = a[first.scores[a] >= CONFIDENCE - MARGIN]
    b = b[second.scores[b] >= CONFIDENCE - MARGIN]
    pairs = pair(_detections(first, a), _detections(second, b))
    # A pair in which both score below the confidence is noise.
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
        DataError: when they are of two models, or neither finds anything with enough confidence.
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
        what = f"neither artifact has a detection with a score of {CONFIDENCE:g} or more"
        raise DataError(what, where=comparison.data.path, hint="evaluate a model that finds what the data holds")
    return found
