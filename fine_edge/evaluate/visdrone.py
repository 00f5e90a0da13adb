"""Read VisDrone's detection data: a text file of boxes beside each picture.

A line is ``left,top,width,height,score,category,truncation,occlusion``. The number of columns is checked, because
VisDrone's files of videos begin with a frame and a target, which would be read as part of a box. A score of 0, category
0 ("ignored regions") and category 11 ("others") mark regions that are not evaluated; here no detection of any category
counts in them, as COCO treats its crowds. Source: VisDrone2018-DET-toolkit, README, and Zhu et al., "Detection and
Tracking Meet Drones", 2021.
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
"""Names of the categories, which are numbered from 1."""

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
