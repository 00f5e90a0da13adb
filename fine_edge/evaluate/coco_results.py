"""What a detector found, in COCO's results format: ``[{"image_id", "category_id", "bbox": [x, y, w, h], "score"}]``,
with ``"segmentation"`` where masks are found.

Source: cocodataset.org, "Results format". As for pycocotools, boxes that are missing are those of the masks, and with
boxes it is their areas by which sizes are told apart, also of masks.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from fine_edge import console
from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import CocoData, Found, box, objects
from fine_edge.evaluate.ids import References
from fine_edge.evaluate.masks import area, bounding_box, runs
from fine_edge.files import MOST_JSON_BYTES, read_json


def read_results(path: Path, data: CocoData) -> Found:
    """Read a results file on this data set; detections of categories that it does not list are left out and said.

    Raises:
        DataError: when it is missing, no such file, of images that the data set does not have, or holds nothing.
    """
    entries = read_json(path, DataError, mend="give a COCO results file", limit=MOST_JSON_BYTES, non_finite=True)
    if not isinstance(entries, list):
        raise DataError("is no list of detections", where=path, mend="give a COCO results file")
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
            raise DataError(f"entry {index} {what}", where=path, mend="give a COCO results file of boxes") from error
        numbers.append((image, category))
        masks.append(entry.get("segmentation"))
    if not numbers:
        what = f"none of its {len(entries)} detections is of a category of {data.path}" if entries else "is empty"
        raise DataError(what, where=path, mend="give what a detector found on this data set")
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
