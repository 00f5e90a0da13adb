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
from fine_edge.evaluate.coco_data import Found, Kind
from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.masks import overlap
from fine_edge.evaluate.matching import by_image
from fine_edge.evaluate.sides import require_one_model

# Lowest score of a detection whose loss counts; below it any rounding moves detections.
CONFIDENCE = 0.3
# How far below the confidence the other side's detection may score and still be paired.
MARGIN = 0.1


@dataclass(frozen=True)
class ImageDrift:
    """The paired and unpaired detections of one image; at least one of each pair has enough confidence.

    Attributes:
        pairs: detections that both artifacts find.
        lost: indices into all detections of the reference that the other artifact does not find.
        new: indices into all detections of the other artifact that the reference does not find.
        kept: indices into the reference's detections that both find; ``kept_other`` are their partners.
        mask_gaps: 1 - IoU of the masks of each pair; empty where masks are not compared.
    """

    image_id: int
    pairs: Pairs
    lost: NDArray[np.int64]
    new: NDArray[np.int64]
    kept: NDArray[np.int64]
    kept_other: NDArray[np.int64]
    mask_gaps: NDArray[np.float64]

    @property
    def flipped(self) -> int:
        """Return the number of detections that only one side has."""
        return len(self.lost) + len(self.new)

    @property
    def worst_box_px(self) -> float:
        """Return the largest difference of a coordinate over the pairs."""
        return float(self.pairs.distances_px.max(initial=0.0))

    @property
    def worst_mask_gap(self) -> float:
        """Return the largest 1 - IoU of the masks of a pair; 0 where masks are not compared."""
        return float(self.mask_gaps.max(initial=0.0))


@dataclass(frozen=True)
class DetectionDrift:
    """A comparison whose reference is A, with the pairing of the detections of each image."""

    comparison: Comparison
    images: tuple[ImageDrift, ...]

    @property
    def ap_drop(self) -> float | None:
        """Return AP of the reference minus AP of the other, in points; ``None`` where one of :attr:`drops` is.

        Where masks are compared too, it is the larger one of the drops by boxes and by masks.
        """
        drops = [drop for drop in self.drops.values() if drop is not None]
        return max(drops) if len(drops) == len(self.drops) else None

    @property
    def drops(self) -> dict[Kind, float | None]:
        """Return the drop of AP by boxes, and by masks where they are compared.

        It is ``None`` where AP is undefined, or zero in the reference: from nothing nothing drops.
        """
        figures = {kind: self.comparison.figures("ap", kind) for kind in self.comparison.kinds}
        return {kind: 100 * (one - other) if one > 0 <= other else None for kind, (one, other) in figures.items()}

    @property
    def matched(self) -> int:
        """Return the number of detections that both sides find."""
        return sum(len(image.pairs.reference) for image in self.images)

    @property
    def flipped(self) -> int:
        """Return the number of detections that only one side has."""
        return sum(image.flipped for image in self.images)

    @property
    def flipped_share(self) -> float:
        """Return the share of all detections that only one side has."""
        return self.flipped / max(1, 2 * self.matched + self.flipped)

    def quantiles(self, measure: str) -> tuple[float, float, float] | None:
        """Return median, 99th percentile and maximum of one measure of all pairs; ``None`` without pairs.

        Args:
            measure: ``score_gaps``, ``distances_px`` or ``mask_gaps``.
        """
        of = [image if measure == "mask_gaps" else image.pairs for image in self.images]
        values = np.concatenate([[], *(getattr(one, measure) for one in of)])
        if not values.size:
            return None
        middle, rare = np.quantile(values, [0.5, 0.99], method="inverted_cdf")
        return float(middle), float(rare), float(values.max())

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        measures = {"score": "score_gaps", "box_px": "distances_px", "mask": "mask_gaps"}
        named = {name: self.quantiles(measure) for name, measure in measures.items()}
        return {
            **self.comparison.to_json(),
            "drift": {
                "ap_drop": self.ap_drop,
                "ap_drops": {"boxes" if kind == "bbox" else "masks": drop for kind, drop in self.drops.items()},
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


def _mask_gaps(first: Found, a: NDArray[np.int64], second: Found, b: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return 1 - IoU of the masks of detections that are pairs."""
    if first.masks is None or second.masks is None:
        return np.array([])
    pairs = zip(first.masks[a].tolist(), second.masks[b].tolist(), strict=True)
    return np.array([1 - overlap(one, other) for one, other in pairs])


def _of_image(
    image_id: int,
    first: Found,
    a: NDArray[np.int64],
    second: Found,
    b: NDArray[np.int64],
    *,
    with_masks: bool,
) -> ImageDrift:
    """Pair the detections of one image; an unpaired one with enough confidence is lost or new."""
    a = a[first.scores[a] >= CONFIDENCE - MARGIN]
    b = b[second.scores[b] >= CONFIDENCE - MARGIN]
    pairs = pair(_detections(first, a), _detections(second, b))
    # A pair in which both score below the confidence is noise.
    counts = np.maximum(first.scores[a[pairs.reference]], second.scores[b[pairs.candidate]]) >= CONFIDENCE
    pairs = Pairs(*(part[counts] for part in vars(pairs).values()))
    lost, new = np.delete(a, pairs.reference), np.delete(b, pairs.candidate)
    kept, kept_other = a[pairs.reference], b[pairs.candidate]
    return ImageDrift(
        image_id,
        pairs,
        lost[first.scores[lost] >= CONFIDENCE],
        new[second.scores[new] >= CONFIDENCE],
        kept,
        kept_other,
        _mask_gaps(first, kept, second, kept_other) if with_masks else np.array([]),
    )


def _require_masks_compared(comparison: Comparison) -> None:
    """Refuse masks that one side lacks or that cannot be used: boxes alone would pass for both."""
    first, second = comparison.a.found, comparison.b.found
    if len(first) and len(second) and (first.masks is None) != (second.masks is None):
        without = "the reference" if first.masks is None else "the other artifact"
        raise DataError(f"{without} has no masks", hint="evaluate both artifacts with masks, or both without")
    labelled = comparison.data.truth.masks is not None
    if labelled and "segm" not in comparison.kinds and not (first.masks is None and second.masks is None):
        where = comparison.data.path
        raise DataError("the masks cannot be compared", where=where, hint="correct what the warning names")


def drift(comparison: Comparison) -> DetectionDrift:
    """Pair what two artifacts of one model found.

    Raises:
        DataError: when they are of two models, masks of one side are missing or broken, or neither finds anything with
            enough confidence.
    """
    require_one_model(comparison.a.evaluation.origin, comparison.b.evaluation.origin)
    first, second = comparison.a.found, comparison.b.found
    _require_masks_compared(comparison)
    rows_a, rows_b = dict(by_image(first.image_ids)), dict(by_image(second.image_ids))
    none = np.array([], dtype=np.int64)
    images = tuple(
        _of_image(
            image,
            first,
            rows_a.get(image, none),
            second,
            rows_b.get(image, none),
            with_masks="segm" in comparison.kinds,
        )
        for image in comparison.data.images
    )
    found = DetectionDrift(comparison, images)
    if not found.matched and not found.flipped:
        what = f"neither artifact has a detection with a score of {CONFIDENCE:g} or more"
        raise DataError(what, where=comparison.data.path, hint="evaluate a model that finds what the data holds")
    return found
