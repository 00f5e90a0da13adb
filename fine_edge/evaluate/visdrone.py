"""VisDrone's detection data: a text file of boxes beside each picture.

A line is ``left,top,width,height,score,category,truncation,occlusion``, as their number tells: what VisDrone's videos
have in front, a frame and a target, would be read as a box otherwise. A score of 0, category 0 ("ignored regions")
and category 11 ("others") mark what is not evaluated: here regions in which no detection of any category counts, as
COCO treats its crowds. Source: VisDrone2018-DET-toolkit, README, and Zhu et al., "Detection and Tracking Meet Drones",
2021.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import CocoData, Truth, box
from fine_edge.files import read_text

CATEGORIES = (
    *("pedestrian", "people", "bicycle", "car", "van"),
    *("truck", "tricycle", "awning-tricycle", "bus", "motor"),
)
"""Numbered from 1."""

_COLUMNS = ("left", "top", "width", "height", "score", "category", "truncation", "occlusion")
_OTHERS = len(CATEGORIES) + 1
_HINT = "give the folder 'annotations' of VisDrone-DET, one file a picture"


def read_visdrone(folder: Path) -> CocoData:
    """Read a folder of annotation files; pictures are called like them, with ``.jpg``.

    Raises:
        DataError: when there are none, or one is broken, saying at which line.
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
    """Category, box and whether it is a region to ignore, which it is for every category."""
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
    """Return what so many columns are."""
    if columns == len(_COLUMNS) + 2:
        return "10 columns, as annotations of VisDrone's videos (VID, MOT) have: frame, target, then those of DET"
    return f"{columns} columns, not the {len(_COLUMNS)} of VisDrone-DET: {', '.join(_COLUMNS)}"
