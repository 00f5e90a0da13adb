"""Multi-scale deformable sampling of maps that are kept as tokens, in two forms that give the same.

``rows`` gathers tokens. GridSample reads a map channel by channel, so that each of its reads fetches a sector of 32
bytes for one value of 2. The channels of a head lie beside each other in a token: a sample is four rows with four
shares, and a weighted sum of samples is one product of all shares with all rows. The rewrite is exact in real
arithmetic, with GridSample's zeros outside of the map.

``grid`` is GridSample, level by level, the form that published boards have run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.contract import SamplingName
from fine_edge.lowering.topk import take_rows

Size = tuple[int, int]

_CORNERS = 4
# Where the second of two cells would be on a side of one cell: so far away that it has no share in any sample.
_NOWHERE = 2.0**20


class CornerRows(nn.Module):
    """The four rows around each position, and the share of each in a sum of samples.

    The first of two neighbouring cells is kept within [0, side - 2], and a cell's share is 1 - distance where that is
    positive. Beside the map, both are right as they are: no cell needs a mask.

    A module of its own, named ``sampling``, so that it stays FP32: in FP16 a position would be off by up to 1/64 of a
    cell on a map of 80 cells.

    Args:
        sizes: sizes (H_i, W_i) of the levels; each is a table of rows, cell by cell.
        heads: number of heads, and of rows of a cell.
        points: number of samples of a level.
    """

    def __init__(self, sizes: list[Size], heads: int, points: int) -> None:
        super().__init__()
        self.heads = heads
        self.size = nn.Buffer(torch.tensor([[float(width), float(height)] for height, width in sizes])[:, None])
        # Constants have the full shape of a query's samples: broadcasts of few elements are slow on a CPU.
        last, after, step = [], [], []
        for height, width in sizes:
            last.append([max(0.0, width - 2.0), max(0.0, height - 2.0)])
            after.append([1.0 if side > 1 else _NOWHERE for side in (width, height)])
            step.append([float(heads * (width > 1)), float(heads * width * (height > 1))])
        self.last_x, self.last_y = self._each(last, points)
        self.after_x, self.after_y = self._each(after, points)
        self.step_x, self.step_y = (nn.Buffer(each.int()) for each in self._each(step, points))
        (self.width,) = self._each([[float(width)] for _, width in sizes], points)
        rows = torch.arange(heads).int().reshape(heads, 1, 1)
        self.head = nn.Buffer(rows.expand(heads, len(sizes), points).contiguous())  # (h, L, P)

    @staticmethod
    def _each(by_level: list[list[float]], points: int) -> list[nn.Buffer]:
        """Return one buffer (L, P) for each column of a table with a row for each level."""
        return [nn.Buffer(column[:, None].expand(-1, points).contiguous()) for column in torch.tensor(by_level).T]

    def forward(self, boxes: Tensor, offsets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows int32 of the levels' tables and the share of each, both (B, Q, h, L, 4, P).

        A row that stands for a corner outside of the map has no share.

        Args:
            boxes: cx, cy, w, h (B, Q, 4), with the map's borders at 0 and 1.
            offsets: distances x, y (B, Q, h, L, P, 2) from the centre of a box, in halves of its sides.
            weights: weights of the samples (B, Q, h, L * P).
        """
        centre, side = (part[:, :, None, None, None] * self.size for part in boxes.chunk(2, -1))  # (B, Q, 1, L, 1, 2)
        start, half = centre - 0.5, side * 0.5
        x = start[..., 0] + offsets[..., 0] * half[..., 0]  # (B, Q, h, L, P), cells
        y = start[..., 1] + offsets[..., 1] * half[..., 1]
        left = torch.minimum(x.floor().clamp_min(0.0), self.last_x)
        top = torch.minimum(y.floor().clamp_min(0.0), self.last_y)
        # No row is negative, unless a position was no number.
        first = (((top * self.width + left) * float(self.heads)).int() + self.head).clamp_min(0)
        below = first + self.step_y
        rows = torch.stack([first, first + self.step_x, below, below + self.step_x], 4)

        x, y = x - left, y - top
        weights = weights.reshape(x.shape)
        upper, lower = weights * _share(y), weights * _share(y - self.after_y)
        near, far = _share(x), _share(x - self.after_x)
        return rows, torch.stack([upper * near, upper * far, lower * near, lower * far], 4)


def _share(distance: Tensor) -> Tensor:
    """Return the share of a cell in a bilinear sample at a distance of it, in cells, along one side."""
    return F.relu(1.0 - distance.abs())


class RowSampling(nn.Module):
    """Weighted sums of samples, of tokens gathered as rows; arguments as :class:`CornerRows` has them."""

    def __init__(self, sizes: list[Size], heads: int, points: int) -> None:
        super().__init__()
        self.sampling = CornerRows(sizes, heads, points)

    def forward(self, boxes: Tensor, offsets: Tensor, weights: Tensor, values: list[Tensor]) -> Tensor:
        """Map boxes, offsets and weights of :class:`CornerRows` and values by level (B, H_i * W_i, C) to (B, Q, C)."""
        batch, count, heads, _, points, _ = offsets.shape
        channels = values[0].shape[-1]
        rows, shares = self.sampling(boxes, offsets, weights)
        sums = []
        for level, value in enumerate(values):
            tokens = take_rows(value.reshape(batch, -1, channels // heads), rows[:, :, :, level].flatten(1))
            tokens = tokens.reshape(-1, _CORNERS * points, channels // heads)  # (B * Q * h, 4 * P, d)
            sums.append(shares[:, :, :, level].reshape(-1, 1, _CORNERS * points) @ tokens)
        return _sum(sums).reshape(batch, count, channels)


class GridSampling(nn.Module):
    """The same sums, of maps sampled by GridSample."""

    def __init__(self, sizes: list[Size], heads: int, points: int) -> None:
        super().__init__()
        self.sizes, self.heads, self.points = sizes, heads, points

    def forward(self, boxes: Tensor, offsets: Tensor, weights: Tensor, values: list[Tensor]) -> Tensor:
        """Map what :meth:`RowSampling.forward` takes to what it gives."""
        batch, count, channels = boxes.shape[0], boxes.shape[1], values[0].shape[-1]
        heads, levels, points = self.heads, len(self.sizes), self.points
        centre = (2 * boxes[..., :2] - 1)[:, :, None, None, None]
        grid = centre + offsets * boxes[..., 2:][:, :, None, None, None]  # in [-1, 1] over each level
        grid = grid.permute(0, 2, 1, 3, 4, 5).reshape(batch * heads, count, levels, points, 2)
        weights = weights.transpose(1, 2).reshape(batch * heads, 1, count, levels * points)
        sums = []
        for i, (value, (height, width)) in enumerate(zip(values, self.sizes, strict=True)):
            level = value.transpose(1, 2).reshape(batch * heads, channels // heads, height, width)
            sample = F.grid_sample(level, grid[:, :, i], mode="bilinear", padding_mode="zeros", align_corners=False)
            sums.append((sample * weights[..., i * points : (i + 1) * points]).sum(-1))  # (B * h, d, Q)
        return _sum(sums).reshape(batch, channels, count).transpose(1, 2)


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


# The forms by the names that an export gives them.
FORMS: dict[SamplingName, type[RowSampling | GridSampling]] = {"rows": RowSampling, "grid": GridSampling}
