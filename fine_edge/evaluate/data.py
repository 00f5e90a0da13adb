"""A labelled data set of any known format."""

from __future__ import annotations

from pathlib import Path

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_annotations import coco_from
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.segment_data import SegmentData, is_cityscapes, is_panoptic, read_cityscapes, read_panoptic
from fine_edge.evaluate.visdrone import read_visdrone
from fine_edge.files import MOST_JSON_BYTES, read_json

Data = CocoData | SegmentData


def read_data(path: Path, *, pictures: bool = True) -> Data:
    """Read a file in one of COCO's formats, or a folder in Cityscapes' or VisDrone's.

    Args:
        path: of the file or folder.
        pictures: whether the pictures are read as well, so that their names must be fit for it.

    Raises:
        DataError: when it is missing, none of them, broken, or has nothing to find.
    """
    data = _read(path, pictures)
    if isinstance(data, CocoData) and data.truth.crowd.all():
        raise DataError(
            f"has nothing to find: none of its {len(data.truth)} annotations is of an object",
            where=path,
            mend="give annotations of detection; crowds (iscrowd 1) are regions to leave out",
        )
    return data


def _read(path: Path, pictures: bool) -> Data:
    if path.is_dir():
        return read_cityscapes(path) if is_cityscapes(path) else read_visdrone(path)
    mend = "give a COCO annotation file, or a folder of VisDrone's or Cityscapes' annotations"
    data = read_json(path, DataError, mend=mend, limit=MOST_JSON_BYTES, non_finite=True)
    return read_panoptic(path, data) if is_panoptic(data) else coco_from(path, data, pictures=pictures)


def read_boxes(path: Path, *, pictures: bool = True) -> CocoData:
    """Read a data set of boxes, see :func:`read_data`.

    Raises:
        DataError: likewise, or when it holds segments.
    """
    data = read_data(path, pictures=pictures)
    if isinstance(data, SegmentData):
        raise DataError("holds segments, not boxes", where=path, mend="give annotations of detection")
    return data
