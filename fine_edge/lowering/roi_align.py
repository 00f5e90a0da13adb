"""RoIAlign over the levels of a pyramid, with operators that every compiler has.

The levels are kept as tokens, one table for all. A sampling point is four tokens with four shares, and a bin is the
mean of its points: one product of its shares with its tokens, which are gathered as rows. A row is the channels of a
cell side by side, so that nothing else is fetched; GridSample would fetch a sector for every channel of it. The level
of each box is computed arithmetically. No shape depends on data, and each box is pooled from its own level alone. There
is no operator RoiAlign, which is a plugin in TensorRT 10.7 and compiles nowhere without a GPU. In real arithmetic the
result is that of torchvision.ops.MultiScaleRoIAlign with ``aligned=False``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fine_edge.lowering.topk import take_rows

Size = tuple[int, int]

# Boxes of an image whose tokens are gathered at once: 40 MB in FP16 for bins of 7 x 7 and 256 channels.
AT_ONCE = 100


@dataclass(frozen=True)
class Pooling:
    """The pooling of a box.

    Attributes:
        output: side of the pooled square in bins.
        ratio: number of sampling points of a bin along each side.
        canonical_scale: side in pixels of boxes that take the canonical level.
        canonical_level: log2 of that level's stride.
    """

    output: int
    ratio: int = 2
    canonical_scale: int = 224
    canonical_level: int = 4


def stride_exponents(sizes: tuple[Size, ...], image_height: int) -> list[int]:
    """Return log2 of each level's stride from its height; torchvision takes the nearest power of two."""
    return [-round(math.log2(height / image_height)) for height, _ in sizes]


def tokens_of(maps: list[Tensor]) -> Tensor:
    """Return levels (B, C, H_i, W_i), finest first, as one table of tokens (B, M, C)."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(1, 2) for level in maps], 1)


class BinRows(nn.Module):
    """The tokens of each bin, and the share of each in the bin's mean; must stay FP32.

    The points of a bin are a grid, so that rows and shares are sums and products of those along either side.

    Args:
        sizes: sizes (H_i, W_i) of the levels, finest first.
        image_height: height of the boxes' image in pixels.
        pooling: pooling of each box.
    """

    def __init__(self, sizes: tuple[Size, ...], image_height: int, pooling: Pooling) -> None:
        super().__init__()
        self.output, self.ratio = pooling.output, pooling.ratio
        exponents = stride_exponents(sizes, image_height)
        # Level k begins at a side of 2**(k - level) canonical ones; torchvision adds 1e-6 to the logarithm of the side.
        octaves = [k - pooling.canonical_level - 1e-6 for k in range(exponents[0] + 1, exponents[-1] + 1)]
        self.areas = nn.Buffer(torch.tensor([4.0**octave for octave in octaves]))
        self.canonical_scale = pooling.canonical_scale
        self.levels = nn.Buffer(self._levels(sizes, exponents))
        # Positions (1, 1, output * ratio, 1) of the points as shares of a box's side.
        points = (torch.arange(self.output * self.ratio) + 0.5) / (self.output * self.ratio)
        self.points = nn.Buffer(points[:, None].contiguous())

    @staticmethod
    def _levels(sizes: tuple[Size, ...], exponents: list[int]) -> Tensor:
        """Return a row for each level, x before y.

        Scale; the last cell; the last cell that has a next one; the distance of tokens between a cell and its next one,
        0 on a side of one cell; width; the first token.
        """
        rows, first = [], 0
        for k, (height, width) in zip(exponents, sizes, strict=True):
            next_to = float(width > 1), float(width) * (height > 1)
            last = width - 1.0, height - 1.0
            rows.append([2.0**-k, *last, *(max(0.0, side - 1) for side in last), *next_to, float(width), float(first)])
            first += height * width
        return torch.tensor(rows)

    def forward(self, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Map boxes (B, N, 4) x0, y0, x1, y1 in pixels to tokens int32 and shares, (B, N, output ** 2, K) each.

        K is (2 * ratio) ** 2: two cells for each of ``ratio`` points along either side.
        """
        batch, count = boxes.shape[:2]
        start, end = boxes[..., :2], boxes[..., 2:]
        area = ((end - start) / self.canonical_scale).prod(-1, keepdim=True)  # as a share, which FP16 could hold too
        level = (area >= self.areas).sum(-1)  # (B, N)
        chosen = self.levels.index_select(0, level.reshape(-1)).reshape(batch, count, 1, 9)
        scale, last, lowest, step = chosen[..., :1], chosen[..., 1:3], chosen[..., 3:5], chosen[..., 5:7]
        start = start.unsqueeze(2) * scale  # (B, N, 1, 2)
        side = (end.unsqueeze(2) * scale - start).clamp_min(1.0)
        at = start + self.points * side  # (B, N, output * ratio, 2), cells of the level
        inside = torch.where((at >= -1.0) & (at <= last + 1.0), 1.0 / self.ratio, 0.0)
        at = torch.minimum(at.clamp_min(0.0), last)
        cell = torch.minimum(at.floor(), lowest)
        beyond = (at - cell) * inside
        shares = torch.stack([beyond, inside - beyond], 3)  # (B, N, output * ratio, 2, 2), the next cell first
        x, y = cell[..., 0], cell[..., 1] * chosen[..., 7] + chosen[..., 8]  # (B, N, output * ratio), tokens
        x, y = torch.stack([x + step[..., 0], x], 3), torch.stack([y + step[..., 1], y], 3)
        rows = self._along_y(y.int()) + self._along_x(x.int())
        weights = self._along_y(shares[..., 1]) * self._along_x(shares[..., 0])
        return rows.reshape(batch, count, self.output**2, -1), weights.reshape(batch, count, self.output**2, -1)

    def _along_x(self, x: Tensor) -> Tensor:
        """Bring (B, N, output * ratio, 2) to (B, N, 1, output, 1, 2 * ratio)."""
        return x.reshape(*x.shape[:2], 1, self.output, 1, 2 * self.ratio)

    def _along_y(self, y: Tensor) -> Tensor:
        """Bring (B, N, output * ratio, 2) to (B, N, output, 1, 2 * ratio, 1)."""
        return y.reshape(*y.shape[:2], self.output, 1, 2 * self.ratio, 1)


def pool(tokens: Tensor, rows: Tensor, shares: Tensor) -> Tensor:
    """Pool boxes as the mean of each bin's sampling points.

    Args:
        tokens: tokens of all levels (B, M, C).
        rows: tokens of :class:`BinRows` (B, N, output ** 2, K).
        shares: their shares, likewise.

    Returns:
        Features (B, N, output ** 2, C).
    """
    batch, count, bins, each = rows.shape
    pooled: list[Tensor] = []
    for first in range(0, count, AT_ONCE):
        some = slice(first, min(first + AT_ONCE, count))
        here = rows[:, some].flatten(1)
        if pooled:
            # A zero that only the part before can tell: compilers would gather all parts at once, 10 times the memory.
            here = here + pooled[-1][:, 0, 0, :1].abs().clamp_max(0.0).int()
        # No row is negative, unless a position was no number.
        found = take_rows(tokens, here.clamp_min(0)).reshape(-1, each, tokens.shape[2])
        mean = shares[:, some].reshape(-1, 1, each) @ found  # (B * n * output ** 2, 1, C)
        pooled.append(mean.reshape(batch, -1, bins, tokens.shape[2]))
    return torch.cat(pooled, 1)
