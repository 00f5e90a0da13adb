"""Which detection finds which object, and what each wrong one got wrong: the paper's Table 5.

Detections of one image and category are taken best first; each takes the object of its category that it overlaps most
among those nobody has taken, if by IoU 0.5 or more. One that takes none but lies in a crowd region of its category is
left out, as in COCO. A wrong detection is the first of these that it is:

    duplicate        overlaps an object of its category that a better one has taken, by 0.5 or more
    class confusion  overlaps an object of another category by 0.5 or more
    localisation     overlaps an object of its category by 0.1 or more
    background       anything else

The four kinds are those of Bolya et al., "TIDE", 2020, with its "both" (wrong place and class) under background.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.evaluate.coco_data import CocoData, Doubles, Found, Truth

IOU = 0.5
CONFIDENCE = 0.5
_NEAR = 0.1

TRUE_POSITIVE, DUPLICATE, CLASS_CONFUSION, LOCALISATION, BACKGROUND, LEFT_OUT = range(6)
KINDS = ("true_positive", "duplicate", "class_confusion", "localisation", "background", "left_out")
"""Names of the verdicts, by number."""


@dataclass(frozen=True)
class Verdicts:
    """What became of each detection and object of a data set.

    Attributes:
        found: the detections that were judged, those with enough confidence, in the order of ``rows`` of the input.
        kinds: (N,) an index into :data:`KINDS` for each.
        missed: indices into the truth of the objects nobody found; crowd regions are none.
    """

    found: Found
    kinds: NDArray[np.int8]
    missed: NDArray[np.int64]


def overlaps(boxes: Doubles, objects: Doubles, crowd: NDArray[np.bool_]) -> Doubles:
    """IoU (N, M) of boxes (N, 4) and (M, 4) in x, y, w, h; with a crowd region the share of the box that lies in it."""
    ends, object_ends = boxes[:, :2] + boxes[:, 2:], objects[:, :2] + objects[:, 2:]
    sides = np.minimum(ends[:, None], object_ends[None]) - np.maximum(boxes[:, None, :2], objects[None, :, :2])
    inside = np.clip(sides, 0, None).prod(axis=2)
    areas, object_areas = boxes[:, 2:].prod(axis=1), objects[:, 2:].prod(axis=1)
    whole = np.where(crowd[None], areas[:, None], areas[:, None] + object_areas[None] - inside)
    ratio: Doubles = np.divide(inside, whole, out=np.zeros_like(inside), where=whole > 0)
    return ratio


def by_image(image_ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each image id with the indices of its rows, in their order."""
    if not len(image_ids):
        return
    order = np.argsort(image_ids, kind="stable")
    ids, starts = np.unique(image_ids[order], return_index=True)
    yield from zip(ids.tolist(), np.split(order, starts[1:]), strict=True)


def judge(data: CocoData, found: Found, *, confidence: float = CONFIDENCE) -> Verdicts:
    """Judge all detections with a score of at least ``confidence``."""
    found = found.taken(np.flatnonzero(found.scores >= confidence))
    truth = data.truth
    kinds = np.full(len(found), BACKGROUND, dtype=np.int8)
    taken = np.zeros(len(truth), dtype=np.bool_)
    objects = dict(by_image(truth.image_ids))
    none = np.array([], dtype=np.int64)
    for image, rows in by_image(found.image_ids):
        here = objects.get(image, none)
        best_first = rows[np.argsort(-found.scores[rows], kind="stable")]
        kinds[best_first], taken[here] = _judge_image(found.taken(best_first), truth, here)
    return Verdicts(found, kinds, np.flatnonzero(~taken & ~truth.crowd))


def _judge_image(found: Found, truth: Truth, here: NDArray[np.int64]) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """Kinds of the detections of one image, best first, and which of its objects ``here`` are found."""
    crowd = truth.crowd[here]
    overlap = overlaps(found.boxes_xywh, truth.boxes_xywh[here], crowd)
    same = found.category_ids[:, None] == truth.category_ids[here][None]
    own, of_others, in_crowd = (
        np.where(allowed, overlap, 0.0) for allowed in (same & ~crowd, ~same & ~crowd, same & crowd)
    )
    taken = np.zeros(len(here), dtype=np.bool_)
    kinds = np.empty(len(found), dtype=np.int8)
    for row in range(len(found)):
        free = np.where(taken, 0.0, own[row])
        if free.size and free.max() >= IOU:
            taken[free.argmax()] = True
            kinds[row] = TRUE_POSITIVE
        elif (in_crowd[row] >= IOU).any():
            kinds[row] = LEFT_OUT
        elif (own[row] >= IOU).any():
            kinds[row] = DUPLICATE
        elif (of_others[row] >= IOU).any():
            kinds[row] = CLASS_CONFUSION
        else:
            kinds[row] = LOCALISATION if (own[row] >= _NEAR).any() else BACKGROUND
    return kinds, taken


SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, float("inf"))}
"""COCO's ranges of area, square pixels. Right detections count by the box that was found, as the wrong ones must."""


@dataclass(frozen=True)
class ErrorCounts:
    """Counts of some detections and objects.

    Attributes:
        tp, fp, fn: right and wrong detections, and objects nobody found.
        wrong: of the false positives, how many of each kind of :data:`fine_edge.evaluate.matching.KINDS`.
    """

    tp: int
    fp: int
    fn: int
    wrong: dict[str, int]

    @property
    def precision(self) -> float | None:
        """Share of the detections that are right; ``None`` without any."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        """Share of the objects that are found; ``None`` without any."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two: 2 TP / (2 TP + FP + FN); ``None`` where there is nothing."""
        whole = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / whole if whole else None

    def to_json(self) -> dict[str, Any]:
        """Counts and what follows from them."""
        follows = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {"tp": self.tp, "fp": self.fp, "fn": self.fn, **follows, "wrong": self.wrong}


def _count(kinds: NDArray[np.int8], missed: int) -> ErrorCounts:
    counts = np.bincount(kinds, minlength=len(KINDS))
    wrong = {KINDS[kind]: int(counts[kind]) for kind in range(TRUE_POSITIVE + 1, LEFT_OUT)}
    return ErrorCounts(int(counts[TRUE_POSITIVE]), sum(wrong.values()), missed, wrong)


def count(verdicts: Verdicts) -> ErrorCounts:
    """Of all detections and objects."""
    return _count(verdicts.kinds, len(verdicts.missed))


def count_by_category(verdicts: Verdicts, data: CocoData) -> dict[str, ErrorCounts]:
    """By name of the category."""
    missed = data.truth.category_ids[verdicts.missed]
    return {
        name: _count(verdicts.kinds[verdicts.found.category_ids == number], int((missed == number).sum()))
        for number, name in data.shown_categories().items()
    }


def count_by_size(verdicts: Verdicts, data: CocoData) -> dict[str, ErrorCounts]:
    """By :data:`SIZES`."""
    boxes = verdicts.found.boxes_xywh
    found, missed = boxes[:, 2] * boxes[:, 3], data.truth.areas[verdicts.missed]
    return {
        size: _count(verdicts.kinds[(found >= low) & (found < high)], int(((missed >= low) & (missed < high)).sum()))
        for size, (low, high) in SIZES.items()
    }
