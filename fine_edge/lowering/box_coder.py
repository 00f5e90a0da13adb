"""The decoding of boxes from anchors or proposals and a head's predictions, as in R-CNN detectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# The largest logarithm of a box's growth, which keeps exp finite.
LARGEST_LOG_SCALE = math.log(1000 / 16)


class BoxDecoder(nn.Module):
    """torchvision's box coder with a clip to the image; works in pixels, so that it must stay FP32.

    Args:
        weights: divisors of the head's outputs x, y, width, height.
        height, width: size of the image in pixels.
    """

    def __init__(self, weights: Sequence[float], height: int, width: int) -> None:
        super().__init__()
        scale = 1 / torch.tensor(weights, dtype=torch.float64)
        self.scale = nn.Buffer(scale.float())
        self.limit = nn.Buffer(torch.tensor([float(width), float(height)] * 2))

    def forward(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Decode deltas (..., 4) and reference boxes (..., 4) x0, y0, x1, y1 to boxes inside the image."""
        corner, side = boxes[..., :2], boxes[..., 2:] - boxes[..., :2]
        scaled = deltas * self.scale
        centre = corner + side * (scaled[..., :2] + 0.5)
        half = scaled[..., 2:].clamp_max(LARGEST_LOG_SCALE).exp() * side * 0.5
        decoded = torch.cat([centre - half, centre + half], -1)
        return torch.minimum(decoded.clamp_min(0.0), self.limit)


def without_small(scores: Tensor, boxes: Tensor, least_px: float) -> Tensor:
    """Set the scores (...) of boxes (..., 4) narrower or lower than ``least_px`` to zero."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return torch.where(sides.amin(-1) >= least_px, scores, 0.0)
