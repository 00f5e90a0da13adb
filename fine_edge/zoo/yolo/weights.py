"""Random weights of trained magnitude in the heads of an ultralytics detector."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from fine_edge.preprocess import Preprocessing
from fine_edge.zoo.random_weights import ScoreCalibration, photographs, randomise_layers, settle
from fine_edge.zoo.yolo.library import DetectionModel, block

# Of 80 classes at every anchor: some dozens of scores above 0.25 at 640x640, and a tenth of all above 0.001, which is
# where NMS begins to look.
LOGIT_MEAN, LOGIT_SPREAD = -9.0, 2.0

# Large enough for the deepest map to have a hundred positions, small enough to take seconds.
_SIZE = 320
# Of the logits of a side's bins: how they differ from anchor to anchor, and how fast they fall off around a distance.
_BIN_SPREAD, _BIN_SLOPE = 2.0, 1.0


def _heads(head: Any) -> list[tuple[nn.ModuleList, nn.ModuleList]]:
    """Box and class branches; YOLOv10 has two of each."""
    pairs = [(head.cv2, head.cv3)]
    if getattr(head, "one2one_cv2", None) is not None:
        pairs.append((head.one2one_cv2, head.one2one_cv3))
    return pairs


def _randomise_boxes(branch: nn.ModuleList, bins: int) -> None:
    """Distances that differ from anchor to anchor, around 2 to 6 strides, with a peak among their bins."""
    distance = torch.arange(bins, dtype=torch.float32)
    for level in branch:
        last: Any = cast(nn.Sequential, level)[-1]
        nn.init.normal_(last.weight, std=_BIN_SPREAD * last.in_channels**-0.5)
        peak = 2 + 4 * torch.rand(4, 1)
        last.bias.copy_((-_BIN_SLOPE * (distance - peak).abs()).flatten())


def randomise(model: DetectionModel) -> None:
    """Replace the weights outside the fusion methods; seeded by the caller."""
    norms = randomise_layers(model)
    for module in model.modules():
        if isinstance(module, block.DFL):  # no weights: the bins' distances
            module.conv.weight.copy_(torch.arange(module.c1).float().view(1, -1, 1, 1))
    head: Any = model.model[-1]
    heads = []
    scores = ScoreCalibration(LOGIT_MEAN, LOGIT_SPREAD)
    for boxes, classes in _heads(head):
        _randomise_boxes(boxes, head.reg_max)
        heads += [(cast(nn.Sequential, level)[-1], scores) for level in classes]
    pictures = photographs(_SIZE, _SIZE, Preprocessing("letterbox", align="center"))
    settle(model, norms, heads, lambda: model(pictures))
