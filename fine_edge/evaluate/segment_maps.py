"""The map of segments that a model found in each image, kept beside the counts so that it can be drawn.

A map is a PNG of segment numbers, 0 where there is none, in a folder named after the journal. Its text says the
category of each number. Counts come from the map alone, so a map that gives other counts than the journal is refused.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fine_edge.errors import DataError
from fine_edge.evaluate import panoptic, semantic
from fine_edge.evaluate.journal import Line
from fine_edge.evaluate.segment_data import IGNORED, SegmentData
from fine_edge.files import file_size, parse_json, write_bytes
from fine_edge.images import DRAWN_BY
from fine_edge.segments import Panoptic

_KEY = "fine_edge segments"
_MOST_BYTES = 256 * 2**20
_AGAIN = "evaluate again, the maps are kept beside the counts"


@dataclass(frozen=True)
class SegmentMap:
    """Segments of one image.

    Attributes:
        numbers: (H, W) number of each pixel's segment, 0 where there is none.
        categories: category by number; numbers without one are of classes that the data set lacks.
    """

    numbers: NDArray[np.int64]
    categories: dict[int, int]

    @property
    def classes(self) -> NDArray[np.int64]:
        """Return the category of each pixel (H, W), :data:`IGNORED` where there is none."""
        numbers, places = np.unique(self.numbers, return_inverse=True)
        categories = np.array([self.categories.get(number, IGNORED) for number in numbers.tolist()], dtype=np.int64)
        classes: NDArray[np.int64] = categories[places].reshape(self.numbers.shape)
        return classes


def found_map(found: Panoptic, category_of: dict[int, int]) -> SegmentMap:
    """Return the map of what a model found, its classes as categories of the data set."""
    categories = {one.number: category_of[one.label] for one in found.segments if one.label in category_of}
    return SegmentMap(found.numbers.astype(np.int64), categories)


def true_map(data: SegmentData, image_id: int) -> SegmentMap:
    """Return the labelled map of an image; its crowds are left out.

    Raises:
        DataError: when the annotation cannot be read.
    """
    numbers = data.numbers(image_id)
    if data.segments is not None:
        return SegmentMap(numbers, {one.number: one.category for one in data.segments[image_id] if not one.crowd})
    present = np.unique(numbers[numbers != IGNORED]).tolist()
    # A category may have the id 0, which as a number would be no segment.
    return SegmentMap(numbers + 1, {category + 1: category for category in present})


def rows(found: SegmentMap, data: SegmentData, image_id: int) -> list[Line]:
    """Return the journal's counts of an image: confusions of pixels, or matches of segments by category.

    Raises:
        DataError: when the annotation cannot be read or is of another size.
    """
    truth = data.numbers(image_id)
    if truth.shape != found.numbers.shape:
        sizes = " and ".join("x".join(map(str, shape[::-1])) for shape in (found.numbers.shape, truth.shape))
        what = f"picture and annotation are of {sizes} pixels"
        raise DataError(what, where=data.truths[image_id], hint="give the pictures of it")
    if data.segments is None:
        return [*semantic.rows(truth, found.classes)]
    return [*panoptic.rows(truth, data.segments[image_id], found.numbers, found.categories)]


def folder_of(journal: Path) -> Path:
    """Return the folder of the maps beside a journal of counts."""
    return journal.with_suffix(".maps")


def path_of(journal: Path, image_id: int) -> Path:
    """Return the file of an image's map."""
    return folder_of(journal) / f"{image_id}.png"


def write_map(found: SegmentMap, path: Path) -> None:
    """Write a map, whole or not at all."""
    info, buffer = PngInfo(), BytesIO()
    info.add_text("Software", DRAWN_BY)  # folders of pictures are read without it
    info.add_text(_KEY, json.dumps(sorted(found.categories.items())))
    kind = np.uint8 if int(found.numbers.max(initial=0)) < 256 else np.uint16
    Image.fromarray(found.numbers.astype(kind)).save(buffer, format="PNG", pnginfo=info)
    write_bytes(path, buffer.getvalue())


def read_map(path: Path, data: SegmentData, image_id: int, counts: NDArray[np.float64]) -> SegmentMap:
    """Read the map that the counts (N, columns) of an image were made from.

    Raises:
        DataError: when it is missing or damaged, or gives other counts.
    """
    file_size(path, DataError, hint=_AGAIN, limit=_MOST_BYTES)
    try:
        with Image.open(path, formats=("PNG",)) as image:
            numbers = np.asarray(image).astype(np.int64)
            categories = _categories(parse_json(str(image.info[_KEY])), data.categories)
        if numbers.ndim != 2 or numbers.min(initial=0) < 0:
            raise ValueError("it has colours")
    except Exception as error:  # Pillow's decoders raise errors of any kind
        what = f"is no map of segments ({type(error).__name__}: {error})"
        raise DataError(what, where=path, hint=_AGAIN) from error
    found = SegmentMap(numbers, categories)
    made = rows(found, data, image_id)
    if len(made) != len(counts) or not np.allclose(np.array(made).reshape(counts.shape), counts):
        raise DataError("gives other counts than those that were kept", where=path, hint=_AGAIN)
    return found


def _categories(pairs: Any, known: Collection[int]) -> dict[int, int]:
    found: dict[int, int] = dict(pairs)
    if not set(found.values()) <= set(known):
        raise ValueError("it has categories that the data set lacks")
    return found
