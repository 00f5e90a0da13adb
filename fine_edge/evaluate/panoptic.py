"""Panoptic quality of Kirillov et al., "Panoptic Segmentation", 2019: PQ = SQ x RQ by category, then the mean.

A labelled segment is found if a segment of its category overlaps it with an IoU above 0.5; there is at most one such
segment. Unlabelled pixels count neither way. A wrong segment is ignored if more than half of it lies in unlabelled
pixels or in a crowd of its category.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fine_edge.evaluate.segment_data import TrueSegment, sums

Ints = NDArray[np.int64]
PairTable = NDArray[np.float64]
# Of a row of counts: category, sum of IoUs, TP, FP, FN.
COLUMNS = 5

_NOBODY = 0
_LEAST_IOU = 0.5


@dataclass(frozen=True)
class PanopticFigures:
    """Panoptic quality as fractions; -1 means that the data set has no segment of that kind."""

    pq: float
    sq: float
    rq: float
    pq_by_category: dict[str, float]


@dataclass(frozen=True)
class Pair:
    """A labelled segment, the number of the segment that matches it, and their IoU."""

    segment: TrueSegment
    number: int
    iou: float


@dataclass(frozen=True)
class Matches:
    """What became of the segments of one image.

    Attributes:
        pairs: labelled segments that are found.
        missed: labelled segments that are not.
        wrong: numbers of the found segments that match none and are not ignored.
    """

    pairs: tuple[Pair, ...]
    missed: tuple[TrueSegment, ...]
    wrong: tuple[int, ...]


def matches(truth: Ints, segments: tuple[TrueSegment, ...], found: Ints, categories: dict[int, int]) -> Matches:
    """Return which segments of one image match.

    Args:
        truth: (H, W) numbers of the labelled segments, 0 where there is none.
        segments: the labelled segments.
        found: (H, W) numbers of the found segments, 0 where there is none.
        categories: category of each found segment, by its number.
    """
    pairs, shared = np.unique(np.stack([truth.ravel(), found.ravel()]), axis=1, return_counts=True)
    overlap = {(int(a), int(b)): int(n) for (a, b), n in zip(pairs.T, shared, strict=True)}
    true_area, found_area = _areas(truth), _areas(found)
    matched, missed, wrong = [], [], []
    for segment in segments:
        if segment.crowd:
            continue
        iou, number = _best(segment, overlap, true_area, found_area, categories)
        # Above one half at most one found segment matches, so that no assignment is searched for.
        if iou > _LEAST_IOU:
            matched.append(Pair(segment, number, iou))
        else:
            missed.append(segment)
    taken = {pair.number for pair in matched}
    for number, category in categories.items():
        area = found_area.get(number, 0)
        crowds = [s.number for s in segments if s.crowd and s.category == category]
        # Mostly on pixels without a label, or of a crowd of its category: neither right nor wrong.
        void = sum(overlap.get((true, number), 0) for true in (_NOBODY, *crowds))
        if area and number not in taken and void <= 0.5 * area:
            wrong.append(number)
    return Matches(tuple(matched), tuple(missed), tuple(wrong))


def rows(
    truth: Ints, segments: tuple[TrueSegment, ...], found: Ints, categories: dict[int, int]
) -> list[tuple[int, float, int, int, int]]:
    """Return category, sum of IoUs, TP, FP and FN for each category that occurs in one image, see :func:`matches`."""
    judged = matches(truth, segments, found, categories)
    tally: dict[int, list[float]] = {}
    for pair in judged.pairs:
        counts = tally.setdefault(pair.segment.category, [0.0, 0, 0, 0])
        counts[0] += pair.iou
        counts[1] += 1
    for number in judged.wrong:
        tally.setdefault(categories[number], [0.0, 0, 0, 0])[2] += 1
    for segment in judged.missed:
        tally.setdefault(segment.category, [0.0, 0, 0, 0])[3] += 1
    return [(category, iou, int(tp), int(fp), int(fn)) for category, (iou, tp, fp, fn) in sorted(tally.items())]


def _areas(numbers: Ints) -> dict[int, int]:
    values, counts = np.unique(numbers, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _best(
    segment: TrueSegment,
    overlap: dict[tuple[int, int], int],
    true_area: dict[int, int],
    found_area: dict[int, int],
    categories: dict[int, int],
) -> tuple[float, int]:
    """Return the largest IoU of a labelled segment with a found one of its category, and the number of the latter."""
    best = 0.0, _NOBODY
    for (true, number), inside in overlap.items():
        if true == segment.number and number != _NOBODY and categories.get(number) == segment.category:
            union = true_area[true] + found_area[number] - inside - overlap.get((_NOBODY, number), 0)
            best = max(best, (inside / union, number))
    return best


def counts(
    images: Collection[int], categories: Collection[int], image_ids: Ints, table: PairTable
) -> NDArray[np.float64]:
    """Return sum of IoUs, TP, FP and FN (images, K, 4) of each category from rows (N, 5) of counts."""
    return sums(images, categories, image_ids, table[:, 0], table[:, 1:])


def qualities(counted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return PQ, SQ and RQ (..., K, 3) of sums of IoUs, TP, FP and FN (..., K, 4); NaN where there is no segment."""
    iou, tp, fp, fn = np.moveaxis(counted, -1, 0)
    whole = tp + (fp + fn) / 2
    nothing = np.full(whole.shape, np.nan)
    pq, rq = (np.divide(part, whole, out=nothing.copy(), where=whole > 0) for part in (iou, tp))
    sq = np.divide(iou, tp, out=np.where(whole > 0, 0.0, np.nan), where=tp > 0)
    return np.stack([pq, sq, rq], axis=-1)


def figures(table: PairTable, categories: dict[int, str]) -> PanopticFigures:
    """Return the figures of all images from their rows (N, 5)."""
    quality = qualities(counts([0], categories, np.zeros(len(table), dtype=np.int64), table)[0])
    by_category = dict(zip(categories.values(), np.nan_to_num(quality[:, 0], nan=-1.0).tolist(), strict=True))
    if np.isnan(quality).all():
        return PanopticFigures(-1.0, -1.0, -1.0, by_category)
    pq, sq, rq = np.nanmean(quality, axis=0).tolist()
    return PanopticFigures(pq, sq, rq, by_category)
