"""Mean IoU of a class for each pixel, as Cityscapes and PASCAL VOC define it.

The IoU of a class is TP / (TP + FP + FN), counted over the pixels of all images.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fine_edge.evaluate.segment_data import IGNORED, sums

Ints = NDArray[np.int64]
ConfusionTable = NDArray[np.float64]
# Of a row of counts: labelled category, found category, pixels.
COLUMNS = 3


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


def counts(
    images: Collection[int], categories: Collection[int], image_ids: Ints, table: ConfusionTable
) -> NDArray[np.float64]:
    """Return the right, labelled and found pixels (images, K, 3) of each category from rows (N, 3) of counts."""
    right = table[:, 0] == table[:, 1]
    pixels = table[:, 2:]
    parts = (
        sums(images, categories, image_ids[right], table[right, 0], pixels[right]),
        sums(images, categories, image_ids, table[:, 0], pixels),
        sums(images, categories, image_ids, table[:, 1], pixels),
    )
    return np.concatenate(parts, axis=2)


def ious(counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the IoU (..., K) of right, labelled and found pixels (..., K, 3); NaN where there are none."""
    right, labelled, found = np.moveaxis(counted, -1, 0)
    union = labelled + found - right
    ratio: NDArray[np.float64] = np.divide(right, union, out=np.full(union.shape, np.nan), where=union > 0)
    return ratio


def figures(table: ConfusionTable, categories: dict[int, str]) -> SemanticFigures:
    """Return the figures of all images from their rows (N, 3)."""
    iou = ious(counts([0], categories, np.zeros(len(table), dtype=np.int64), table)[0])
    pixels = table[:, 2].sum()
    right = table[table[:, 0] == table[:, 1], 2].sum()
    return SemanticFigures(
        float(np.nanmean(iou)) if not np.isnan(iou).all() else -1.0,
        float(right / pixels) if pixels else -1.0,
        dict(zip(categories.values(), np.nan_to_num(iou, nan=-1.0).tolist(), strict=True)),
    )
