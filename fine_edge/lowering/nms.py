"""Greedy non-maximum suppression with fixed shapes, in operators that every compiler has.

A box survives when no better surviving box overlaps it by more than the threshold. Let S[i, j] = 1 where box i is
better than j, of the same group, and overlaps it. The survivors are then the one solution of
``keep[j] = not any_i(keep[i] S[i, j])``. Iterated from "all survive", every round decides at least the next box of each
chain in which a box depends on the one before. t rounds are exact for chains of t boxes; greedy suppression is exact
for any.

Boxes are processed in blocks, best first. Boxes that the survivors of earlier blocks suppress are removed at once. That
splits chains, and a round reads a small part of S. 1000 simulated candidates of 3 to 100 objects needed, at thresholds
of 0.5 to 0.7, at most 11 rounds in one block, 10 in blocks of 500 and 8 in blocks of 250 (tests/lowering/test_nms.py
has such candidates). Where a chain is longer than :data:`ROUNDS`, one box too many survives, and may suppress others in
later blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fine_edge.contract import NmsName
from fine_edge.errors import ConfigError
from fine_edge.lowering.topk import take_rows

# The number of rounds of a block; even, so that an unfinished block has too many boxes rather than too few.
ROUNDS = 10

# Up to about this many boxes, TensorRT-RTX makes a round one kernel instead of two.
LARGEST_BLOCK = 360

# The score of filler boxes; ``onnx`` finds no box that scores less.
LEAST_SCORE = 1e-37


def _float32_below(value: float) -> float:
    """Return the largest float32 that is not above ``value``, as torchvision compares overlaps with a double."""
    rounded = torch.tensor(value, dtype=torch.float32)
    if float(rounded) > value:
        rounded = torch.nextafter(rounded, torch.tensor(-math.inf))
    return float(rounded)


def overlap(some: Tensor, others: Tensor, threshold: float) -> Tensor:
    """Return (B, M, N) whether boxes (B, M, 4) and (B, N, 4) have an IoU above ``threshold``; false for empty ones."""
    x0, y0, x1, y1 = some.unsqueeze(2).unbind(3)  # (B, M, 1) each
    left, top, right, bottom = others.unsqueeze(1).unbind(3)  # (B, 1, N) each
    width = (torch.minimum(x1, right) - torch.maximum(x0, left)).clamp_min(0)
    height = (torch.minimum(y1, bottom) - torch.maximum(y0, top)).clamp_min(0)
    shared = width * height
    union = (x1 - x0) * (y1 - y0) + (right - left) * (bottom - top) - shared
    # The same order of operations as in torchvision's kernel, so that overlaps of the threshold itself round alike.
    return shared / union.clamp_min(1e-30) > threshold


class Nms(nn.Module):
    """The suppression of boxes that a better one of their group overlaps, with a fixed number of rows, best first.

    Args:
        iou_threshold: the IoU above which a box suppresses another.
        keep: number of rows of the result.
        how: ``graph`` for ordinary operators; ``onnx`` for one NonMaxSuppression node an image, which TensorRT maps
            to its INMSLayer. That node has no groups. Their boxes are moved apart instead, as in torchvision, which
            rounds coordinates to about 0.01 px for 91 groups at 800 px.
        ordered: whether rows come best first already, which saves a sort. Rows of score 0 may lie between others.
    """

    def __init__(
        self,
        iou_threshold: float,
        keep: int,
        how: NmsName = "graph",
        *,
        ordered: bool = False,
    ) -> None:
        super().__init__()
        self.iou_threshold, self.keep = _float32_below(iou_threshold), keep
        self.how, self.ordered = how, ordered

    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Suppress within groups.

        Args:
            boxes: boxes (B, N, 4) x0, y0, x1, y1; N is at least ``keep`` and, for TensorRT's TopK, at most 3840.
            scores: scores (B, N); rows of score 0 are no boxes.
            groups: class or level (B, N); only boxes of equal groups suppress each other.

        Returns:
            Boxes (B, keep, 4), scores (B, keep) and rows (B, keep) int64 of the input; zeros where no box is left.

        Raises:
            ConfigError: when there are fewer rows than ``keep``.
        """
        if boxes.shape[1] < self.keep:
            raise ConfigError(f"{boxes.shape[1]} boxes are fewer than the {self.keep} to keep", where="Nms")
        if self.how == "onnx" and torch.compiler.is_exporting():
            return self._as_nodes(boxes, scores, groups)
        return self._in_rounds(boxes, scores, groups)

    def _in_rounds(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = boxes.shape[1]
        order = None
        if not self.ordered:
            scores, order = scores.topk(count, dim=1)
            boxes, groups = take_rows(boxes, order), take_rows(groups, order)
        kept = self._survivors(boxes, groups, (scores > 0).to(boxes.dtype).unsqueeze(1)).squeeze(1)

        # Survivors move to the front. Their places all differ, so that a compiler's TopK meets no ties.
        places = torch.arange(count, 0, -1, dtype=boxes.dtype, device=boxes.device)
        found, slot = (kept * places).topk(self.keep, dim=1)
        present = found > 0
        boxes = torch.where(present.unsqueeze(2), take_rows(boxes, slot), 0.0)
        scores = torch.where(present, take_rows(scores, slot), 0.0)
        rows = slot if order is None else take_rows(order, slot)
        return boxes, scores, torch.where(present, rows, 0)

    def _survivors(self, boxes: Tensor, groups: Tensor, candidates: Tensor) -> Tensor:
        """Map candidates (B, 1, N), zeros and ones, to the survivors among the ordered boxes (B, N, 4)."""
        count = boxes.shape[1]
        size = math.ceil(count / math.ceil(count / LARGEST_BLOCK))
        parts = list(
            zip(*(torch.split(x, size, axis) for x, axis in ((boxes, 1), (groups, 1), (candidates, 2))), strict=True)
        )
        kept: list[Tensor] = []
        for number, (these, group, free) in enumerate(parts):
            start = number * size
            if kept:
                hit = self._hits(boxes[:, :start], groups[:, :start], these, group)
                free = torch.where(torch.cat(kept, 2) @ hit > 0, 0.0, free)
            kept.append(self._settled(self._hits(these, group, these, group).triu(1), free))
        return torch.cat(kept, 2)

    def _hits(self, better: Tensor, better_group: Tensor, boxes: Tensor, group: Tensor) -> Tensor:
        same = better_group.unsqueeze(2) == group.unsqueeze(1)
        return (overlap(better, boxes, self.iou_threshold) & same).to(boxes.dtype)

    def _settled(self, suppresses: Tensor, candidates: Tensor) -> Tensor:
        """Iterate on S (B, N, N) from candidates (B, 1, N), zeros and ones, to the survivors among them."""
        kept = candidates
        for _ in range(ROUNDS):
            kept = torch.where(kept @ suppresses > 0, 0.0, candidates)
        return kept

    def _as_nodes(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = boxes.shape[1]
        apart = boxes + groups.to(boxes.dtype).unsqueeze(2) * (boxes.amax(dim=(1, 2), keepdim=True) + 1)
        chosen = [self._node(one, of_it) for one, of_it in zip(apart.unbind(), scores.unbind(), strict=True)]
        rows = torch.stack(chosen).clamp_max(count)  # (B, keep); ``count`` where no box is left
        present = rows < count
        # One more row of zeros stands for missing boxes.
        boxes = take_rows(torch.cat([boxes, torch.zeros_like(boxes[:, :1])], dim=1), rows)
        scores = take_rows(torch.cat([scores, torch.zeros_like(scores[:, :1])], dim=1), rows)
        return boxes, scores, torch.where(present, rows, 0)

    def _node(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Return the surviving rows (keep,) of one image's boxes (N, 4), best first; missing ones count from N on."""
        # Filler boxes overlap no other and score below all, so that the node always gives ``keep`` rows.
        left = -2.0 * torch.arange(1, self.keep + 1, dtype=boxes.dtype).unsqueeze(1)
        filler = torch.cat([left, torch.zeros_like(left), left + 1, torch.ones_like(left)], dim=1)
        selected = torch.onnx.ops.symbolic(
            "NonMaxSuppression",
            (
                torch.cat([boxes, filler]).unsqueeze(0),
                torch.cat([scores, torch.full((self.keep,), LEAST_SCORE)]).reshape(1, 1, -1),
                torch.tensor([self.keep]),
                torch.tensor([self.iou_threshold]),
                torch.tensor([0.0]),
            ),
            dtype=torch.int64,
            shape=(self.keep, 3),  # image, class, row
        )
        return selected[:, 2]
