"""The postprocessing of dense boxes and class logits to detections, with fixed shapes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fine_edge.lowering.nms import Nms
from fine_edge.lowering.topk import largest, take_rows
from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.yolo.library import DetectionModel

# The number of detections of an image, ultralytics' ``max_det``.
ROWS = 300

# The lowest score of a detection in ultralytics' validation.
CONFIDENCE = 0.001
# The IoU above which a detection suppresses another in ultralytics' validation.
IOU = 0.7

# The number of pairs of box and class that go into NMS, where ultralytics takes 30,000.  NMS processes pairs from the
# best one down, so that the result is the same when ``ROWS`` of the candidates survive. If fewer survive, the missing
# rows are the last ones, far below any threshold for drawing. Twice as many candidates would quadruple the matrix of
# overlaps, 4 MB of FP32.
CANDIDATES = 1000


class BestPairs(nn.Module):
    """The selection of the ``count`` best pairs of box and class of an image, best first.

    Their anchors are among the ``count`` anchors with the best class, so that classes are compared for these alone.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, boxes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map boxes (B, 4, A), logits (B, K, A) to boxes (B, N, 4), logits (B, N), labels (B, N) int64."""
        anchors = min(self.count, logits.shape[2])
        _, index = largest(logits.amax(1), anchors)  # (B, n)
        logits = _columns(logits, index)  # (B, K, n)
        best, pair = largest(logits.flatten(1), min(self.count, logits[0].numel()))
        label = pair // anchors
        column = pair - label * anchors
        return _columns(_columns(boxes, index), column).transpose(1, 2), best, label


def _columns(x: Tensor, index: Tensor) -> Tensor:
    """Take the columns (B, C, n) of (B, C, N) at indices (B, n)."""
    if x.shape[0] == 1:  # a gather with one-dimensional indices stays one kernel
        return x.index_select(2, index.reshape(-1))
    return x.gather(2, index.unsqueeze(1).expand(-1, x.shape[1], -1))


class BestOfEachClass(nn.Module):
    """The best pairs, then NMS inside every class."""

    def __init__(self, form: GraphForm) -> None:
        super().__init__()
        self.pairs = BestPairs(CANDIDATES)
        self.nms = Nms(IOU, ROWS, form.nms, ordered=True)

    def forward(self, boxes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map boxes (B, 4, A), logits (B, K, A) to labels (B, 300), boxes (B, 300, 4), scores (B, 300)."""
        candidates, best, labels = self.pairs(boxes, logits)
        kept, scores, rows = self.nms(candidates, _confident(best), labels)
        return torch.where(scores > 0, take_rows(labels, rows), 0), kept, scores


class OneToOne(nn.Module):
    """The best pairs of a head that gives one box to each object, as YOLOv10's."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs = BestPairs(ROWS)

    def forward(self, boxes: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map boxes (B, 4, A), logits (B, K, A) to labels (B, 300), boxes (B, 300, 4), scores (B, 300)."""
        best, logit, labels = self.pairs(boxes, logits)
        scores = _confident(logit)
        present = scores > 0
        return torch.where(present, labels, 0), torch.where(present.unsqueeze(2), best, 0.0), scores


def _confident(logits: Tensor) -> Tensor:
    """Return scores, with 0 for no detection at or below the lowest score."""
    scores = logits.sigmoid()
    return torch.where(scores > CONFIDENCE, scores, 0.0)


class Dense(nn.Module):
    """The boxes cx, cy, w, h and class scores of all anchors, as ultralytics exports them."""

    def forward(self, boxes: Tensor, logits: Tensor) -> tuple[Tensor]:
        """Map boxes (B, 4, A), logits (B, K, A) to (B, 4 + K, A)."""
        return (torch.cat([boxes, logits.sigmoid()], 1),)


class DenseOneToOne(nn.Module):
    """The best pairs as rows x0, y0, x1, y1, score, class, as ultralytics exports YOLOv10's NMS-free head."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs = BestPairs(ROWS)

    def forward(self, boxes: Tensor, logits: Tensor) -> tuple[Tensor]:
        """Map boxes (B, 4, A), logits (B, K, A) to (B, 300, 6)."""
        best, logit, labels = self.pairs(boxes, logits)
        return (torch.cat([best, logit.sigmoid().unsqueeze(-1), labels.unsqueeze(-1).to(best.dtype)], -1),)


def postprocess(model: DetectionModel, form: GraphForm) -> tuple[nn.Module, bool]:
    """Return the postprocessing of a form, and whether it takes boxes as corners instead of centres and sizes."""
    if one_to_one(model):
        return (DenseOneToOne() if form.raw else OneToOne()), True
    return (Dense(), False) if form.raw else (BestOfEachClass(form), True)


def one_to_one(model: DetectionModel) -> bool:
    """Return whether a model has a head that gives one box to each object and needs no NMS, as YOLOv10 has."""
    return getattr(model.model[-1], "one2one_cv2", None) is not None
