"""Draw where two segmenters differ: the picture, its labelled segments, A's, B's, and which of the two is right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fine_edge.drawing import Color, PanelRow, color_of, panel_sheet
from fine_edge.errors import DataError
from fine_edge.evaluate import panoptic
from fine_edge.evaluate.image_pairs import MISSED, RIGHT, WRONG, Only, errors_text, picture_of
from fine_edge.evaluate.segment_comparison import SegmentComparison, SegmentSide
from fine_edge.evaluate.segment_data import IGNORED
from fine_edge.evaluate.segments import SegmentMap, path_of, read_map, true_map

_WIDTH_PX = 300
_OPACITY, _PALE = 0.7, 0.25
# Classes that the key names; the most common ones.
_MOST_NAMED = 12
_COUNTED = {"fp": 3, "fn": 4}  # columns of panoptic's rows of counts

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class SegmentPanels:
    """One image's panels.

    Attributes:
        row: the panels with their titles.
        pixels: number of drawn pixels by category.
    """

    row: PanelRow
    pixels: Counter[int]


@dataclass(frozen=True)
class _Image:
    """One image: its picture (H, W, 3), small, the labelled map, and both sides' maps, of the picture's size."""

    image_id: int
    small: NDArray[np.float64]
    true: SegmentMap
    found: tuple[SegmentMap, SegmentMap]

    def shrunk(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return a map (H, W) in the size of the small picture, by the nearest pixel."""
        height, width = self.small.shape[:2]
        rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), values.shape, strict=True))
        smaller: NDArray[np.generic] = values[rows[:, None], columns]
        return smaller


def panels(comparison: SegmentComparison, only: Only | None, number: int) -> list[SegmentPanels]:
    """Return the panels of the images that change most, at most ``number`` of them.

    Args:
        comparison: of segments, or of classes of pixels.
        only: draw the segments that are false positives, or the labelled ones that are missed; panoptic alone.
        number: of images.

    Raises:
        DataError: when a map is missing, or no image differs or has its picture.
    """
    drawn = []
    for image_id in _changed(comparison, only)[:number]:
        if image := _read(comparison, image_id):
            drawn.append(_errors(comparison, image, only) if only else _differences(comparison, image))
    if not drawn:
        what = "nothing to draw: no image differs, or the pictures are not on this machine or have changed"
        raise DataError(what, where=comparison.data.path, hint="compare other evaluations, or evaluate again")
    return drawn


def segment_sheet(comparison: SegmentComparison, only: Only | None, number: int) -> Image.Image:
    """Return :func:`panels` on one sheet, one image a row, with a key of the colours.

    Raises:
        DataError: as :func:`panels`.
    """
    drawn = panels(comparison, only, number)
    what = {None: "What differs", "fp": "Segments that match none (FP)", "fn": "Missed segments (FN)"}[only]
    matched = "" if comparison.is_semantic else ", matched at an IoU above 0.5"
    a, b = comparison.names
    return panel_sheet(f"{what}{matched}: {a} and {b}", [one.row for one in drawn], key(comparison, drawn, only))


def key(
    comparison: SegmentComparison, drawn: list[SegmentPanels], only: Only | None
) -> list[tuple[str, tuple[int, int, int]]]:
    """Return names and colours: of the last panel, then of the most common classes."""
    a, b = comparison.names
    judged = [(f"{b} alone is right", RIGHT), (f"{a} alone is right", WRONG), ("both wrong, differently", MISSED)]
    pixels = sum((one.pixels for one in drawn), Counter[int]())
    common = [category for category, _ in pixels.most_common(_MOST_NAMED)]
    names = [(comparison.data.categories[one], _color(comparison, one)) for one in common]
    left = len(pixels) - len(names)
    return [
        *((name, _rgb(color)) for name, color in judged if only is None),
        *names,
        *([(f"{left} more", (255, 255, 255))] if left > 0 else []),
    ]


def _rgb(color: str) -> Color:
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    return red, green, blue


def _color(comparison: SegmentComparison, category: int) -> Color:
    return color_of(sorted(comparison.data.categories).index(category))


def _changed(comparison: SegmentComparison, only: Only | None) -> list[int]:
    """Return the ids of the images that differ by their counts, those that differ most first."""
    if only is None:
        counts = [
            {image: side.counts.rows[side.counts.image_ids == image].tolist() for image in comparison.data.images}
            for side in (comparison.a, comparison.b)
        ]
        return [one.image_id for one in comparison.by_image if counts[0][one.image_id] != counts[1][one.image_id]]
    change: Counter[int] = Counter()
    for sign, side in ((1, comparison.a), (-1, comparison.b)):
        for image_id, row in zip(side.counts.image_ids.tolist(), side.counts.rows, strict=True):
            change[image_id] += sign * int(row[_COUNTED[only]])
    return sorted((one for one in change if change[one]), key=lambda one: (-abs(change[one]), one))


def _read(comparison: SegmentComparison, image_id: int) -> _Image | None:
    """Return an image; ``None`` where its picture is gone or has changed."""
    picture = picture_of(comparison, image_id)
    if picture is None:
        return None
    scale = min(1.0, _WIDTH_PX / picture.width)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = np.asarray(picture.resize(size, Image.Resampling.LANCZOS), dtype=np.float64)
    maps = [_map(side, comparison, image_id) for side in (comparison.a, comparison.b)]
    return _Image(image_id, small, true_map(comparison.data, image_id), (maps[0], maps[1]))


