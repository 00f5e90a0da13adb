"""Match detections with objects and name the error of each wrong detection, as in the paper's Table 5.

Detections of one image and category are taken best first. Each takes the object of its category that it overlaps most
among those not yet taken, if the IoU is 0.5 or more. A detection that takes none but lies in a crowd region of its
category is left out, as in COCO. A wrong detection gets the first of these names that applies:

    duplicate        overlaps an object of its category that a better one has taken, by 0.5 or more
    class confusion  overlaps an object of another category by 0.5 or more
    localisation     overlaps an object of its category by 0.1 or more
    background       anything else

Boxes or masks overlap. The four kinds are those of Bolya et al., "TIDE", 2020, with its "both" (wrong place and class)
under background.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.evaluate import masks
from fine_edge.evaluate.coco_data import CocoData, Doubles, Found, Ints, Kind, Truth

IOU = 0.5
CONFIDENCE = 0.5
NEAR = 0.1

TRUE_POSITIVE, DUPLICATE, CLASS_CONFUSION, LOCALISATION, BACKGROUND, LEFT_OUT = range(6)
# Names of the kinds of detections, by number.
KINDS = ("true_positive", "duplicate", "class_confusion", "localisation", "background", "left_out")


@dataclass(frozen=True)
class Verdicts:
    """The verdict on each detection and object of a data set.

    Attributes:
        found: the detections with enough confidence, in the order of the input.
        kinds: (N,) the kind of each detection, an index into :data:`KINDS`.
        missed: indices of the labelled objects that no detection took; crowd regions are not among them.
    """

    found: Found
    kinds: NDArray[np.int8]
    missed: NDArray[np.int64]


def overlaps(boxes: Doubles, objects: Doubles, crowd: NDArray[np.bool_]) -> Doubles:
    """Return the IoU (N, M) of boxes (N, 4) and objects (M, 4) in x, y, w, h.

    With a crowd region it is the share of the box that lies in the region.
    """
    ends, object_ends = boxes[:, :2] + boxes[:, 2:], objects[:, :2] + objects[:, 2:]
    sides = np.minimum(ends[:, None], object_ends[None]) - np.maximum(boxes[:, None, :2], objects[None, :, :2])
    inside = np.clip(sides, 0, None).prod(axis=2)
    areas, object_areas = boxes[:, 2:].prod(axis=1), objects[:, 2:].prod(axis=1)
    whole = np.where(crowd[None], areas[:, None], areas[:, None] + object_areas[None] - inside)
    ratio: Doubles = np.divide(inside, whole, out=np.zeros_like(inside), where=whole > 0)
    return ratio


def overlaps_of(found: Found, truth: Truth, kind: Kind) -> Doubles:
    """Return :func:`overlaps` (N, M) of detections and objects of one image, by their boxes or their masks.

    Masks are compressed run lengths, see :func:`fine_edge.evaluate.coco_data.with_runs`.
    """
    if kind == "bbox":
        return overlaps(found.boxes_xywh, truth.boxes_xywh, truth.crowd)
    detected, labelled = ([] if side.masks is None else side.masks.tolist() for side in (found, truth))
    return masks.overlaps(detected, labelled, truth.crowd)


def by_image(image_ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield each image id with the indices of its rows, in their order."""
    if not len(image_ids):
        return
    order = np.argsort(image_ids, kind="stable")
    ids, starts = np.unique(image_ids[order], return_index=True)
    yield from zip(ids.tolist(), np.split(order, starts[1:]), strict=True)


def judge(data: CocoData, found: Found, *, confidence: float = CONFIDENCE, kind: Kind = "bbox") -> Verdicts:
    """Judge all detections with a score of at least ``confidence``, by their boxes or their masks (as run lengths)."""
    found = found.taken(np.flatnonzero(found.scores >= confidence))
    truth = data.truth
    kinds = np.full(len(found), BACKGROUND, dtype=np.int8)
    taken = np.zeros(len(truth), dtype=np.bool_)
    objects = dict(by_image(truth.image_ids))
    none = np.array([], dtype=np.int64)
    for image, rows in by_image(found.image_ids):
        here = objects.get(image, none)
        best_first = rows[np.argsort(-found.scores[rows], kind="stable")]
        kinds[best_first], taken[here] = _judge_image(found.taken(best_first), truth.taken(here), kind)
    return Verdicts(found, kinds, np.flatnonzero(~taken & ~truth.crowd))


