"""Mean IoU of a class for each pixel, as Cityscapes and PASCAL VOC define it.

The IoU of a class is TP / (TP + FP + FN), counted over the pixels of all images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fine_edge.evaluate.segment_data import IGNORED

Ints = NDArray[np.int64]
ConfusionTable = NDArray[np.float64]


@dataclass(frozen=True)
class SemanticFigures:
    """Mean IoU, pixel accuracy and IoU by class as fractions; -1 means that the data set has no such pixel."""

    miou: float
    pixel_accuracy: float
    iou_by_category: dict[str, float]


def rows(truth: Ints, found: Ints) -> list[tuple[int, int, int]]:
    """Return labelled category, found category and number of pixels of each pair that occurs in one image (H, W)."""
    counted = truth != IGNORED
    pairs, counts = np.unique(np.stack([truth[counted], found[counted]]), axis=1, return_counts=True)
    return [(int(a), int(b), int(n)) for (a, b), n in zip(pairs.T, counts, strict=True)]


def figures(table: ConfusionTable, categories: dict[int, str]) -> SemanticFigures:
    """Return the figures of all images from their rows (N, 3)."""
    iou = {}
    right_of_all = table[table[:, 0] == table[:, 1], 2].sum()
    for number, name in categories.items():
        true, found = table[:, 0] == number, table[:, 1] == number
        union = table[true | found, 2].sum()
        iou[name] = float(table[true & found, 2].sum() / union) if union else -1.0
    defined = [value for value in iou.values() if value >= 0]
    pixels = table[:, 2].sum()
    return SemanticFigures(
        float(np.mean(defined)) if defined else -1.0, float(right_of_all / pixels) if pixels else -1.0, iou
    )
