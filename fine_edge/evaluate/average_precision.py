"""Compute average precision and recall as COCO defines them, with faster-coco-eval.

AP is the mean precision at 101 recalls, over the IoU thresholds 0.50, 0.55, ... 0.95 and all categories, of the 100
best detections of each image and category. Objects are small below 32^2 and large above 96^2 square pixels. A figure
is -1 where the data set has no object that it could be of. Source: cocodataset.org, "Detection evaluation".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge import console
from fine_edge.errors import DataError
from fine_edge.evaluate import masks
from fine_edge.evaluate.coco_data import CocoData, Found, Kind, Objects, Truth, with_runs

# faster-coco-eval makes a dict of about 0.8 KiB of each detection. Categories do not depend on each other, so they are
# scored in groups of about this many detections.
DETECTIONS_AT_ONCE = 300_000


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's twelve figures as fractions, and AP by category name; -1 means that there is no such object."""

    ap: float
    ap50: float
    ap75: float
    ap_s: float
    ap_m: float
    ap_l: float
    ar_1: float
    ar_10: float
    ar_100: float
    ar_s: float
    ar_m: float
    ar_l: float
    by_category: dict[str, float]


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0


def _rows(objects: Objects, kind: Kind) -> list[dict[str, Any]]:
    """Return the dicts that the library takes.

    They are numbered from 1, because COCO's own code never matches an object with the number 0.
    """
    rows: list[dict[str, Any]] = [
        # An empty segmentation keeps the library from making a polygon of the box.
        {"id": number, "image_id": image, "category_id": category, "bbox": box, "segmentation": [], "iscrowd": 0}
        for number, (image, category, box) in enumerate(
            zip(objects.image_ids.tolist(), objects.category_ids.tolist(), objects.boxes_xywh.tolist(), strict=True),
            start=1,
        )
    ]
    if kind == "segm" and objects.masks is not None:
        for row, mask in zip(rows, objects.masks.tolist(), strict=True):
            row["segmentation"] = mask
    if isinstance(objects, Truth):
        for row, area, crowd in zip(rows, objects.areas.tolist(), objects.crowd.tolist(), strict=True):
            row.update(area=area, iscrowd=int(crowd))
    elif isinstance(objects, Found):
        areas = [_area(row, kind) for row in rows] if objects.areas is None else objects.areas.tolist()
        for row, score, area in zip(rows, objects.scores.tolist(), areas, strict=True):
            row.update(area=area, score=score)
    return rows


def _area(row: dict[str, Any], kind: Kind) -> float:
    """Return the area of a detection, which decides its size class."""
    if kind == "bbox":
        return float(row["bbox"][2] * row["bbox"][3])
    return masks.area(row["segmentation"])


def _chunks(categories: list[int], found: Found) -> list[list[int]]:
    """Split categories into groups of about :data:`DETECTIONS_AT_ONCE` detections."""
    present, counts = np.unique(found.category_ids, return_counts=True)
    by_category = dict(zip(present.tolist(), counts.tolist(), strict=True))
    groups: list[list[int]] = [[]]
    taken = 0
    for category in categories:
        count = by_category.get(category, 0)
        if groups[-1] and taken + count > DETECTIONS_AT_ONCE:
            groups.append([])
            taken = 0
        groups[-1].append(category)
        taken += count
    return groups


def _score(data: CocoData, found: Found, categories: list[int], kind: Kind) -> Any:
    """Return the library's precision (T, R, K, A, M) and recall (T, K, A, M) of a group of categories."""
    from faster_coco_eval import COCO, COCOeval_faster

    sides = []
    for objects in (data.truth, found):
        rows = np.flatnonzero(np.isin(objects.category_ids, categories))
        side = COCO()
        side.dataset = {
            "images": [_image(number, data) for number in data.images],
            "categories": [{"id": category} for category in categories],
            "annotations": _rows(objects.taken(rows), kind),
        }
        side.createIndex()
        sides.append(side)
    scored = COCOeval_faster(*sides, kind)
    scored.evaluate()
    scored.accumulate()
    return scored.eval


def mask_average_precision(data: CocoData, found: Found) -> AveragePrecision | None:
    """Return the figures of masks; ``None`` where either side has no masks.

    A warning says why, where the detections have masks that cannot be scored.
    """
    if found.masks is None:
        return None
    try:
        return average_precision(data, found, "segm")
    except DataError as error:
        console.warn(f"masks are not scored: {error}")
        return None


def _image(number: int, data: CocoData) -> dict[str, int]:
    height, width = data.sizes.get(number, (0, 0))
    return {"id": number, "height": height, "width": width}


def average_precision(data: CocoData, found: Found, kind: Kind = "bbox") -> AveragePrecision:
    """Return all figures of detections on a data set, by overlap of boxes or of masks.

    Raises:
        DataError: when masks are compared and an object has no usable mask.
    """
    if kind == "segm":
        data, found = with_runs(data, found)
    names = data.shown_categories()
    categories = sorted(data.categories)
    scored = [_score(data, found, group, kind) for group in _chunks(categories, found)]
    precision = np.concatenate([part["precision"] for part in scored], axis=2)  # (T, R, K, A, M)
    recall = np.concatenate([part["recall"] for part in scored], axis=1)  # (T, K, A, M)
    everything = precision[..., 0, 2]  # all sizes, 100 detections
    return AveragePrecision(
        ap=_mean(everything),
        ap50=_mean(everything[0]),
        ap75=_mean(everything[5]),
        **{f"ap_{size}": _mean(precision[..., index, 2]) for index, size in enumerate("sml", start=1)},
        **{f"ar_{limit}": _mean(recall[..., 0, index]) for index, limit in enumerate((1, 10, 100))},
        **{f"ar_{size}": _mean(recall[..., index, 2]) for index, size in enumerate("sml", start=1)},
        by_category={names[category]: _mean(everything[:, :, index]) for index, category in enumerate(categories)},
    )
