"""Compare two evaluations of boxes, and of masks where both have them, on one data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fine_edge import console
from fine_edge.errors import DataError
from fine_edge.evaluate.average_precision import AveragePrecision
from fine_edge.evaluate.coco_data import CocoData, Doubles, Found, Ints, Kind, with_runs
from fine_edge.evaluate.evaluation import Evaluation, score
from fine_edge.evaluate.mask_changes import MaskChanges, mask_changes
from fine_edge.evaluate.matching import (
    CONFIDENCE,
    IOU,
    KINDS,
    LEFT_OUT,
    TRUE_POSITIVE,
    ErrorCounts,
    Verdicts,
    count,
    count_by_image,
    judge,
)
from fine_edge.evaluate.resampling import RESAMPLES, Difference, Statistic, differences, match, resampled_ap
from fine_edge.evaluate.sides import StoredEvaluation, names_of
from fine_edge.text import printable

_METRICS = ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l", "ar_100")
# The figures of right and wrong detections whose difference has an interval.
ERRORS = ("tp", "fp", "fn", "precision", "recall", "f1", *KINDS[TRUE_POSITIVE + 1 : LEFT_OUT])


@dataclass(frozen=True)
class Side:
    """One side of the comparison: its evaluation, recomputed from its detections, and the detections.

    Attributes:
        found: with masks as run lengths where masks are compared.
        verdicts: on the detections that score at least the comparison's threshold, by boxes and by masks.
    """

    evaluation: Evaluation
    found: Found
    verdicts: dict[Kind, Verdicts]

    def errors(self, kind: Kind) -> ErrorCounts:
        """Return right and wrong detections and missed objects."""
        return count(self.verdicts[kind])

    def precision(self, kind: Kind) -> AveragePrecision:
        """Return COCO's figures."""
        masks = self.evaluation.masks  # none where nothing was found, which is as bad by boxes as by masks
        return masks if kind == "segm" and masks else self.evaluation.boxes


@dataclass(frozen=True)
class Comparison:
    """Both evaluations, on the images that both could read, and the differences with their intervals.

    Attributes:
        ap: difference of AP by boxes, and by masks where both sides and the data set have them.
        errors: difference of each of :data:`ERRORS`, likewise; ``None`` where it is not defined.
        mask_changes: mask IoU of each object that both find; ``None`` where boxes alone are compared.
        threshold: lowest score of a detection that is right or wrong.
        images: folder of the pictures, where one of the evaluations names it.
        pictures: sha256 of the picture files by image id, where a model ran on them.
    """

    data: CocoData
    a: Side
    b: Side
    ap: dict[Kind, Difference]
    errors: dict[Kind, dict[str, Difference | None]]
    mask_changes: MaskChanges | None
    threshold: float
    images: Path | None
    pictures: dict[int, str]

    @property
    def names(self) -> tuple[str, str]:
        """Return a name for each side; equal names get (A) and (B)."""
        return names_of(self.a.evaluation.origin, self.b.evaluation.origin)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Return what is compared: boxes, and masks where both sides have them."""
        return tuple(self.ap)

    def figures(self, metric: str, kind: Kind = "bbox") -> tuple[float, float]:
        """Return one COCO figure of both sides as fractions; -1 means that it is not defined."""
        a, b = (getattr(side.precision(kind), metric) for side in (self.a, self.b))
        return float(a), float(b)

    def gain(self, metric: str, kind: Kind = "bbox") -> float | None:
        """Return the relative gain of B over A, as in the paper's Fig. 4; ``None`` where A is undefined or 0."""
        a, b = self.figures(metric, kind)
        return b / a - 1 if a > 0 and b >= 0 else None

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        sides = {key: side.evaluation.to_json() for key, side in (("a", self.a), ("b", self.b))}
        return {
            **sides,
            "images": len(self.data.images),
            "difference": self._precision_json("bbox"),
            "mask_difference": self._precision_json("segm") if "segm" in self.ap else None,
            "mask_iou": self.mask_changes.to_json(self.data) if self.mask_changes else None,
            "right_and_wrong": {
                "iou": IOU,
                "confidence": self.threshold,
                "boxes": self._errors_json("bbox"),
                "masks": self._errors_json("segm") if "segm" in self.ap else None,
            },
        }

    def _precision_json(self, kind: Kind) -> dict[str, Any]:
        return {
            metric: {
                "value": b - a if min(a, b) >= 0 else None,
                "relative": self.gain(metric, kind),
                **({"low": self.ap[kind].low, "high": self.ap[kind].high} if metric == "ap" else {}),
            }
            for metric in _METRICS
            for a, b in [self.figures(metric, kind)]
        }

    def _errors_json(self, kind: Kind) -> dict[str, Any]:
        """Return right and wrong of both, the differences with intervals, and FP and FN of each image."""
        sides = [side.verdicts[kind] for side in (self.a, self.b)]
        by_image = np.stack([wrong_and_missed(count_by_image(one, self.data)) for one in sides], axis=2)  # (N, 2, 2)
        return {
            **{key: count(one).to_json() for key, one in zip("ab", sides, strict=True)},
            "difference": {name: one and one.to_json() for name, one in self.errors[kind].items()},
            "by_image": [
                {"image": self.data.images[number], "fp": fp, "fn": fn}
                for number, (fp, fn) in zip(sorted(self.data.images), by_image.tolist(), strict=True)
            ],
        }


