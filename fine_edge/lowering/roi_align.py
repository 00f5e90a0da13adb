"""RoIAlign over the levels of a pyramid, with operators that every compiler has.

The levels lie side by side in one map, the atlas, which a single GridSample reads at the sampling points of all boxes.
The level of each box is computed arithmetically. No shape depends on data, and each box is pooled from its own level
alone. There is no operator RoiAlign, which is a plugin in TensorRT 10.7 and compiles nowhere without a GPU. In real
arithmetic the result is that of torchvision.ops.MultiScaleRoIAlign with ``aligned=False``.

Points are computed in FP32 (:class:`SamplingGrid` must be in a scope that stays FP32), but TensorRT needs both inputs
of GridSample in one type. In FP16 a normalised coordinate is off by at most 2**-12, which is S / 2**13 pixels of a
level for an atlas of side S: 1/27 pixel at 800x800 (S = 300), on average 1/100. A bin of a box is one or two pixels
wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]

# A position outside of an atlas of any size, at which a sample is zero; exact in FP16.
_OUTSIDE = -4.0


@dataclass(frozen=True)
class Atlas:
    """The layout of a pyramid's levels in one map: the finest on top, the others beside each other below it.

    Attributes:
        sizes: sizes (H_i, W_i) of the levels, finest first.
    """

    sizes: tuple[Size, ...]

    @property
    def size(self) -> Size:
        """Return height and width of the atlas."""
        (height, width), below = self.sizes[0], self.sizes[1:]
        height += max((h for h, _ in below), default=0)
        return height, max(width, sum(w for _, w in below))

    @property
    def origins(self) -> tuple[Size, ...]:
        """Return row and column of each level's first pixel."""
        below = self.sizes[1:]
        return (0, 0), *((self.sizes[0][0], sum(w for _, w in below[:i])) for i in range(len(below)))


class AtlasPacking(nn.Module):
    """The copy of all levels into the atlas, which is zero where no level lies."""

    def __init__(self, atlas: Atlas) -> None:
        super().__init__()
        self.size = atlas.size

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map levels (B, C, H_i, W_i), finest first, to the atlas (B, C, H, W)."""
        height, width = self.size
        top, *below = maps
        rows = height - top.shape[2]
        top = F.pad(top, (0, width - top.shape[3]))
        if not below:
            return top
        bottom = torch.cat([F.pad(x, (0, 0, 0, rows - x.shape[2])) for x in below], 3)
        return torch.cat([top, F.pad(bottom, (0, width - bottom.shape[3]))], 2)


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


class SamplingGrid(nn.Module):
    """The positions at which GridSample reads the atlas for boxes; must stay FP32.

    Args:
        atlas: layout of the atlas.
        image_height: height of the boxes' image in pixels.
        pooling: pooling of each box.
    """

    def __init__(self, atlas: Atlas, image_height: int, pooling: Pooling) -> None:
        super().__init__()
        self.output, self.ratio = pooling.output, pooling.ratio
        exponents = stride_exponents(atlas.sizes, image_height)
        # Level k begins at a side of 2**(k - level) canonical ones; torchvision adds 1e-6 to the logarithm of the side.
        octaves = [k - pooling.canonical_level - 1e-6 for k in range(exponents[0] + 1, exponents[-1] + 1)]
        self.areas = nn.Buffer(torch.tensor([4.0**octave for octave in octaves]))
        self.canonical_scale = pooling.canonical_scale
        # One row for each level: scale, then x and y of its last pixel, then x and y of its origin.
        places = zip(exponents, atlas.sizes, atlas.origins, strict=True)
        rows = [[2.0**-k, width - 1.0, height - 1.0, x, y] for k, (height, width), (y, x) in places]
        self.levels = nn.Buffer(torch.tensor(rows))
        # Offsets (ratio, 1, output, 1) as shares of a box's side: the first points of all bins, then the second ones.
        points = (torch.arange(self.output * self.ratio) + 0.5) / (self.output * self.ratio)
        self.offsets = nn.Buffer(points.reshape(self.output, self.ratio).T[:, None, :, None].contiguous())
        height, width = atlas.size
        self.to_normalised = nn.Buffer(torch.tensor([2 / width, 2 / height]))

    def forward(self, boxes: Tensor) -> Tensor:
        """Map boxes (B, N, 4) x0, y0, x1, y1 in pixels to positions in the atlas, whose borders are at -1 and 1.

        Returns:
            Positions (B, ratio * ratio * N * output, output, 2), x before y.
        """
        batch, count = boxes.shape[:2]
        start, end = boxes[..., :2], boxes[..., 2:]
        area = ((end - start) / self.canonical_scale).prod(-1, keepdim=True)  # as a share, which FP16 could hold too
        level = (area >= self.areas).sum(-1)  # (B, N)
        chosen = self.levels.index_select(0, level.reshape(-1)).reshape(batch, 1, count, 1, 5)
        scale, last, origin = chosen[..., :1], chosen[..., 1:3], chosen[..., 3:]
        start = start[:, None, :, None] * scale  # (B, 1, N, 1, 2)
        side = (end[:, None, :, None] * scale - start).clamp_min(1.0)
        at = start + self.offsets * side  # (B, ratio, N, output, 2), pixels of the level
        inside = (at >= -1.0) & (at <= last + 1.0)
        at = torch.minimum(at.clamp_min(0.0), last) + origin + 0.5
        at = torch.where(inside, at * self.to_normalised - 1.0, _OUTSIDE)
        ratio, output = self.ratio, self.output
        x = at[..., 0].reshape(batch, 1, ratio, count, 1, output).expand(-1, ratio, -1, -1, output, -1)
        y = at[..., 1].reshape(batch, ratio, 1, count, output, 1).expand(-1, -1, ratio, -1, -1, output)
        return torch.stack([x, y], -1).reshape(batch, -1, output, 2)


def pool(atlas: Tensor, grid: Tensor, ratio: int) -> Tensor:
    """Pool boxes as the mean of each bin's sampling points.

    Args:
        atlas: maps of all levels (B, C, H, W).
        grid: positions (B, ratio * ratio * N * output, output, 2) of :class:`SamplingGrid`.
        ratio: :attr:`Pooling.ratio`.

    Returns:
        Features (B * N, C, output, output).
    """
    batch, channels, output = len(atlas), atlas.shape[1], grid.shape[2]
    # With these settings ONNX Runtime computes points once for all channels, which is three times as fast.
    samples = F.grid_sample(atlas, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # The points of a bin lie far apart, so that their mean is a sum of whole maps without a change of layout.
    bins = samples.reshape(batch, channels, ratio * ratio, -1).mean(2)
    return bins.reshape(batch, channels, -1, output, output).transpose(1, 2).reshape(-1, channels, output, output)
