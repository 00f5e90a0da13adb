"""Read annotations in COCO's format as leniently as pycocotools does, but never to another figure.

Fields that no figure needs may be missing or broken. What pycocotools leaves out, such as annotations of images that
the file does not list, is left out with a warning. What pycocotools would silently misread is refused.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from fine_edge import console
from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import CocoData, Truth, box, objects
from fine_edge.evaluate.ids import Id, Numbering, References, identity, integer
from fine_edge.files import sha256_of

_HINT = "give a COCO annotation file of detection"
_MOST_SIDE_PX = 2**20
# Linux takes 255 bytes in one part of a path and 4,096 in a whole one, which also names the folder.
_MOST_NAME_BYTES = 255
_MOST_NAME_LETTERS = 3000
_ERRORS = (LookupError, TypeError, ValueError, AttributeError, OverflowError)


def coco_from(path: Path, data: Any, *, pictures: bool = True) -> CocoData:
    """Return the data set in the JSON of an annotation file.

    Args:
        path: the annotation file.
        data: its parsed JSON.
        pictures: whether the pictures are read too, so that the images need usable file names.

    Raises:
        DataError: when it is no annotation file or contradicts itself; the message names the entry.
    """
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= data.keys():
        raise DataError("has no images, annotations and categories", where=path, hint=_HINT)
    image_numbers, images = numbered(path, data, "images", _file_name if pictures else _any_name("file_name"))
    category_numbers, categories = numbered(path, data, "categories", _any_name("name"))
    truth = _Annotations(path, image_numbers, category_numbers, images, categories).read(data["annotations"])
    return CocoData(
        path,
        sha256_of(path),
        images,
        _without_empty_twins(categories, set(truth.category_ids.tolist())),
        truth,
        _sizes(data["images"], image_numbers),
        image_numbers,
        category_numbers,
    )


def numbered(
    path: Path, data: dict[str, Any], key: str, name: Callable[[dict[str, Any]], str]
) -> tuple[Numbering, dict[int, str]]:
    """Return the numbering of a list's entries, and their names by number.

    Args:
        path: the annotation file.
        data: its parsed JSON.
        key: which list of the file.
        name: returns the name of an entry.

    Raises:
        DataError: when an entry has no id or no name, or two entries have the same id.
    """
    found: dict[Id, str] = {}
    for index, entry in enumerate(_entries(path, data[key], key)):
        try:
            one, text = identity(entry["id"]), name(entry)
        except _ERRORS as error:
            raise _broken(path, key, index, error) from error
        if one in found:
            raise DataError(f"{key}[{index}] has the id {one!r} of another entry", where=path, hint="number them anew")
        found[one] = text
    if not found:
        raise DataError(f"has no {key}", where=path, hint=_HINT)
    try:
        numbering = Numbering.of(list(found))
    except ValueError as error:
        raise DataError(f"{key} {error}", where=path, hint="number them anew") from error
    return numbering, {number: text for one, text in found.items() if (number := numbering.number(one)) is not None}


def picture_name(value: Any) -> str:
    r"""Return a picture's name with ``/`` between its parts; ``images\a.jpg``, as Windows writes it, is understood.

    Raises:
        ValueError: when it is no file name, or leads out of the folder of pictures.
    """
    if not isinstance(value, str):
        raise ValueError(f"the name {value!r} is no text")
    name = value.replace("\\", "/")
    too_long = max(len(part) for part in name.encode("utf-8", "surrogatepass").split(b"/")) > _MOST_NAME_BYTES
    if too_long or len(name) > _MOST_NAME_LETTERS:
        raise ValueError(f"the name {value[:20]!r}... is longer than a file's can be")
    if any(0xD800 <= ord(mark) <= 0xDFFF for mark in name) or "\0" in name or not name.strip("/. "):
        raise ValueError(f"the name {value!r} is no file's")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{value!r} lies outside of any folder; use relative names")
    return name


def _file_name(entry: dict[str, Any]) -> str:
    return picture_name(entry["file_name"])


def _any_name(field: str) -> Callable[[dict[str, Any]], str]:
    """Return a function that reads a name which is only shown; the id replaces a missing name."""

    def name(entry: dict[str, Any]) -> str:
        value = entry.get(field)
        return str(entry["id"] if value is None else value)

    return name


def _without_empty_twins(categories: dict[int, str], used: Collection[int]) -> dict[int, str]:
    """Drop unused categories with the name of another one, such as the root that labelling tools add."""
    names = Counter(categories.values())
    kept = {number: name for number, name in categories.items() if number in used or names[name] == 1}
    for number, name in categories.items():
        if name not in kept.values():
            kept[number] = name
    return {number: name for number, name in categories.items() if number in kept}


def _sizes(entries: list[dict[str, Any]], numbering: Numbering) -> dict[int, tuple[int, int]]:
    """Return height and width of the images that state them; some tools write 0 or nothing."""
    sizes = {}
    for entry in entries:
        try:
            height, width = integer(entry["height"]), integer(entry["width"])
        except _ERRORS:
            continue
        number = numbering.number(entry["id"])
        if number is not None and 0 < height <= _MOST_SIDE_PX and 0 < width <= _MOST_SIDE_PX:
            sizes[number] = height, width
    return sizes


def _entries(path: Path, entries: Any, key: str) -> list[Any]:
    if not isinstance(entries, list):
        raise DataError(f"{key} is no list", where=path, hint=_HINT)
    return entries


def _broken(path: Path, key: str, index: int, error: Exception) -> DataError:
    what = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be used ({error})"
    return DataError(f"{key}[{index}] {what}", where=path, hint="correct this entry")


def _crowd(value: Any) -> bool:
    if value is None:
        return False
    if isinstance(value, str) or (number := int(value)) != value or not 0 <= number <= 255:
        # pycocotools takes any text, "0" as well, for a crowd in one place and for a number in another.
        raise ValueError(f"iscrowd is {value!r}, neither 0 nor 1")
    return bool(number)


def _area(value: Any, width: float, height: float) -> float:
    if value is None:
        return width * height
    area = float(value)
    if not math.isfinite(area) or area < 0:
        raise ValueError(f"the area is {area}")
    return area


class _Annotations:
    """Collects the annotations of one file, entry by entry."""

    def __init__(
        self,
        path: Path,
        image_numbers: Numbering,
        category_numbers: Numbering,
        images: Collection[int],
        categories: Collection[int],
    ) -> None:
        self._path, self._images, self._categories = path, images, categories
        self._image_ids, self._category_ids = References(image_numbers), References(category_numbers)
        self._numbers: list[tuple[int, int]] = []
        self._table: list[tuple[float, ...]] = []
        self._crowd: list[bool] = []
        self._masks: list[Any] = []
        self._unlisted: dict[str, list[int]] = {"images": [], "categories": []}

    def read(self, entries: Any) -> Truth:
        """Return the annotations of all images and categories that the file lists."""
        entries = _entries(self._path, entries, "annotations")
        for index, entry in enumerate(entries):
            try:
                self._take(index, entry)
            except _ERRORS as error:
                raise _broken(self._path, "annotations", index, error) from error
        self._require_own_ids(entries)
        for key, left_out in self._unlisted.items():
            if left_out:
                console.warn(
                    f"{self._path.name}: left out {len(left_out)} annotations that are of none of its {key},"
                    f" such as annotations[{left_out[0]}]"
                )
        ids = np.array(self._numbers, dtype=np.int64).reshape(-1, 2)
        table = np.array(self._table, dtype=np.float64).reshape(-1, 5)
        return Truth(
            ids[:, 0],
            ids[:, 1],
            table[:, :4],
            table[:, 4],
            np.array(self._crowd, dtype=np.bool_),
            masks=objects(self._masks) if self._masks and all(self._masks) else None,
        )

    def _take(self, index: int, entry: dict[str, Any]) -> None:
        image, category = self._image_ids.number(entry["image_id"]), self._category_ids.number(entry["category_id"])
        if image is None or image not in self._images:
            self._unlisted["images"].append(index)
        elif category is None or category not in self._categories:
            self._unlisted["categories"].append(index)
        else:
            place = _, _, width, height = box(entry["bbox"])
            self._table.append((*place, _area(entry.get("area"), width, height)))
            self._crowd.append(_crowd(entry.get("iscrowd")))
            self._numbers.append((image, category))
            self._masks.append(entry.get("segmentation"))

    def _require_own_ids(self, entries: list[dict[str, Any]]) -> None:
        """Refuse an id that two annotations share: pycocotools would take the last annotation for both.

        Ids may be missing, although pycocotools requires them. pycocotools never counts an object with the id 0 as
        found, which is an error of its own; here such an object counts, and a remark says so.
        """
        seen: set[Id | float] = set()
        for index, entry in enumerate(entries):
            one = entry.get("id")
            if isinstance(one, int | float | str):
                if one in seen:
                    raise DataError(
                        f"annotations[{index}] has the id {one!r} of another entry",
                        where=self._path,
                        hint="number them anew",
                    )
                seen.add(one)
        if 0 in seen:
            console.remark(f"{self._path.name}: counts the annotation with the id 0, which pycocotools never finds")