def wrong_and_missed(counted: Ints) -> Ints:
    """Return false positives and missed objects (..., 2) of :func:`count_by_image`'s counts (..., kinds + 1)."""
    wrong: Ints = counted[..., TRUE_POSITIVE + 1 : LEFT_OUT].sum(axis=-1)
    return np.stack([wrong, counted[..., -1]], axis=-1)


def compare(
    a: StoredEvaluation,
    b: StoredEvaluation,
    *,
    threshold: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    advance: Callable[[], None] = lambda: None,
) -> Comparison:
    """Compare two evaluations of detectors on the images that both could read.

    Args:
        a: the evaluation to compare with.
        b: the evaluation whose gain is shown.
        threshold: lowest score of a detection that is right or wrong; AP counts all detections.
        resamples: number of resampled image sets behind the intervals.
        advance: called after each of them.

    Raises:
        DataError: when the evaluations are of segmenters.
    """
    data, first, second = a.data, a.found, b.found
    if not (isinstance(data, CocoData) and isinstance(first, Found) and isinstance(second, Found)):
        raise DataError("are of segments, not of boxes", where=f"{a.path} and {b.path}", hint="give detectors'")
    kinds: tuple[Kind, ...] = ("bbox",)
    if _have_masks(data, {a.path: first, b.path: second}):
        # Masks that cannot be read cost the comparison of masks, and not that of boxes.
        try:
            with_truth, first = with_runs(data, first)
            data, second = with_runs(with_truth, second)
            kinds = ("bbox", "segm")
        except DataError as error:
            console.warn(f"boxes alone are compared: {error}")
    pictures = {**a.pictures, **b.pictures}
    sides = [
        Side(
            score(data, objects, one.origin, detections=one.kept, pictures=one.pictures),
            objects,
            {kind: judge(data, objects, confidence=threshold, kind=kind) for kind in kinds},
        )
        for one, objects in ((a, first), (b, second))
    ]
    ap, errors = _differences(data, sides[0], sides[1], kinds, resamples, advance)
    masks = mask_changes(data, first, second, threshold, resamples=resamples) if "segm" in kinds else None
    return Comparison(data, sides[0], sides[1], ap, errors, masks, threshold, a.folder or b.folder, pictures)


def _have_masks(data: CocoData, sides: dict[Path, Found]) -> bool:
    """Return whether all have masks; a warning says which has none where others have some."""
    if all(found.masks is None for found in sides.values()):
        return False
    without = [path for path, found in sides.items() if found.masks is None and len(found)]
    if data.truth.masks is None:
        what, hint = f"{data.path.name} has no masks", "give annotations with segmentation"
    elif without:
        what, hint = f"{without[0].name} holds no masks", "evaluate instance segmentation, or results with segmentation"
    else:
        return True
    console.warn(f"boxes alone are compared: {printable(what)} -> {hint}")
    return False


def _differences(
    data: CocoData, a: Side, b: Side, kinds: tuple[Kind, ...], resamples: int, advance: Callable[[], None]
) -> tuple[dict[Kind, Difference], dict[Kind, dict[str, Difference | None]]]:
    """Return the differences of AP and of all errors over the same resampled images."""
    parts = [part for kind in kinds for part in (_ap_change(data, a, b, kind), _error_change(data, a, b, kind))]

    def statistic(times: Ints) -> Doubles:
        return np.concatenate([part(times) for part in parts])

    found = differences(statistic, len(data.images), resamples=resamples, advance=advance)
    width = 1 + len(ERRORS)
    rows = {kind: found[place * width : (place + 1) * width] for place, kind in enumerate(kinds)}
    ap = {kind: row[0] or Difference(0.0, 0.0, 0.0) for kind, row in rows.items()}
    return ap, {kind: dict(zip(ERRORS, row[1:], strict=True)) for kind, row in rows.items()}


def _ap_change(data: CocoData, a: Side, b: Side, kind: Kind) -> Statistic:
    first, second = (match(data, side.found, kind) for side in (a, b))
    return lambda times: np.array([resampled_ap(second, times) - resampled_ap(first, times)])


def _error_change(data: CocoData, a: Side, b: Side, kind: Kind) -> Statistic:
    first, second = (count_by_image(side.verdicts[kind], data) for side in (a, b))
    return lambda times: _errors(times @ second) - _errors(times @ first)


def _errors(counted: Ints) -> Doubles:
    """Return the figures of :data:`ERRORS` of one sum of counts (kinds + 1,), NaN where one is not defined."""
    wrong, tp, fn = counted[TRUE_POSITIVE + 1 : LEFT_OUT], counted[TRUE_POSITIVE], counted[-1]
    fp = wrong.sum()
    wholes = (tp + fp, tp + fn, 2 * tp + fp + fn)
    ratios = [part / whole if whole else np.nan for part, whole in zip((tp, tp, 2 * tp), wholes, strict=True)]
    return np.array([tp, fp, fn, *ratios, *wrong], dtype=np.float64)
