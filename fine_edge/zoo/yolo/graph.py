"""The graph of an ultralytics detector, with its layers grouped by part and constant anchors in its head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.yolo.blocks import rewrite
from fine_edge.zoo.yolo.library import DetectionModel
from fine_edge.zoo.yolo.postprocess import one_to_one, postprocess


class Head(nn.Module):
    """The branches of every level, which give bins of the distances to the box's sides, and class logits."""

    def __init__(self, head: Any, *, one_to_one: bool) -> None:
        super().__init__()
        self.box, self.cls = head.cv2, head.cv3
        if one_to_one:
            self.box, self.cls = head.one2one_cv2, head.one2one_cv3

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Map levels (B, C, H, W) to bins (B, 4 * R, A) and class logits (B, K, A)."""
        bins = [box(x).flatten(2) for box, x in zip(self.box, maps, strict=True)]
        logits = [cls(x).flatten(2) for cls, x in zip(self.cls, maps, strict=True)]
        return torch.cat(bins, 2), torch.cat(logits, 2)


class YoloBoxDecoder(nn.Module):
    """Bins (B, 4 * R, A) to boxes (B, 4, A) in pixels: x0, y0, x1, y1, or cx, cy, w, h.

    The mean of a side's bins and the step from four distances to a box are one linear map of the bins' probabilities.
    """

    def __init__(self, head: Any, sizes: list[tuple[int, int]], *, corners: bool) -> None:
        super().__init__()
        self.bins = int(head.reg_max)
        # The rows are the box, the columns left, top, right, bottom.
        signs = [[-1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
        if not corners:
            signs = [[-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5], [1, 0, 1, 0], [0, 1, 0, 1]]
        self.mean = nn.Buffer(torch.kron(torch.tensor(signs), torch.arange(self.bins).float()))  # (4, 4 * R)
        centres, strides = [], []
        for (rows, columns), stride in zip(sizes, head.stride.tolist(), strict=True):
            y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
            centres.append(torch.stack([x.flatten(), y.flatten()]) * stride)
            strides.append(torch.full((1, rows * columns), stride))
        centre = torch.cat(centres, 1)  # (2, A)
        self.centre = nn.Buffer(torch.cat([centre, centre if corners else torch.zeros_like(centre)]))
        self.stride = nn.Buffer(torch.cat(strides, 1))

    def forward(self, bins: Tensor) -> Tensor:
        """Decode bins (B, 4 * R, A) to boxes (B, 4, A)."""
        batch, _, anchors = bins.shape
        probabilities = bins.reshape(batch, 4, self.bins, anchors).softmax(2)
        return self.mean @ probabilities.reshape(batch, -1, anchors) * self.stride + self.centre


class YoloNetwork(nn.Module):
    """Images (B, 3, H, W) to boxes (B, 4, A) in pixels and class logits (B, K, A)."""

    def __init__(self, model: DetectionModel, form: GraphForm, *, corners: bool) -> None:
        super().__init__()
        *layers, head = model.model
        self.sources = {layer.i: layer.f for layer in layers}
        self.head_sources = tuple(head.f)
        split = len(model.yaml["backbone"])
        self.backbone = nn.ModuleDict({str(layer.i): rewrite(layer) for layer in layers[:split]})
        self.encoder = nn.ModuleDict({str(layer.i): rewrite(layer) for layer in layers[split:]})
        self.decoder = Head(head, one_to_one=one_to_one(model))
        sizes = [(form.height // int(s), form.width // int(s)) for s in head.stride.tolist()]
        self.boxes = YoloBoxDecoder(head, sizes, corners=corners)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, 3, H, W) to boxes (B, 4, A) in pixels and class logits (B, K, A)."""
        # All outputs are kept, as the neck may read any of them.
        outputs: list[Tensor] = []
        x = images
        for index, layer in [*self.backbone.items(), *self.encoder.items()]:
            source = self.sources[int(index)]
            if isinstance(source, int):
                x = layer(x if source == -1 else outputs[source])
            else:
                x = layer([x if i == -1 else outputs[i] for i in source])
            outputs.append(x)
        bins, logits = self.decoder([outputs[i] for i in self.head_sources])
        return self.boxes(bins), logits


class YoloGraph(nn.Module):
    """The module that is exported: the detector, then its postprocessing."""

    def __init__(self, model: DetectionModel, form: GraphForm) -> None:
        super().__init__()
        self.postprocess, corners = postprocess(model, form)
        self.detector = YoloNetwork(model, form, corners=corners)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) in [0, 1] to (predictions,) or (labels, boxes_xyxy, scores)."""
        outputs: tuple[Tensor, ...] = self.postprocess(*self.detector(images))
        return outputs
