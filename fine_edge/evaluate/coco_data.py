"""A labelled data set in COCO's format: what is to be found in which image.

``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "category_id", "bbox": [x, y, w, h], "area",
"iscrowd"}], "categories": [{"id", "name"}]}``; source: cocodataset.org, "Data format". ``area`` defaults to that of
the box and ``iscrowd`` to 0, as labelling tools leave them out. Ids are numbered by :mod:`fine_edge.evaluate.ids`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge import console
from fine_edge.errors import DataError
from fine_edge.evaluate.ids import Numbering, References
from fine_edge.evaluate.masks import area, bounding_box, runs
from fine_edge.files import MOST_JSON_BYTES, read_json

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Mask = list[list[float]] | dict[str, Any]
"""Polygons x0, y0, x1, y1, ... or run lengths ``{"size": [height, width], "counts": ...}``, as COCO has them; what a
file has in their place is looked at when masks are scored, see :func:`fine_edge.evaluate.masks.runs`."""
Masks = NDArray[np.object_]


@dataclass(frozen=True)
class Objects:
    """N boxes in images.

    Attributes:
        image_ids, category_ids: (N,), as the data set numbers them.
        boxes_xywh: (N, 4), x0, y0, width, height in pixels of the picture.
        masks: (N,) of :data:`Mask`, where every object has one.
    """

    image_ids: Ints
    category_ids: Ints
    boxes_xywh: Doubles
    masks: Masks | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.image_ids)


@dataclass(frozen=True)
class Truth(Objects):
    """What is really there. ``areas`` (N,) in square pixels, of the object and not of its box; ``crowd`` (N,)."""

    areas: Doubles
    crowd: NDArray[np.bool_]

    def taken(self, rows: Ints) -> Truth:
        """Those that the indices pick."""
        return Truth(
            self.image_ids[rows],
            self.category_ids[rows],
            self.boxes_xywh[rows],
            self.areas[rows],
            self.crowd[rows],
            masks=None if self.masks is None else self.masks[rows],
        )


@dataclass(frozen=True)
class Found(Objects):
    """What a detector found.

    Attributes:
        scores: (N,).
        areas: (N,) in square pixels, where they are not those of what overlaps.
    """

    scores: Doubles
    areas: Doubles | None = field(default=None, kw_only=True)

    def taken(self, rows: Ints) -> Found:
        """Those that the indices pick."""
        return Found(
            self.image_ids[rows],
            self.category_ids[rows],
            self.boxes_xywh[rows],
            self.scores[rows],
            areas=None if self.areas is None else self.areas[rows],
            masks=None if self.masks is None else self.masks[rows],
        )


@dataclass(frozen=True)
class CocoData:
    """A data set.

    Attributes:
        path: of the annotation file, and ``sha256`` of its bytes.
        images: file name by image id, in the order of the file.
        categories: name by category id.
        truth: all annotations of these images.
        sizes: height and width by image id, pixels, where the file has them; polygons need them.
        image_numbers, category_numbers: from the file's ids to these.
    """

    path: Path
    sha256: str
    images: dict[int, str]
    categories: dict[int, str]
    truth: Truth
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    image_numbers: Numbering = field(default_factory=Numbering)
    category_numbers: Numbering = field(default_factory=Numbering)

    def shown_categories(self) -> dict[int, str]:
        """Return a name of its own for each category by id: where two have one name, the id stands behind it."""
        names = Counter(self.categories.values())
        return {number: name if names[name] == 1 else f"{name} ({number})" for number, name in self.categories.items()}

    def without(self, image_ids: Collection[int]) -> CocoData:
        """The data set without some of its images and what is in them."""
        truth, keep = self.truth, ~np.isin(self.truth.image_ids, list(image_ids))
        images = {number: name for number, name in self.images.items() if number not in image_ids}
        return replace(self, images=images, truth=truth.taken(np.flatnonzero(keep)))


_MOST_PX = 1e100
"""Of a box: nothing that is said by mistake is refused for its size alone, but areas must stay finite."""


def box(value: Any) -> tuple[float, float, float, float]:
    """A box as x0, y0, width, height."""
    x, y, width, height = (float(number) for number in value)
    if not all(abs(number) <= _MOST_PX for number in (x, y, width, height)) or width < 0 or height < 0:
        raise ValueError(f"{value!r} is no box x, y, width, height")
    return x, y, width, height


def objects(values: list[Any]) -> Masks:
    """A list as an array of whatever objects it holds."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def read_results(path: Path, data: CocoData) -> Found:
    """Read a results file on this data set; detections of categories that it does not list are left out and said.

    Raises:
        DataError: when it is missing, no such file, of images that the data set does not have, or holds nothing.
    """
    entries = read_json(path, DataError, hint="give a COCO results file", limit=MOST_JSON_BYTES, non_finite=True)
    if not isinstance(entries, list):
        raise DataError("is no list of detections", where=path, hint="give a COCO results file")
    image_ids, category_ids = References(data.image_numbers), References(data.category_numbers)
    numbers: list[tuple[int, int]] = []
    table: list[tuple[float, ...]] = []
    masks: list[Any] = []
    for index, entry in enumerate(entries):
        try:
            image, category = image_ids.number(entry["image_id"]), category_ids.number(entry["category_id"])
            if image is None or image not in data.images:
                raise DataError(
                    f"entry {index} is of image {entry['image_id']!r}, which {data.path} does not have", where=path
                )
            if category is None or category not in data.categories:
                continue
            table.append(_values(entry, data.sizes.get(image)))
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be used ({error})"
            raise DataError(f"entry {index} {what}", where=path, hint="give a COCO results file of boxes") from error
        numbers.append((image, category))
        masks.append(entry.get("segmentation"))
    if not numbers:
        what = f"none of its {len(entries)} detections is of a category of {data.path}" if entries else "is empty"
        raise DataError(what, where=path, hint="give what a detector found on this data set")
    if len(numbers) < len(entries):
        count = len(entries) - len(numbers)
        console.warn(f"{path.name}: left out {count} detections of categories that {data.path.name} does not list")
    ids, values = np.array(numbers, dtype=np.int64), np.array(table, dtype=np.float64)
    return Found(
        *(ids[:, 0], ids[:, 1], values[:, :4], values[:, 4]),
        areas=values[:, 5],
        masks=objects(masks) if all(masks) else None,
    )


def _values(entry: dict[str, Any], size: tuple[int, int] | None) -> tuple[float, ...]:
    """Return x0, y0, width, height, score and area of a detection."""
    score = float(entry["score"])
    if not math.isfinite(score):
        raise ValueError(f"the score is {score}")
    if entry.get("bbox") or not entry.get("segmentation"):
        place = _, _, width, height = box(entry["bbox"])
        return *place, score, width * height
    mask = runs(entry["segmentation"], size)
    return *box(bounding_box(mask)), score, area(mask)
