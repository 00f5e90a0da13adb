"""Estimate how far the differences of two models depend on the images, by resampling the images.

faster-coco-eval gives only the final figure. Here the matches of every detection are kept, so that AP of any selection
of images follows by counting. With each image taken once it equals COCO's AP exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fine_edge.evaluate.coco_data import CocoData, Doubles, Found, Ints, Kind, Truth
from fine_edge.evaluate.matching import by_image, overlaps_of

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_DETECTIONS = 100
RESAMPLES = 1000
_POINTS_AT_ONCE = 1_000_000
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class CategoryMatches:
    """The detections of one category, best first, and the number of its objects.

    Attributes:
        images: (N,) index of each detection's image.
        right, ignored: (T, N) by threshold: whether the detection finds an object, or lies in a crowd region.
        objects: (images,) number of objects by image, without crowd regions.
    """

    images: NDArray[np.int64]
    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    objects: NDArray[np.int64]


def match(data: CocoData, found: Found, kind: Kind = "bbox") -> list[CategoryMatches]:
    """Match the detections of each category that has objects, by boxes or by masks as run lengths."""
    place = {number: index for index, number in enumerate(sorted(data.images))}
    truth_rows, found_rows = (dict(by_image(objects.category_ids)) for objects in (data.truth, found))
    none = np.array([], dtype=np.int64)
    return [
        _match_category(data.truth.taken(rows), found.taken(found_rows.get(category, none)), place, kind)
        for category, rows in sorted(truth_rows.items())
        if not data.truth.crowd[rows].all()
    ]


def _match_category(truth: Truth, found: Found, place: dict[int, int], kind: Kind) -> CategoryMatches:
    objects = dict(by_image(truth.image_ids))
    kept, right, ignored = [], [], []
    for image, rows in by_image(found.image_ids):
        best = rows[np.argsort(-found.scores[rows], kind="stable")][:MOST_DETECTIONS]
        kept.append(best)
        here = objects.get(image)
        if here is None:
            matched = np.zeros((2, len(THRESHOLDS), len(best)), dtype=np.bool_)
        else:
            matched = _match_image(overlaps_of(found.taken(best), truth.taken(here), kind), truth.crowd[here])
        right.append(matched[0])
        ignored.append(matched[1])
    counts = np.bincount([place[image] for image in truth.image_ids[~truth.crowd].tolist()], minlength=len(place))
    rows = np.concatenate(kept) if kept else np.array([], dtype=np.int64)
    order = np.argsort(-found.scores[rows], kind="stable")
    empty = np.zeros((len(THRESHOLDS), 0), dtype=np.bool_)
    return CategoryMatches(
        np.array([place[image] for image in found.image_ids[rows[order]].tolist()], dtype=np.int64),
        np.concatenate([empty, *right], axis=1)[:, order],
        np.concatenate([empty, *ignored], axis=1)[:, order],
        counts,
    )


def _match_image(overlap: Doubles, crowd: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which detections are right and which are ignored (2, T, N), matched as COCO does.

    Among equal overlaps the last object is taken, and crowd regions only where no object is left.
    """
    least = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    own = overlap[:, ~crowd]
    taken = np.zeros((len(THRESHOLDS), own.shape[1]), dtype=np.bool_)
    in_crowd = overlap[:, crowd].max(axis=1, initial=-1.0)
    matched = np.zeros((2, len(THRESHOLDS), len(overlap)), dtype=np.bool_)
    for row in range(len(overlap)):
        if own.shape[1]:
            free = np.where(taken, -1.0, own[row])
            best = own.shape[1] - 1 - free[:, ::-1].argmax(axis=1)
            hit = free.max(axis=1) >= least[:, 0]
            taken[hit, best[hit]] = True
            matched[0, :, row] = hit
        matched[1, :, row] = ~matched[0, :, row] & (in_crowd[row] >= least[:, 0])
    return matched


def _precision(matches: CategoryMatches, times: NDArray[np.int64]) -> float | None:
    """Return the mean precision over thresholds and recalls; ``None`` when no object was drawn."""
    objects = int(matches.objects @ times)
    if not objects:
        return None
    weights = times[matches.images]
    drawn = weights > 0  # detections of images that were not drawn are no points of the curve
    if not drawn.any():
        return 0.0
    weights = weights[drawn]
    # The least number of found objects that reaches each recall.
    needed = np.searchsorted(np.arange(objects + 1) / objects, RECALLS, side="left")
    total = 0.0
    # A few thresholds at a time, because the curves of all of them would take gigabytes on a large data set.
    step = max(1, _POINTS_AT_ONCE // len(weights))
    for start in range(0, len(THRESHOLDS), step):
        some = slice(start, start + step)
        total += _summed(matches.right[some, drawn], matches.ignored[some, drawn], weights, needed, objects)
    return total / (len(THRESHOLDS) * len(RECALLS))


def _summed(right: Flags, ignored: Flags, weights: Ints, needed: Ints, objects: int) -> float:
    """Return the sum over some thresholds (T, N) and all recalls of the best precision at this recall or a higher one.

    The numbers of found objects grow along each row; with a step between the rows they grow along all of them, so that
    one search finds where each recall is reached in each row.
    """
    hits, wrong = np.cumsum(right * weights, axis=1), np.cumsum((~right & ~ignored) * weights, axis=1)
    precision = hits / (hits + wrong + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # what COCO calls interpolation
    rows = np.arange(len(hits))[:, None]
    steps = rows * (objects + 1)
    at = np.searchsorted((hits + steps).ravel(), (needed + steps).ravel()).reshape(len(hits), -1)
    reached = at < (rows + 1) * len(weights)
    return float(best.ravel()[at[reached]].sum())


def resampled_ap(matches: list[CategoryMatches], times: NDArray[np.int64]) -> float:
    """Return AP as a fraction with each image taken ``times`` times, (images,); -1 when no object was drawn."""
    by_category = [value for one in matches if (value := _precision(one, times)) is not None]
    return float(np.mean(by_category)) if by_category else -1.0


@dataclass(frozen=True)
class Difference:
    """A figure of B minus that of A, with its 95 % interval over resampled images."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Return whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0

    def to_json(self) -> dict[str, float]:
        """Return the difference and its interval."""
        return {"value": self.value, "low": self.low, "high": self.high}


# From how often each image is taken (images,) to the differences (K,) of K figures, NaN where one is not defined.
Statistic = Callable[[Ints], Doubles]


def differences(
    statistic: Statistic, images: int, *, resamples: int = RESAMPLES, advance: Callable[[], None] = lambda: None
) -> list[Difference | None]:
    """Return the differences with their intervals, by a paired and seeded percentile bootstrap over images.

    Resampled sets in which a figure is not defined count for nothing in its interval; a figure that is not defined on
    the images themselves is ``None``.

    Args:
        statistic: the differences of any selection of the images.
        images: number of images.
        resamples: number of resampled image sets.
        advance: called after each of them.
    """
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(resamples):
        drawn.append(statistic(np.bincount(random.integers(0, images, images), minlength=images)))
        advance()
    values = statistic(np.ones(images, dtype=np.int64))
    return [_difference(value, one) for value, one in zip(values.tolist(), np.array(drawn).T, strict=True)]


def _difference(value: float, drawn: Doubles) -> Difference | None:
    defined = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not defined.size:
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return Difference(value, float(low), float(high))
