"""What a detector found, in COCO's results format: ``[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}]``,
with ``"segmentation"`` where masks are found.

Source: cocodataset.org, "Results format".
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import CocoData, Found, Mask, box, integer, mask, objects
from fine_edge.files import MOST_JSON_BYTES, read_json


def read_results(path: Path, data: CocoData) -> Found:
    """Read a results file on this data set.

    Raises:
        DataError: when it is missing, no such file, or of images or categories that the data set does not have.
    """
    entries = read_json(path, DataError, mend="give a COCO results file", limit=MOST_JSON_BYTES, non_finite=True)
    if not isinstance(entries, list):
        raise DataError("is no list of detections", where=path, mend="give a COCO results file")
    numbers, table = [], []
    masks: list[Mask | None] = []
    for index, entry in enumerate(entries):
        try:
            image, category = integer(entry["image_id"]), integer(entry["category_id"])
            score = float(entry["score"])
            table.append((*box(entry["bbox"]), score))
            outline = entry.get("segmentation")
            masks.append(mask(outline) if outline else None)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be used ({error})"
            raise DataError(f"entry {index} {what}", where=path, mend="give a COCO results file of boxes") from error
        if image not in data.images or category not in data.categories:
            kind, number = ("image", image) if image not in data.images else ("category", category)
            raise DataError(f"entry {index} is of {kind} {number}, which {data.path} does not have", where=path)
        if not math.isfinite(score):
            raise DataError(f"entry {index} has the score {score}", where=path)
        numbers.append((image, category))
    ids = np.array(numbers, dtype=np.int64).reshape(-1, 2)
    values = np.array(table, dtype=np.float64).reshape(-1, 5)
    outlines = objects(masks) if masks and None not in masks else None
    return Found(ids[:, 0], ids[:, 1], values[:, :4], values[:, 4], masks=outlines)
