"""Read Cityscapes' folders and COCO's panoptic files, in which every pixel has a class, and VisDrone's boxes.

Cityscapes: ``CITY/NAME_gtFine_labelIds.png`` of label ids; pictures ``CITY/NAME_leftImg8bit.png``. Source: Cordts et
al., "The Cityscapes Dataset", 2016, and cityscapesScripts, helpers/labels.py.
COCO panoptic: a PNG for each image, segment id = R + 256 G + 256^2 B, and ``segments_info`` with the category of each.
Source: cocodataset.org, "Data format", 4. Panoptic Segmentation.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_annotations import coco_from, numbered, picture_name
from fine_edge.evaluate.coco_data import CocoData, Truth, box
from fine_edge.evaluate.ids import Numbering, integer
from fine_edge.files import MOST_JSON_BYTES, read_json, read_text, sha256_of
from fine_edge.zoo.labels import CITYSCAPES_LABELS

# Read VisDrone's detection data: a text file of boxes beside each picture.
#
# A line is ``left,top,width,height,score,category,truncation,occlusion``. The number of columns is checked, because
# VisDrone's files of videos begin with a frame and a target, which would be read as part of a box. A score of 0,
# category 0 ("ignored regions") and category 11 ("others") mark regions that are not evaluated; here no detection of
# any category counts in them, as COCO treats its crowds. Source: VisDrone2018-DET-toolkit, README, and Zhu et al.,
# "Detection and Tracking Meet Drones", 2021.

# Names of the categories, which are numbered from 1.
CATEGORIES = (
    *("pedestrian", "people", "bicycle", "car", "van"),
    *("truck", "tricycle", "awning-tricycle", "bus", "motor"),
)

_COLUMNS = ("left", "top", "width", "height", "score", "category", "truncation", "occlusion")
_OTHERS = len(CATEGORIES) + 1
_HINT = "give the folder 'annotations' of VisDrone-DET, one file a picture"


def read_visdrone(folder: Path) -> CocoData:
    """Read a folder of annotation files; each picture has the name of its file and the suffix ``.jpg``.

    Raises:
        DataError: when there are none, or one is broken; the message names the line.
    """
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError("holds no annotation files (*.txt)", where=folder, hint=_HINT)
    digest = hashlib.sha256()
    rows: list[tuple[int, int, tuple[float, float, float, float], bool]] = []
    for image_id, path in enumerate(files, start=1):
        text = _text(path)
        digest.update(f"{path.name}\n{text}\n".encode())
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                rows += [(image_id, *found) for found in _objects(path, number, line)]
    boxes = np.array([row[2] for row in rows], dtype=np.float64).reshape(-1, 4)
    truth = Truth(
        np.array([row[0] for row in rows], dtype=np.int64),
        np.array([row[1] for row in rows], dtype=np.int64),
        boxes,
        boxes[:, 2] * boxes[:, 3],
        np.array([row[3] for row in rows], dtype=np.bool_),
    )
    images = {image_id: f"{path.stem}.jpg" for image_id, path in enumerate(files, start=1)}
    return CocoData(folder, digest.hexdigest(), images, dict(enumerate(CATEGORIES, start=1)), truth)


def _text(path: Path) -> str:
    return read_text(path, DataError, hint=_HINT).removeprefix("\ufeff")


def _objects(path: Path, number: int, line: str) -> list[tuple[int, tuple[float, float, float, float], bool]]:
    """Return category, box and crowd flag of a line; a region to ignore becomes a crowd of every category."""
    columns = line.strip().removesuffix(",").split(",")
    if len(columns) != len(_COLUMNS):
        raise DataError(f"line {number} has {_described(len(columns))}", where=path, hint=_HINT)
    try:
        fields = [float(column) for column in columns]
        place, (score, category) = box(fields[:4]), fields[4:6]
    except ValueError as error:
        raise DataError(f"line {number} is no object ({error})", where=path, hint=_HINT) from error
    if category not in range(_OTHERS + 1):
        raise DataError(f"line {number} has the category {category:g}", where=path, hint=_HINT)
    if score not in (0, 1):
        raise DataError(f"line {number} has the score {score:g}, as results have", where=path, hint=_HINT)
    if score == 0 or category in (0, _OTHERS):
        return [(one, place, True) for one in range(1, _OTHERS)]
    return [(int(category), place, False)]


def _described(columns: int) -> str:
    """Return what a line with this number of columns is."""
    if columns == len(_COLUMNS) + 2:
        return "10 columns, as annotations of VisDrone's videos (VID, MOT) have: frame, target, then those of DET"
    return f"{columns} columns, not the {len(_COLUMNS)} of VisDrone-DET: {', '.join(_COLUMNS)}"


# Category of the pixels that no figure counts.
IGNORED = -1

# Cityscapes evaluates 19 classes; these are their label ids, in the order of their training indices.
_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_PANOPTIC = "give COCO's panoptic_*.json"
_LABEL_IDS, _PICTURE = "_gtFine_labelIds.png", "_leftImg8bit.png"


@dataclass(frozen=True)
class TrueSegment:
    """One labelled segment of a picture: its number in the PNG, its category, and whether it is a crowd."""

    number: int
    category: int
    crowd: bool = False


@dataclass(frozen=True)
class SegmentData:
    """A data set of labelled pixels.

    Attributes:
        path: the folder or file; ``sha256`` is the hash of all annotations.
        images: file name of the picture by image id.
        truths: annotation PNG by image id.
        categories: name by category id.
        segments: segments by image id in panoptic data; ``None`` where the PNG holds categories.
    """

    path: Path
    sha256: str
    images: dict[int, str]
    truths: dict[int, Path]
    categories: dict[int, str]
    segments: dict[int, tuple[TrueSegment, ...]] | None = None

    def numbers(self, image_id: int) -> NDArray[np.int64]:
        """Return the PNG of an image (H, W): category ids, or segment numbers.

        Raises:
            DataError: when it cannot be read.
        """
        path = self.truths[image_id]
        try:
            with Image.open(path, formats=("PNG",)) as image:
                pixels = np.asarray(image if self.segments is None else image.convert("RGB"), dtype=np.int64)
        except Exception as error:  # Pillow's decoders raise errors of any kind
            what = f"cannot be read as annotation ({type(error).__name__}: {error})"
            raise DataError(what, where=path, hint="is the data set whole?") from error
        if self.segments is not None:
            numbers: NDArray[np.int64] = pixels @ np.array([1, 256, 256**2])
            return numbers
        if pixels.ndim != 2:
            raise DataError("has colours instead of label ids", where=path, hint=f"give *{_LABEL_IDS}")
        is_category = np.isin(pixels, list(self.categories))
        return np.where(is_category, pixels, IGNORED)

    def without(self, image_ids: Collection[int]) -> SegmentData:
        """Return the data set without some of its images."""
        return replace(self, images={number: name for number, name in self.images.items() if number not in image_ids})


def is_cityscapes(folder: Path) -> bool:
    """Return whether a folder holds label ids in Cityscapes' format."""
    return next(folder.rglob(f"*{_LABEL_IDS}"), None) is not None


