"""RT-DETR's postprocessing as part of the graph: the best (query, class) pairs with boxes in pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fine_edge.postprocess.largest import largest


class TopPairs(nn.Module):
    """Logits (B, Q, K) and boxes (B, Q, 4) cx, cy, w, h in [0, 1] to ``labels``, ``boxes_xyxy`` (pixels), ``scores``.

    The top Q of all Q x K pairs by logit, so that one query may speak for several classes; the
    sigmoid comes after the top-k, which it does not reorder.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        # cx, cy, w, h -> x0, y0, x1, y1 in pixels is one linear map.
        half = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]])
        self.to_corners = nn.Buffer(half * torch.tensor([width, height, width, height], dtype=torch.float32))

    def forward(self, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (B, Q) int64, boxes (B, Q, 4), scores (B, Q), best first."""
        batch, queries, classes = logits.shape
        best, index = largest(logits.reshape(batch, queries * classes), queries)
        query = index // classes  # (B, Q)
        if batch == 1:
            # A gather with one-dimensional indices, which stays one kernel.
            chosen = boxes.index_select(1, query.reshape(-1))
        else:
            chosen = boxes.gather(1, query.unsqueeze(-1).expand(-1, -1, 4))
        return index - query * classes, chosen @ self.to_corners, best.sigmoid()
