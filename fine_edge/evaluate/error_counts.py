"""True and false positives, false negatives and what follows from them, as the paper's Table 5 lists them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.matching import KINDS, LEFT_OUT, TRUE_POSITIVE, Verdicts

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