def _judge_image(found: Found, truth: Truth, kind: Kind) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Return the kinds of the detections of one image, best first, and which of its objects are found."""
    crowd, overlap = truth.crowd, overlaps_of(found, truth, kind)
    same = found.category_ids[:, None] == truth.category_ids[None]
    own, of_others, in_crowd = (
        np.where(allowed, overlap, 0.0) for allowed in (same & ~crowd, ~same & ~crowd, same & crowd)
    )
    taken = np.zeros(len(truth), dtype=np.bool_)
    kinds = np.empty(len(found), dtype=np.int8)
    for row in range(len(found)):
        free = np.where(taken, 0.0, own[row])
        # Best first, and each to the nearest object that is free, as COCO's evaluation does.
        if free.size and free.max() >= IOU:
            taken[free.argmax()] = True
            kinds[row] = TRUE_POSITIVE
        # In a crowd a detection is neither right nor wrong.
        elif (in_crowd[row] >= IOU).any():
            kinds[row] = LEFT_OUT
        elif (own[row] >= IOU).any():
            kinds[row] = DUPLICATE
        elif (of_others[row] >= IOU).any():
            kinds[row] = CLASS_CONFUSION
        else:
            kinds[row] = LOCALISATION if (own[row] >= NEAR).any() else BACKGROUND
    return kinds, taken


# COCO's ranges of area in square pixels. Detections are sorted by their own area, also the right ones.
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}


@dataclass(frozen=True)
class ErrorCounts:
    """Numbers of right and wrong detections and of missed objects.

    Attributes:
        tp, fp, fn: right detections, wrong detections and missed objects.
        wrong: number of false positives by kind, see :data:`fine_edge.evaluate.matching.KINDS`.
    """

    tp: int
    fp: int
    fn: int
    wrong: dict[str, int]

    @property
    def precision(self) -> float | None:
        """Return the share of the detections that are right; ``None`` without detections."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        """Return the share of the objects that are found; ``None`` without objects."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def f1(self) -> float | None:
        """Return the harmonic mean of both, 2 TP / (2 TP + FP + FN); ``None`` without detections and objects."""
        whole = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / whole if whole else None

    def to_json(self) -> dict[str, Any]:
        """Return the counts and the ratios that follow from them."""
        follows = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {"tp": self.tp, "fp": self.fp, "fn": self.fn, **follows, "wrong": self.wrong}


def _count(kinds: NDArray[np.int8], missed: int) -> ErrorCounts:
    counts = np.bincount(kinds, minlength=len(KINDS))
    wrong = {KINDS[kind]: int(counts[kind]) for kind in range(TRUE_POSITIVE + 1, LEFT_OUT)}
    return ErrorCounts(int(counts[TRUE_POSITIVE]), sum(wrong.values()), missed, wrong)


def count(verdicts: Verdicts) -> ErrorCounts:
    """Count all detections and objects."""
    return _count(verdicts.kinds, len(verdicts.missed))


def count_by_image(verdicts: Verdicts, data: CocoData) -> Ints:
    """Return the number of detections of each of :data:`KINDS`, then of missed objects: (images, kinds + 1).

    Images are in the order of their ids.
    """
    ids = np.array(sorted(data.images), dtype=np.int64)
    counts = np.zeros((len(ids), len(KINDS) + 1), dtype=np.int64)
    np.add.at(counts, (np.searchsorted(ids, verdicts.found.image_ids), verdicts.kinds), 1)
    np.add.at(counts[:, -1], np.searchsorted(ids, data.truth.image_ids[verdicts.missed]), 1)
    return counts


def count_by_category(verdicts: Verdicts, data: CocoData) -> dict[str, ErrorCounts]:
    """Count detections and objects by the name of their category."""
    missed = data.truth.category_ids[verdicts.missed]
    return {
        name: _count(verdicts.kinds[verdicts.found.category_ids == number], int((missed == number).sum()))
        for number, name in data.shown_categories().items()
    }


def count_by_size(verdicts: Verdicts, data: CocoData) -> dict[str, ErrorCounts]:
    """Count detections and objects by the ranges of :data:`SIZES`."""
    boxes = verdicts.found.boxes_xywh
    found, missed = boxes[:, 2] * boxes[:, 3], data.truth.areas[verdicts.missed]
    return {
        size: _count(verdicts.kinds[(found >= low) & (found < high)], int(((missed >= low) & (missed < high)).sum()))
        for size, (low, high) in SIZES.items()
    }