def read_cityscapes(folder: Path) -> SegmentData:
    """Read one split, such as ``gtFine/val``; its pictures lie in ``leftImg8bit/val``, by city."""
    files = sorted(folder.rglob(f"*{_LABEL_IDS}"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n".encode())
    names = [path.relative_to(folder).as_posix().removesuffix(_LABEL_IDS) + _PICTURE for path in files]
    return SegmentData(
        folder,
        digest.hexdigest(),
        dict(enumerate(names, start=1)),
        dict(enumerate(files, start=1)),
        dict(zip(_CITYSCAPES_IDS, CITYSCAPES_LABELS, strict=True)),
    )


def is_panoptic(data: Any) -> bool:
    """Return whether JSON is in COCO's panoptic format."""
    annotations = data.get("annotations") if isinstance(data, dict) else None
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    return isinstance(first, dict) and "segments_info" in first


def read_panoptic(path: Path, data: dict[str, Any]) -> SegmentData:
    """Return the data set of a panoptic file that was already parsed; its PNGs lie in the folder of the same name.

    Raises:
        DataError: when it contradicts itself; the message names the entry.
    """
    folder = path.with_suffix("")
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= data.keys():
        raise DataError("has no images, annotations and categories", where=path, hint=_PANOPTIC)
    image_numbers, names = numbered(path, data, "images", lambda entry: picture_name(entry["file_name"]))
    category_numbers, categories = numbered(path, data, "categories", lambda entry: str(entry["name"]))
    truths: dict[int, Path] = {}
    segments: dict[int, tuple[TrueSegment, ...]] = {}
    for index, entry in enumerate(data["annotations"]):
        try:
            number = image_numbers.number(entry["image_id"])
            if number not in names or number in truths:
                raise ValueError(f"the image {entry['image_id']!r} is not listed, or annotated twice")
            truths[number] = folder / picture_name(entry["file_name"])
            segments[number] = tuple(_segment(info, category_numbers, categories) for info in entry["segments_info"])
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"annotations[{index}] cannot be used ({type(error).__name__}: {error})"
            raise DataError(what, where=path, hint=_PANOPTIC) from error
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode())
    for number, truth in sorted(truths.items()):
        if not truth.is_file():
            raise DataError("no such annotation", where=truth, hint=f"unpack the PNGs into {folder}")
        digest.update(f"{number} {sha256_of(truth)}\n".encode())
    images = {number: name for number, name in names.items() if number in truths}
    return SegmentData(path, digest.hexdigest(), images, truths, categories, segments)


def _segment(info: dict[str, Any], numbering: Numbering, categories: Collection[int]) -> TrueSegment:
    category, number = numbering.number(info["category_id"]), integer(info["id"])
    if category is None or category not in categories:
        raise ValueError(f"category {info['category_id']!r} is not listed")
    if not 0 <= number < 256**3:
        raise ValueError(f"a PNG has no segment {number}")
    return TrueSegment(number, category, bool(integer(info.get("iscrowd", 0))))


def sums(
    images: Collection[int],
    categories: Collection[int],
    image_ids: NDArray[np.int64],
    category_ids: NDArray[np.float64],
    values: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the sums (images, categories, C) of rows of values (N, C), images by their ids, categories as they come.

    Rows of other categories are left out.
    """
    place = {number: index for index, number in enumerate(categories)}
    column = np.array([place.get(number, -1) for number in category_ids.tolist()], dtype=np.int64)
    row = np.searchsorted(np.array(sorted(images), dtype=np.int64), image_ids)
    found = np.zeros((len(images), len(place), values.shape[1]))
    known = column >= 0
    np.add.at(found, (row[known], column[known]), values[known])
    return found


Data = CocoData | SegmentData


def read_data(path: Path, *, pictures: bool = True) -> Data:
    """Read a file in one of COCO's formats, or a folder in Cityscapes' or VisDrone's.

    Args:
        path: the file or folder.
        pictures: whether the pictures are read too, so that the images need usable file names.

    Raises:
        DataError: when the path is missing, in no known format or broken, or holds no object.
    """
    data = _read(path, pictures)
    if isinstance(data, CocoData) and data.truth.crowd.all():
        raise DataError(
            f"has nothing to find: none of its {len(data.truth)} annotations is of an object",
            where=path,
            hint="give annotations of detection; crowds (iscrowd 1) are regions to leave out",
        )
    return data


def _read(path: Path, pictures: bool) -> Data:
    if path.is_dir():
        return read_cityscapes(path) if is_cityscapes(path) else read_visdrone(path)
    hint = "give a COCO annotation file, or a folder of VisDrone's or Cityscapes' annotations"
    data = read_json(path, DataError, hint=hint, limit=MOST_JSON_BYTES, non_finite=True)
    return read_panoptic(path, data) if is_panoptic(data) else coco_from(path, data, pictures=pictures)


def read_boxes(path: Path, *, pictures: bool = True) -> CocoData:
    """Read a data set of boxes, see :func:`read_data`.

    Raises:
        DataError: as :func:`read_data`, and when it holds segments.
    """
    data = read_data(path, pictures=pictures)
    if isinstance(data, SegmentData):
        raise DataError("holds segments, not boxes", where=path, hint="give annotations of detection")
    return data
