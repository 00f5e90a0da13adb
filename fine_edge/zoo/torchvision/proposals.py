"""The first stage of a two-stage detector, which selects a fixed number of proposals from the proposal head's maps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from fine_edge.lowering.box_coder import BoxDecoder, without_small
from fine_edge.lowering.nms import Nms
from fine_edge.lowering.roi_align import BinRows
from fine_edge.lowering.topk import largest, take_rows
from fine_edge.zoo.family import GraphForm

Size = tuple[int, int]


def level_anchors(rpn: Any, form: GraphForm, sizes: list[Size]) -> list[Tensor]:
    """Return torchvision's anchors of each level, (H_i * W_i * A, 4) in pixels."""
    maps = [torch.empty(1, 1, *size) for size in sizes]
    images = ImageList(torch.empty(1, 3, form.height, form.width), [(form.height, form.width)])
    (anchors,) = rpn.anchor_generator(images, maps)
    per_cell = rpn.anchor_generator.num_anchors_per_location()
    rows = [height * width * count for (height, width), count in zip(sizes, per_cell, strict=True)]
    return list(anchors.split(rows))


class Proposals(nn.Module):
    """The selection of torchvision's ``filter_proposals`` from the region proposal head; must stay FP32.

    The best 1000 of each level go through non-maximum suppression. The levels form a batch, which keeps the matrices of
    overlaps small. The best 1000 remaining boxes of all levels are the proposals.

    Args:
        rpn: torchvision's RegionProposalNetwork.
        form: form of the graph.
        sizes: sizes (H_i, W_i) of the levels.
        bins: what the second stage pools of each box.
    """

    def __init__(self, rpn: Any, form: GraphForm, sizes: list[Size], bins: BinRows) -> None:
        super().__init__()
        anchors = level_anchors(rpn, form, sizes)
        for i, level in enumerate(anchors):
            self.register_buffer(f"anchors{i}", level)
        self.taken = [min(rpn.pre_nms_top_n(), len(level)) for level in anchors]
        self.rows = max(self.taken)
        self.count = min(rpn.post_nms_top_n(), len(anchors) * self.rows)
        self.decode = BoxDecoder(rpn.box_coder.weights, form.height, form.width)
        self.least_px = rpn.min_size
        self.nms = Nms(rpn.nms_thresh, self.rows, form.nms, ordered=True)
        self.bins = bins

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, ...]:
        """Select proposals from maps (B, A + 4 * A, H_i, W_i) of objectness and box deltas.

        Returns:
            Boxes (B, N, 4) and scores (B, N), best first, with score 0 for missing rows; and rows and shares of their
            bins.
        """
        best = torch.stack([self._best(i, level) for i, level in enumerate(maps)], 1)
        logits, deltas, anchors = best[..., 0], best[..., 1:5], best[..., 5:]
        batch, count, rows = logits.shape
        boxes = self.decode(deltas, anchors)  # (B, L, R, 4)
        scores = without_small(logits.sigmoid(), boxes, self.least_px)
        levels_apart = batch * count, rows
        groups = torch.zeros(levels_apart, dtype=torch.int64)  # one group, as rows of a batch are never compared
        boxes, scores, _ = self.nms(boxes.reshape(*levels_apart, 4), scores.reshape(levels_apart), groups)
        scores, index = largest(scores.reshape(batch, count * rows), self.count)
        boxes = take_rows(boxes.reshape(batch, count * rows, 4), index)
        return boxes, scores, *self.bins(boxes)

    def _best(self, i: int, level: Tensor) -> Tensor:
        """Return a level's best rows (B, R, 9) of logit, deltas and anchor, padded with zeros, which are no boxes."""
        batch = level.shape[0]
        level = level.permute(0, 2, 3, 1)  # (B, H, W, 5 * A)
        per_cell = level.shape[-1] // 5
        logits, index = largest(level[..., :per_cell].reshape(batch, -1), self.taken[i])
        deltas = take_rows(level[..., per_cell:].reshape(batch, -1, 4), index)
        anchors = self.get_buffer(f"anchors{i}").index_select(0, index.reshape(-1)).reshape(batch, -1, 4)
        return F.pad(torch.cat([logits.unsqueeze(2), deltas, anchors], 2), (0, 0, 0, self.rows - self.taken[i]))
