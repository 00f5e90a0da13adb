"""A labelled data set of any known format."""

from __future__ import annotations

from pathlib import Path

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import CocoData, coco_from
from fine_edge.evaluate.segment_data import SegmentData, is_cityscapes, is_panoptic, read_cityscapes, read_panoptic
from fine_edge.evaluate.visdrone import read_visdrone
from fine_edge.files import MOST_JSON_BYTES, read_json

Data = CocoData | SegmentData


def read_data(path: Path) -> Data:
    """Read a file in one of COCO's formats, or a folder in Cityscapes' or VisDrone's.

    Raises:
        DataError: when it is missing, none of them, or broken.
    """
    if path.is_dir():
        return read_cityscapes(path) if is_cityscapes(path) else read_visdrone(path)
    mend = "give a COCO annotation file, or a folder of VisDrone's or Cityscapes' annotations"
    data = read_json(path, DataError, mend=mend, limit=MOST_JSON_BYTES, non_finite=True)
    return read_panoptic(path, data) if is_panoptic(data) else coco_from(path, data)


def read_boxes(path: Path) -> CocoData:
    """Read a data set of boxes.

    Raises:
        DataError: likewise, or when it holds segments.
    """
    data = read_data(path)
    if isinstance(data, SegmentData):
        raise DataError("holds segments, not boxes", where=path, mend="give annotations of detection")
    return data
