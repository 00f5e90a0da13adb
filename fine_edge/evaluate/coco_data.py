"""A labelled data set in COCO's format: the images and the objects in them.

``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "category_id", "bbox": [x, y, w, h], "area",
"iscrowd"}], "categories": [{"id", "name"}]}``; source: cocodataset.org, "Data format". Labelling tools leave out
``area``, which defaults to the area of the box, and ``iscrowd``, which defaults to 0. :mod:`fine_edge.evaluate.ids`
numbers the ids.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from fine_edge import console
from fine_edge.errors import DataError
from fine_edge.evaluate.ids import Numbering, References
from fine_edge.evaluate.masks import area, bounding_box, runs
from fine_edge.files import MOST_JSON_BYTES, read_json

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
# Polygons x0, y0, x1, y1, ... or run lengths ``{"size": [height, width], "counts": ...}``, as COCO defines them.  A
# file may hold anything in their place: :func:`fine_edge.evaluate.masks.runs` checks them when masks are scored.
Mask = list[list[float]] | dict[str, Any]
Masks = NDArray[np.object_]
# Whether boxes or masks are compared.
Kind = Literal["bbox", "segm"]


@dataclass(frozen=True)
class Objects:
    """N boxes in images.

    Attributes:
        image_ids, category_ids: (N,), numbered as in the data set.
        boxes_xywh: (N, 4), x0, y0, width, height in pixels of the picture.
        masks: (N,) of :data:`Mask`; ``None`` unless every object has one.
    """

    image_ids: Ints
    category_ids: Ints
    boxes_xywh: Doubles
    masks: Masks | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.image_ids)


@dataclass(frozen=True)
class Truth(Objects):
    """Labelled objects.

    Attributes:
        areas: (N,) areas of the objects, not of their boxes, in square pixels.
        crowd: (N,) whether the box is a crowd region.
    """

    areas: Doubles
    crowd: NDArray[np.bool_]

    def taken(self, rows: Ints) -> Truth:
        """Return the objects at these indices."""
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
    """Detections.

    Attributes:
        scores: (N,).
        areas: (N,) in square pixels, where they differ from the areas of the boxes or masks that are compared.
    """

    scores: Doubles
    areas: Doubles | None = field(default=None, kw_only=True)

    def taken(self, rows: Ints) -> Found:
        """Return the detections at these indices."""
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
    """A data set of labelled boxes.

    Attributes:
        path: the annotation file; ``sha256`` is the hash of its bytes.
        images: file name by image id, in the order of the file.
        categories: name by category id.
        truth: all annotations of these images.
        sizes: height and width in pixels by image id, where the file states them; polygons need them.
        image_numbers, category_numbers: map the file's ids to the ids used here.
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
        """Return a unique name by category id; where two have the same name, the id follows it."""
        names = Counter(self.categories.values())
        return {number: name if names[name] == 1 else f"{name} ({number})" for number, name in self.categories.items()}

    def without(self, image_ids: Collection[int]) -> CocoData:
        """Return the data set without some of its images and their objects."""
        truth, keep = self.truth, ~np.isin(self.truth.image_ids, list(image_ids))
        images = {number: name for number, name in self.images.items() if number not in image_ids}
        return replace(self, images=images, truth=truth.taken(np.flatnonzero(keep)))


Some = TypeVar("Some", Truth, Found)


def with_runs(data: CocoData, found: Found) -> tuple[CocoData, Found]:
    """Return data set and detections with all masks as compressed run lengths.

    Raises:
        DataError: when an object or a detection has no usable mask.
    """
    return replace(data, truth=_with_runs(data.truth, data)), _with_runs(found, data)


def _with_runs(some: Some, data: CocoData) -> Some:
    if not len(some):
        return some
    if some.masks is None:
        raise DataError("not every object has a mask", where=data.path, hint="evaluate boxes")
    outlines = []
    for image, mask in zip(some.image_ids.tolist(), some.masks.tolist(), strict=True):
        try:
            outlines.append(runs(mask, data.sizes.get(image)))
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            what = f"a mask in {data.images[image]} cannot be used ({error})"
            raise DataError(what, where=data.path, hint="evaluate boxes") from error
    return replace(some, masks=objects(outlines))


# Largest coordinate of a box: areas must stay finite, but no box is refused for being improbably large.
_MOST_PX = 1e100


def box(value: Any) -> tuple[float, float, float, float]:
    """Return a box of the file as x0, y0, width, height."""
    x, y, width, height = (float(number) for number in value)
    if not all(abs(number) <= _MOST_PX for number in (x, y, width, height)) or width < 0 or height < 0:
        raise ValueError(f"{value!r} is no box x, y, width, height")
    return x, y, width, height


def objects(values: list[Any]) -> Masks:
    """Return a list as a one-dimensional array of Python objects, even where the objects are lists."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def read_results(path: Path, data: CocoData) -> Found:
    """Read a results file on this data set; detections of categories that it does not list are left out with a warning.

    Raises:
        DataError: when the file is missing, broken or empty, or names images that the data set does not have.
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
            # A detector of 80 classes on data of fewer: what it finds of the others is neither right nor wrong.
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
