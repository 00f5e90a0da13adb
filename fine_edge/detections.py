"""Decode the detections of one image from a network's outputs, and match two sets of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Detections:
    """N detections, best first.

    Attributes:
        labels: (N,) class indices.
        boxes_xyxy_px: (N, 4) corners.
        scores: (N,).
        masks: (N, 28, 28) probabilities over each box, of detectors with masks.
    """

    labels: NDArray[np.int64]
    boxes_xyxy_px: Floats
    scores: Floats
    masks: Floats | None = None

    def __len__(self) -> int:
        """Return the number of detections."""
        return len(self.scores)

    def above(self, threshold: float) -> Detections:
        """Return the detections with a score of at least ``threshold``."""
        keep = self.scores >= threshold
        masks = None if self.masks is None else self.masks[keep]
        return Detections(self.labels[keep], self.boxes_xyxy_px[keep], self.scores[keep], masks)


def from_outputs(outputs: dict[str, NDArray[np.generic]], image: int = 0) -> Detections:
    """Return the detections of one image of a batch.

    Reads ``labels`` (B, N), ``boxes_xyxy`` (B, N, 4), ``scores`` (B, N) and, where there are any, ``masks``
    (B, N, 28, 28). Rows with a score of exactly 0 fill up a fixed number of rows and are dropped.
    """
    scores = outputs["scores"][image].astype(np.float32)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] != 0]
    return Detections(
        outputs["labels"][image].astype(np.int64)[order],
        outputs["boxes_xyxy"][image].astype(np.float32)[order],
        scores[order],
        outputs["masks"][image].astype(np.float32)[order] if "masks" in outputs else None,
    )


def from_raw(outputs: dict[str, NDArray[np.generic]], height: int, width: int, image: int = 0) -> Detections:
    """Decode ``logits`` (B, Q, K) and normalised ``boxes`` (B, Q, 4) cx, cy, w, h as RT-DETR's postprocessor does.

    Takes the Q best (query, class) pairs by sigmoid score; boxes are in pixels of the height x width input.
    """
    logits = outputs["logits"][image].astype(np.float32)  # (Q, K)
    queries, classes = logits.shape
    flat = logits.reshape(-1)
    best = np.argsort(-flat, kind="stable")[:queries]
    cx, cy, w, h = outputs["boxes"][image].astype(np.float32)[best // classes].T
    corners = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
    boxes = corners * np.array([width, height, width, height], dtype=np.float32)
    with np.errstate(over="ignore"):  # exp of a very negative logit overflows to inf, and 1 / inf is 0 as it should be
        scores = 1 / (1 + np.exp(-flat[best]))
    return Detections((best % classes).astype(np.int64), boxes.astype(np.float32), scores.astype(np.float32))


# Most predictions that :func:`from_predictions` keeps of a picture.
PREDICTIONS_KEPT = 300


def from_predictions(predictions: NDArray[np.generic], image: int = 0) -> Detections:
    """Decode a YOLO's output (B, 4 + K, A) as ultralytics exports it, before suppression.

    Its rows are cx, cy, w, h in pixels of the input and K class scores. Takes the best predictions, each with its best
    class.
    """
    rows = predictions[image].astype(np.float32)
    scores = rows[4:].max(axis=0)
    best = np.argsort(-scores, kind="stable")[:PREDICTIONS_KEPT]
    cx, cy, w, h = rows[:4, best]
    corners = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
    return Detections(rows[4:, best].argmax(axis=0), corners, scores[best])


def iou(a: Floats, b: Floats) -> Floats:
    """Return the intersection over union (N, M) of boxes (N, 4) and (M, 4) in x0, y0, x1, y1."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    area_a, area_b = (np.prod(np.clip(x[:, 2:] - x[:, :2], 0, None), axis=1) for x in (a, b))
    union = area_a[:, None] + area_b[None, :] - overlap
    ratio: Floats = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0).astype(np.float32)
    return ratio


@dataclass(frozen=True)
class Agreement:
    """How well two sets of detections of one image agree.

    Attributes:
        matched: number of pairs of the same class that overlap and score alike.
        flipped: number of detections of either side without a partner that score clearly above the other side's
        cut-off. ties: number of unpaired detections near the cut-off; chance decides which of them are among the top
        300. max_score_drift: largest difference of scores over the pairs. max_box_drift_px: largest difference of a box
        coordinate over the pairs, pixels.
    """

    matched: int
    flipped: int
    ties: int
    max_score_drift: float
    max_box_drift_px: float


@dataclass(frozen=True)
class Pairs:
    """Pairs of detections of two sets that are the same object.

    Attributes:
        reference, candidate: (P,) indices into either set.
        score_gaps: (P,) absolute differences of the scores.
        distances_px: (P,) largest difference of a box coordinate, pixels.
    """

    reference: NDArray[np.int64]
    candidate: NDArray[np.int64]
    score_gaps: Floats
    distances_px: Floats


def pair(reference: Detections, candidate: Detections, *, min_iou: float = 0.5) -> Pairs:
    """Pair detections of the same class one to one, by overlap and score.

    A pair needs an IoU of at least ``min_iou`` or, where boxes are too small for IoU to mean anything, corners within
    half a pixel. The assignment minimises the total difference, so that swapped ties and duplicates do not count.
    """
    from scipy.optimize import linear_sum_assignment

    # Infinities and NaN give NaN, and a box with NaN gets no partner.
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(reference.boxes_xyxy_px[:, None] - candidate.boxes_xyxy_px[None])
        distance = distance.max(axis=2, initial=0.0)  # (N, M) px
        overlap = iou(reference.boxes_xyxy_px, candidate.boxes_xyxy_px)
        score_gap = np.abs(reference.scores[:, None] - candidate.scores[None])
    same_class = reference.labels[:, None] == candidate.labels[None]
    allowed = same_class & ((overlap >= min_iou) | (distance <= 0.5)) & np.isfinite(distance) & np.isfinite(score_gap)
    # Prefer near boxes and near scores; a pair that is not allowed costs more than any that is.
    cost = np.where(allowed, np.minimum(distance, 1e4) / 1e4 + score_gap, 1e3)
    rows, cols = linear_sum_assignment(cost)
    paired = allowed[rows, cols]
    rows, cols = rows[paired], cols[paired]
    return Pairs(rows, cols, score_gap[rows, cols], distance[rows, cols])


def agree(reference: Detections, candidate: Detections, *, score_tolerance: float, min_iou: float = 0.5) -> Agreement:
    """Pair two sets as :func:`pair` does, and measure their differences."""
    if not len(reference) or not len(candidate):
        alone = reference if len(reference) else candidate
        return Agreement(0, len(alone), 0, 0.0, 0.0)
    pairs = pair(reference, candidate, min_iou=min_iou)
    flipped = ties = 0
    for mine, partners, other in (
        (reference, pairs.reference, candidate),
        (candidate, pairs.candidate, reference),
    ):
        alone_scores = np.delete(mine.scores, partners)
        # Each side keeps its best detections only. One that scores no more than the other side's last may have been cut
        # off.
        cutoff = other.scores.min() + score_tolerance if len(other) >= len(mine) else score_tolerance
        tied = alone_scores <= cutoff  # never true of NaN
        flipped += int((~tied).sum())
        ties += int(tied.sum())
    return Agreement(
        len(pairs.reference),
        flipped,
        ties,
        float(pairs.score_gaps.max(initial=0.0)),
        float(pairs.distances_px.max(initial=0.0)),
    )
