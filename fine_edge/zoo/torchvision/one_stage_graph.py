"""The graphs of RetinaNet and FCOS as modules of fixed shapes, made of torchvision's own layers.

torchvision suppresses all pairs of anchor and class that pass its score threshold, up to 1000 a level. These modules
suppress the best :data:`CANDIDATES` of all levels. Greedy suppression never looks at lower scores, so that results are
the same unless more pairs than that pass and fewer than the wanted number of detections come out of the best of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.image_list import ImageList

from fine_edge.lowering.box_coder import BoxDecoder
from fine_edge.lowering.nms import Nms
from fine_edge.lowering.topk import largest, take_rows
from fine_edge.zoo.family import GraphForm

CANDIDATES = 1000
"""Pairs of anchor and class that go into suppression; see the module's docstring."""

STRIDES = (8, 16, 32, 64, 128)


def anchors_of(model: nn.Module, form: GraphForm) -> Tensor:
    """Return the library's anchors of all levels for one input size, (A, 4) x0, y0, x1, y1 in pixels."""
    detector: Any = model
    # Strides double from 8 on, and each halving rounds up.
    maps = [torch.empty(1, 1, -(-form.height // stride), -(-form.width // stride)) for stride in STRIDES]
    image = ImageList(torch.empty(1, 3, form.height, form.width), [(form.height, form.width)])
    (anchors,) = detector.anchor_generator(image, maps)
    return anchors  # type: ignore[no-any-return]


class DistanceDecoder(nn.Module):
    """The decoding of FCOS's distances to the sides of a box, in units of the anchor's side; must stay FP32."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.limit = nn.Buffer(torch.tensor([float(width), float(height)] * 2))

    def forward(self, distances: Tensor, anchors: Tensor) -> Tensor:
        """Decode distances (..., 4) left, top, right, bottom and anchors (..., 4) to boxes inside the image."""
        centre = (anchors[..., :2] + anchors[..., 2:]) * 0.5
        scaled = distances * (anchors[..., 2:] - anchors[..., :2]).repeat_interleave(2, -1)
        boxes = torch.cat([centre - scaled[..., :2], centre + scaled[..., 2:]], -1)
        return torch.minimum(boxes.clamp_min(0.0), self.limit)


class OneStageBoxDecoder(nn.Module):
    """Regression of anchors, all or those of the candidates, to boxes in pixels."""

    def __init__(self, model: Any, form: GraphForm) -> None:
        super().__init__()
        self.anchors = nn.Buffer(anchors_of(model, form))
        self.decode = (
            DistanceDecoder(form.height, form.width)
            if isinstance(model, FCOS)
            else BoxDecoder(model.box_coder.weights, form.height, form.width)
        )

    def forward(self, deltas: Tensor, index: Tensor | None = None) -> Tensor:
        """Decode deltas (B, N, 4) of all anchors, or of those at ``index`` (B, N), to boxes (B, N, 4)."""
        anchors: Tensor = self.anchors
        if index is not None:
            anchors = anchors.index_select(0, index.reshape(-1)).reshape(*index.shape, 4)
        boxes: Tensor = self.decode(deltas, anchors)
        return boxes


def _quality(logits: Tensor, centreness: Tensor | None) -> Tensor:
    """Return the rank of pairs: class logits (B, N, K), or their probability times FCOS's centreness (B, N, 1)."""
    return logits if centreness is None else logits.sigmoid() * centreness.sigmoid()


class CandidateSelection(nn.Module):
    """The selection of the best pairs of anchor and class, all of which belong to the best anchors."""

    def forward(self, logits: Tensor, centreness: Tensor | None, deltas: Tensor) -> tuple[Tensor, ...]:
        """Select from class logits (B, A, K), FCOS's centreness logits (B, A, 1) and the regression (B, A, 4).

        Returns:
            Quality (B, N) of the best pairs, best first; their anchors (B, N), regression (B, N, 4) and labels (B, N).
        """
        batch, anchors, classes = logits.shape
        best = _quality(logits.amax(2, keepdim=True), centreness).squeeze(2)  # (B, A)
        _, index = largest(best, min(CANDIDATES, anchors))
        rows = take_rows(logits, index), None if centreness is None else take_rows(centreness, index)
        pairs = _quality(*rows).reshape(batch, -1)
        quality, pair = largest(pairs, min(CANDIDATES, pairs.shape[1]))
        row = pair // classes
        anchor = take_rows(index, row)
        return quality, anchor, take_rows(deltas, anchor), pair - row * classes


class Scores(nn.Module):
    """The score of a quality: its sigmoid, or FCOS's geometric mean of class score and centreness."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.geometric_mean = isinstance(model, FCOS)

    def forward(self, quality: Tensor) -> Tensor:
        """Map a quality of any shape to scores."""
        return quality.sqrt() if self.geometric_mean else quality.sigmoid()


class OneStageNetwork(nn.Module):
    """Images to candidates, or to the boxes and scores of all anchors."""

    def __init__(self, model: Any, form: GraphForm) -> None:
        super().__init__()
        self.backbone, self.encoder, self.decoder = model.backbone.body, model.backbone.fpn, model.head
        self.boxes = OneStageBoxDecoder(model, form)
        self.selection, self.scores, self.raw = CandidateSelection(), Scores(model), form.raw

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run images (B, 3, H, W).

        Returns:
            Boxes (B, N, 4), quality (B, N) and labels (B, N) of the candidates, best first; or boxes (B, A, 4) and
            scores (B, A, K) of all anchors.
        """
        found: dict[str, Tensor] = self.decoder(list(self.encoder(self.backbone(images)).values()))
        logits, centreness, deltas = found["cls_logits"], found.get("bbox_ctrness"), found["bbox_regression"]
        if self.raw:
            return self.boxes(deltas), self.scores(_quality(logits, centreness))
        quality, anchor, deltas, labels = self.selection(logits, centreness, deltas)
        return self.boxes(deltas, anchor), quality, labels


class OneStagePostprocess(nn.Module):
    """The suppression of overlapping candidates."""

    def __init__(self, model: Any, form: GraphForm) -> None:
        super().__init__()
        self.scores, self.threshold = Scores(model), float(model.score_thresh)
        self.nms = Nms(model.nms_thresh, model.detections_per_img, form.nms, ordered=True)

    def forward(self, boxes: Tensor, quality: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return labels (B, D), boxes (B, D, 4) and scores (B, D), best first."""
        scores = self.scores(quality)
        scores = torch.where(scores > self.threshold, scores, 0.0)
        boxes, scores, index = self.nms(boxes, scores, labels)
        return torch.where(scores > 0, labels.gather(1, index), 0), boxes, scores


class OneStage(nn.Module):
    """The module that is exported; :func:`fine_edge.zoo.torchvision.one_stage.outputs` lists its outputs."""

    def __init__(self, model: nn.Module, form: GraphForm) -> None:
        super().__init__()
        self.detector = OneStageNetwork(model, form)
        self.postprocess = None if form.raw else OneStagePostprocess(model, form)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to the tuple of outputs."""
        found: tuple[Tensor, ...] = self.detector(images)
        return found if self.postprocess is None else self.postprocess(*found)