def _map(side: SegmentSide, comparison: SegmentComparison, image_id: int) -> SegmentMap:
    counts = side.counts.rows[side.counts.image_ids == image_id]
    return read_map(path_of(side.journal, image_id), comparison.data, image_id, counts)


def _matches(comparison: SegmentComparison, image: _Image, found: SegmentMap) -> panoptic.Matches:
    segments = (comparison.data.segments or {})[image.image_id]
    return panoptic.matches(image.true.numbers, segments, found.numbers, found.categories)


def _right(comparison: SegmentComparison, image: _Image, found: SegmentMap) -> Bools:
    """Return where a map is right (H, W): the labelled class, or in both segments of a match."""
    if comparison.is_semantic:
        same: Bools = found.classes == image.true.classes
        return same
    right = np.zeros(found.numbers.shape, dtype=np.bool_)
    for pair in _matches(comparison, image, found).pairs:
        right |= (image.true.numbers == pair.segment.number) & (found.numbers == pair.number)
    return right


def _differences(comparison: SegmentComparison, image: _Image) -> SegmentPanels:
    """Return the picture, the labelled segments, A's, B's, and where one of the two is right or both are wrong."""
    labelled = image.true.classes != IGNORED
    a, b = (_right(comparison, image, found) for found in image.found)
    other = image.found[0].classes != image.found[1].classes
    kinds = np.select([b & ~a, a & ~b, ~a & ~b & other], [1, 2, 3], 0) * labelled
    pale = np.array([[0, 0, 0], *(_rgb(color) for color in (RIGHT, WRONG, MISSED))], dtype=np.float64)
    last, shown = _faded(image.small), image.shrunk(kinds).astype(np.int64)
    last[shown > 0] = pale[shown[shown > 0]]
    shares = [(right & labelled).sum() / max(1, labelled.sum()) for right in (a, b)]
    differ = (kinds > 0).sum() / max(1, labelled.sum())
    titles = [
        *(f"{name}: {share:.1%} of the pixels right" for name, share in zip(comparison.names, shares, strict=True)),
        f"differ: {differ:.2%}",
    ]
    drawn = [_tinted(comparison, image, one) for one in (image.true, *image.found)]
    pictures = [image.small, *drawn, last]
    return _row(comparison, image, ["picture", "labelled", *titles], pictures, (image.true, *image.found))


def _errors(comparison: SegmentComparison, image: _Image, only: Only) -> SegmentPanels:
    """Return the picture, the labelled segments, and each side's false positives or missed segments alone."""
    shown = []
    for found in image.found:
        judged = _matches(comparison, image, found)
        kept = set(judged.wrong) if only == "fp" else {one.number for one in judged.missed}
        whole = found if only == "fp" else image.true
        categories = {number: one for number, one in whole.categories.items() if number in kept}
        shown.append(SegmentMap(np.where(np.isin(whole.numbers, list(kept)), whole.numbers, 0), categories))
    titles = [
        f"{name}: {errors_text(only, len(one.categories))}" for name, one in zip(comparison.names, shown, strict=True)
    ]
    drawn = [_tinted(comparison, image, one) for one in (image.true, *shown)]
    return _row(comparison, image, ["picture", "labelled", *titles], [image.small, *drawn], (image.true, *shown))


def _row(
    comparison: SegmentComparison,
    image: _Image,
    titles: list[str],
    pictures: list[NDArray[np.float64]],
    maps: tuple[SegmentMap, ...],
) -> SegmentPanels:
    made = (Image.fromarray(one.astype(np.uint8)) for one in pictures)
    row = PanelRow(comparison.data.images[image.image_id], tuple(zip(titles, made, strict=True)))
    return SegmentPanels(row, sum((Counter(dict(_pixels(one))) for one in maps), Counter[int]()))


def _pixels(found: SegmentMap) -> Iterator[tuple[int, int]]:
    for category, count in zip(*np.unique(found.classes, return_counts=True), strict=True):
        if category != IGNORED:
            yield int(category), int(count)


def _faded(small: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a picture (H, W, 3) in pale grey, on which colours stand out."""
    grey = small.mean(axis=2, keepdims=True)
    return np.repeat(255 - (255 - grey) * (1 - _PALE), 3, axis=2)


def _tinted(comparison: SegmentComparison, image: _Image, found: SegmentMap) -> NDArray[np.float64]:
    """Return the picture with segments in the colours of their classes, and a white line between two of them."""
    classes, numbers = (image.shrunk(one).astype(np.int64) for one in (found.classes, found.numbers))
    drawn = _faded(image.small)
    for category in np.unique(classes[classes != IGNORED]).tolist():
        where = classes == category
        drawn[where] += _OPACITY * (np.array(_color(comparison, category)) - drawn[where])
    for axis in (0, 1):
        border = np.zeros(numbers.shape, dtype=np.bool_)
        here, there = _neighbours(numbers, axis)
        inside = [one != IGNORED for one in _neighbours(classes, axis)]  # a line around a tiny segment would hide it
        _neighbours(border, axis)[0][:] = (here != there) & inside[0] & inside[1]
        drawn[border] = 255
    return drawn


def _neighbours(values: NDArray[np.generic], axis: int) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """Return views of a map (H, W) without its last, and without its first row or column."""
    return (values[:-1], values[1:]) if axis == 0 else (values[:, :-1], values[:, 1:])
