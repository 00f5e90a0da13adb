"""How well two detectors outline the objects that both find: the IoU of their masks, object by object.

An object's mask is that of the detection of its category, with enough score, that overlaps it most. Objects of which
one side's best mask has an IoU below 0.1 are left out: that is a missed object, not a worse outline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fine_edge.evaluate.coco_data import CocoData, Doubles, Found, Ints
from fine_edge.evaluate.matching import NEAR, by_image, overlaps_of
from fine_edge.evaluate.resampling import RESAMPLES, Difference, differences


@dataclass(frozen=True)
class MaskChange:
    """One labelled object and the mask that each side has of it.

    Attributes:
        row: index of the object in the data set's truth.
        a_row, b_row: indices of the detections.
        a_iou, b_iou: IoU of their masks with the object's.
    """

    row: int
    a_row: int
    b_row: int
    a_iou: float
    b_iou: float

    @property
    def change(self) -> float:
        """Return the IoU of B minus that of A."""
        return self.b_iou - self.a_iou


@dataclass(frozen=True)
class MaskChanges:
    """All objects that both find, those whose IoU changes most first, and the change of the mean IoU over them."""

    objects: tuple[MaskChange, ...]
    mean: Difference | None

    @property
    def means(self) -> tuple[float, float] | None:
        """Return the mean IoU of A and of B over these objects; ``None`` without any."""
        if not self.objects:
            return None
        return tuple(np.mean([(one.a_iou, one.b_iou) for one in self.objects], axis=0).tolist())

    def to_json(self, data: CocoData) -> dict[str, Any]:
        """Return the means, their difference, and every object."""
        a, b = self.means or (None, None)
        return {
            "a": a,
            "b": b,
            "difference": self.mean and self.mean.to_json(),
            "objects": [
                {
                    "image": data.images[int(data.truth.image_ids[one.row])],
                    "category": data.categories[int(data.truth.category_ids[one.row])],
                    "bbox": data.truth.boxes_xywh[one.row].tolist(),
                    "a": one.a_iou,
                    "b": one.b_iou,
                }
                for one in self.objects
            ],
        }


def mask_changes(data: CocoData, a: Found, b: Found, threshold: float, *, resamples: int = RESAMPLES) -> MaskChanges:
    """Compare the masks of two sets of detections, all masks as run lengths.

    Args:
        data: the data set of both.
        a: detections of A.
        b: detections of B.
        threshold: lowest score of a detection that counts.
        resamples: number of resampled image sets behind the interval.
    """
    a_rows, a_ious = _best(data, a, threshold)
    b_rows, b_ious = _best(data, b, threshold)
    both = np.flatnonzero((a_ious >= NEAR) & (b_ious >= NEAR))
    objects = [
        MaskChange(row, int(a_rows[row]), int(b_rows[row]), float(a_ious[row]), float(b_ious[row]))
        for row in both.tolist()
    ]
    ids = np.array(sorted(data.images), dtype=np.int64)
    changes = np.zeros((len(ids), 2))
    place = np.searchsorted(ids, data.truth.image_ids[both])
    np.add.at(changes, place, np.stack([b_ious[both] - a_ious[both], np.ones(len(both))], axis=1))

    def statistic(times: Ints) -> Doubles:
        change, number = times @ changes
        return np.array([change / number if number else np.nan])

    mean = differences(statistic, len(ids), resamples=resamples)[0]
    return MaskChanges(tuple(sorted(objects, key=lambda one: (-abs(one.change), one.row))), mean)


def _best(data: CocoData, found: Found, threshold: float) -> tuple[Ints, Doubles]:
    """Return for each object the detection of its category whose mask overlaps it most, -1 for none, and the IoU."""
    truth = data.truth
    best, ious = np.full(len(truth), -1, dtype=np.int64), np.zeros(len(truth))
    enough = np.flatnonzero(found.scores >= threshold)
    rows_of = {image: enough[rows] for image, rows in by_image(found.image_ids[enough])}
    for image, here in by_image(truth.image_ids):
        if image not in rows_of:
            continue
        objects, detected = here[~truth.crowd[here]], rows_of[image]
        overlap = overlaps_of(found.taken(detected), truth.taken(objects), "segm")
        overlap[found.category_ids[detected][:, None] != truth.category_ids[objects][None]] = 0.0
        ious[objects] = overlap.max(axis=0, initial=0.0)
        best[objects] = detected[overlap.argmax(axis=0)]
    return best, ious
