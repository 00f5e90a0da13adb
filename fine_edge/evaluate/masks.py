"""Turn masks of annotation and results files into COCO's compressed run lengths, checked before memory is allocated.

The library's own code trusts its input: runs that end early make it loop for ever or read beyond their end, and it
walks along polygons in steps of a fifth of a pixel wherever they lead.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.evaluate.ids import integer

# ``{"size": [height, width], "counts": text}``.
Runs = dict[str, Any]

# COCO's text of numbers: five bits a character, lowest first; the sixth bit says that more follow.
_COUNTS = re.compile(r"(?:[P-o]{0,6}[0-O])+", re.ASCII)
_MOST_PIXELS = 2**31
_MOST_COORDINATE = 2.0**24
# Longest outline of one polygon; the border of a picture of 10,000 x 10,000 pixels has 40,000.
_MOST_OUTLINE_PX = 2.0**20


def runs(mask: Any, size: tuple[int, int] | None) -> Runs:
    """Return a mask as compressed run lengths.

    Args:
        mask: polygons x0, y0, x1, y1, ..., or run lengths with their size, as parsed from JSON.
        size: height and width of the picture, which polygons need.

    Raises:
        ValueError: when it is no mask, or is too large.
        LookupError, TypeError, OverflowError: likewise.
    """
    from faster_coco_eval.core import mask as library

    if isinstance(mask, dict):
        height, width = _size(mask["size"])
        counts = mask["counts"]
        if isinstance(counts, str):
            _require_filled(_lengths(counts), height * width)
            return mask
        lengths = [integer(count) for count in counts]
        _require_filled(np.array(lengths, dtype=np.int64), height * width)
        found = library.frPyObjects({"size": [height, width], "counts": lengths}, height, width)
        return {"size": [height, width], "counts": _text(found["counts"])}
    polygons = _polygons(mask)
    if size is None:
        raise ValueError("the height and width of its picture are not known")
    height, width = _size(size)
    found = library.merge(library.frPyObjects(polygons, height, width))
    return {"size": [height, width], "counts": _text(found["counts"])}


def overlaps(found: list[Runs], objects: list[Runs], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the IoU (N, M) of masks of one picture; with a crowd region the share of the mask that lies in it.

    Masks of different sizes do not overlap.
    """
    from faster_coco_eval.core import mask as library

    if not found or not objects:
        return np.zeros((len(found), len(objects)))
    ratio = np.asarray(library.iou(found, objects, crowd.astype(int).tolist()), dtype=np.float64)
    return np.maximum(ratio, 0.0)  # -1 where sizes differ


def overlap(one: Runs, other: Runs) -> float:
    """Return the IoU of two masks of one picture; 1 where both are empty."""
    if not area(one) and not area(other):
        return 1.0
    return float(overlaps([one], [other], np.zeros(1, dtype=np.bool_))[0, 0])


def pixels(mask: Runs) -> NDArray[np.bool_]:
    """Return the pixels (H, W) of a mask, whose size must be one that fits into memory: a picture's."""
    from faster_coco_eval.core import mask as library

    return np.asarray(library.decode(mask)).astype(np.bool_)


def bounding_box(mask: Runs) -> list[float]:
    """Return x0, y0, width and height of a mask."""
    from faster_coco_eval.core import mask as library

    return [float(number) for number in library.toBbox(mask)]


def area(mask: Runs) -> float:
    """Return the number of pixels of a mask."""
    from faster_coco_eval.core import mask as library

    return float(library.area(mask))


def _text(counts: bytes | str) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts


def _size(value: Any) -> tuple[int, int]:
    height, width = (integer(side) for side in value)
    if height <= 0 or width <= 0 or height * width > _MOST_PIXELS:
        raise ValueError(f"its mask is of a picture of {width}x{height}")
    return height, width


def _lengths(counts: str) -> NDArray[np.int64]:
    """Return the run lengths that COCO's text encodes."""
    if not _COUNTS.fullmatch(counts):
        raise ValueError("its mask has broken runs")
    values = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((values & 0x20) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    places = np.arange(len(values)) - np.repeat(first, last - first + 1)
    found = np.add.reduceat((values & 0x1F) << (5 * places), first)
    negative = (values[last] & 0x10) != 0
    found = found - np.where(negative, np.int64(1) << (5 * (last - first + 1)), 0)
    # From the fourth on, COCO stores the difference to the run before the last one.
    found[1::2] = np.cumsum(found[1::2])
    found[2::2] = np.cumsum(found[2::2])
    return found


def _require_filled(lengths: NDArray[np.int64], pixels: int) -> None:
    if not len(lengths) or lengths.min() < 0 or lengths.max() > pixels or lengths.sum() != pixels:
        raise ValueError("the runs of its mask do not fill its picture")


def _polygons(value: Any) -> list[list[float]]:
    """Return polygons that both libraries draw alike; a last point without its y is dropped."""
    if not isinstance(value, list) or not value or not all(isinstance(polygon, list) for polygon in value):
        raise ValueError("its mask is no list of polygons")
    if len(value[0]) < 6 or any(len(polygon) < 4 for polygon in value):
        raise ValueError("its mask is no list of polygons x0, y0, x1, y1, x2, y2, ...")
    for polygon in value:
        numbers = np.array(polygon[: len(polygon) // 2 * 2], dtype=np.float64)
        if numbers.ndim != 1 or not (np.abs(numbers) <= _MOST_COORDINATE).all():
            raise ValueError("its mask has a point that is no place in a picture")
        points = numbers.reshape(-1, 2)
        sides = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1)
        if sides.sum() > _MOST_OUTLINE_PX:
            raise ValueError("its mask is too long an outline")
    return [[float(number) for number in polygon[: len(polygon) // 2 * 2]] for polygon in value]
