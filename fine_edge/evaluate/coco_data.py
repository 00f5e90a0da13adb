"""A labelled data set in COCO's format: what is to be found in which image.

``{"images": [{"id", "file_name"}], "annotations": [{"image_id", "category_id", "bbox": [x, y, w, h], "area",
"iscrowd"}], "categories": [{"id", "name"}]}``; source: cocodataset.org, "Data format". ``area`` defaults to that of
the box and ``iscrowd`` to 0, as labelling tools leave them out.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.errors import DataError
from fine_edge.files import sha256_of

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Mask = list[list[float]] | dict[str, Any]
"""Polygons x0, y0, x1, y1, ... or run lengths ``{"size": [height, width], "counts": ...}``, as COCO has them."""
Masks = NDArray[np.object_]


@dataclass(frozen=True)
class Objects:
    """N boxes in images.

    Attributes:
        image_ids, category_ids: (N,), as the data set numbers them.
        boxes_xywh: (N, 4), x0, y0, width, height in pixels of the picture.
        masks: (N,) of :data:`Mask`, where there are masks.
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
    """What a detector found, with ``scores`` (N,)."""

    scores: Doubles

    def taken(self, rows: Ints) -> Found:
        """Those that the indices pick."""
        return Found(
            self.image_ids[rows],
            self.category_ids[rows],
            self.boxes_xywh[rows],
            self.scores[rows],
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
        sizes: height and width by image id, pixels, where the file has them; masks need them.
    """

    path: Path
    sha256: str
    images: dict[int, str]
    categories: dict[int, str]
    truth: Truth
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def without(self, image_ids: Collection[int]) -> CocoData:
        """The data set without some of its images and what is in them."""
        truth, keep = self.truth, ~np.isin(self.truth.image_ids, list(image_ids))
        images = {number: name for number, name in self.images.items() if number not in image_ids}
        return replace(self, images=images, truth=truth.taken(np.flatnonzero(keep)))


def integer(value: Any) -> int:
    """An id: an int, or a float or text that says one, as some tools write them."""
    number = int(value)
    if isinstance(value, bool) or (isinstance(value, float) and value != number):
        raise ValueError(f"{value!r} is no id")
    return number


def box(value: Any) -> tuple[float, float, float, float]:
    """A box as x0, y0, width, height."""
    x, y, width, height = (float(number) for number in value)
    if not all(map(math.isfinite, (x, y, width, height))) or width < 0 or height < 0:
        raise ValueError(f"{value!r} is no box x, y, width, height")
    return x, y, width, height


def coco_from(path: Path, data: Any) -> CocoData:
    """The data set that the JSON of an annotation file holds.

    Raises:
        DataError: when it holds none, or contradicts itself, saying at which entry.
    """
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= data.keys():
        raise DataError(
            "has no images, annotations and categories", where=path, mend="give a COCO annotation file of detection"
        )
    images = _by_id(path, data, "images", "file_name")
    categories = _by_id(path, data, "categories", "name")
    truth = _truth(path, data["annotations"], images, categories)
    return CocoData(path, sha256_of(path), images, categories, truth, _sizes(path, data["images"]))


def _sizes(path: Path, entries: list[dict[str, Any]]) -> dict[int, tuple[int, int]]:
    sizes = {}
    for index, entry in enumerate(entries):
        if {"height", "width"} <= entry.keys():
            try:
                sizes[integer(entry["id"])] = integer(entry["height"]), integer(entry["width"])
            except (TypeError, ValueError, OverflowError) as error:
                raise _broken(path, "images", index, error) from error
    return sizes


def mask(value: Any) -> Mask:
    """Polygons or a run-length encoding; raises ``ValueError``, ``TypeError`` or ``LookupError`` on anything else."""
    if isinstance(value, dict):
        (height, width), counts = map(integer, value["size"]), value["counts"]
        if isinstance(counts, list):
            counts = [integer(count) for count in counts]
            if min(counts, default=0) < 0 or sum(counts) != height * width:
                raise ValueError("the runs of its mask do not fill its picture")
        elif not isinstance(counts, str):
            raise ValueError("its mask has no runs")
        return {"size": [height, width], "counts": counts}
    polygons = [[float(number) for number in polygon] for polygon in value]
    if not polygons or any(len(p) < 6 or len(p) % 2 or not all(map(math.isfinite, p)) for p in polygons):
        raise ValueError("its mask is no list of polygons x0, y0, x1, y1, x2, y2, ...")
    return polygons


def objects(values: list[Any]) -> Masks:
    """A list as an array of whatever objects it holds."""
    array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


def _by_id(path: Path, data: dict[str, Any], key: str, field: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for index, entry in enumerate(_entries(path, data[key], key)):
        try:
            number, text = integer(entry["id"]), str(entry[field])
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise _broken(path, key, index, error) from error
        if number in found:
            raise DataError(f"{key}[{index}] has the id {number} of another entry", where=path, mend="number them anew")
        if key == "images" and leaves(text):
            raise DataError(
                f"images[{index}] lies outside of any folder: {text}", where=path, mend="use relative names"
            )
        found[number] = text
    if not found:
        raise DataError(f"has no {key}", where=path, mend="give a COCO annotation file of detection")
    return found


def leaves(file_name: str) -> bool:
    """Whether a name would be looked for outside the folder of images."""
    name = PurePosixPath(file_name)
    return name.is_absolute() or ".." in name.parts or not file_name or "\0" in file_name


def _entries(path: Path, entries: Any, key: str) -> list[Any]:
    if not isinstance(entries, list):
        raise DataError(f"{key} is no list", where=path, mend="give a COCO annotation file of detection")
    return entries


def _broken(path: Path, key: str, index: int, error: Exception) -> DataError:
    what = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be used ({error})"
    return DataError(f"{key}[{index}] {what}", where=path, mend="mend this entry")


def _truth(path: Path, entries: Any, images: dict[int, str], categories: dict[int, str]) -> Truth:
    numbers: list[tuple[int, int]] = []
    sizes: list[tuple[float, ...]] = []
    crowd: list[bool] = []
    masks: list[Mask | None] = []
    for index, entry in enumerate(_entries(path, entries, "annotations")):
        try:
            place = _, _, width, height = box(entry["bbox"])
            area = float(entry.get("area", width * height))
            numbers.append((integer(entry["image_id"]), integer(entry["category_id"])))
            crowd.append(bool(integer(entry.get("iscrowd", 0))))
            outline = entry.get("segmentation")
            masks.append(mask(outline) if outline else None)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise _broken(path, "annotations", index, error) from error
        for number, known, key in zip(numbers[-1], (images, categories), ("images", "categories"), strict=True):
            if number not in known:
                raise DataError(f"annotations[{index}] is of {number}, which is not in {key}", where=path)
        if not math.isfinite(area) or area < 0:
            raise DataError(f"annotations[{index}] has the area {area}", where=path, mend="mend this entry")
        sizes.append((*place, area))
    ids = np.array(numbers, dtype=np.int64).reshape(-1, 2)
    table = np.array(sizes, dtype=np.float64).reshape(-1, 5)
    return Truth(
        ids[:, 0],
        ids[:, 1],
        table[:, :4],
        table[:, 4],
        np.array(crowd, dtype=np.bool_),
        masks=objects(masks) if masks and None not in masks else None,
    )
