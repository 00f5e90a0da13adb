"""RoIAlign over the levels of a pyramid, with operators that every compiler has.

The levels lie side by side in one map, the atlas, which a single GridSample reads at the sampling points of all boxes;
what each box's level is, is arithmetic. So nothing has a shape that depends on data, no box is pooled from a level
that is not its own, and there is no operator RoiAlign, which is a plugin in TensorRT 10.7 and compiles nowhere
without a GPU. In real arithmetic the result is that of torchvision.ops.MultiScaleRoIAlign with ``aligned=False``.

Points are worked out in FP32 (:class:`SamplingGrid` belongs into a scope that stays so), but TensorRT wants both
inputs of GridSample in one type. In FP16 a normalised coordinate is off by at most 2**-12, which is S / 2**13 pixels
of a level for an atlas of side S: 1/27 pixel at 800x800 (S = 300), on average 1/100, where a bin of a box is a pixel
or two wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]

# Where a point counts as zero: outside of the atlas however small that is, and exact in FP16.
_OUTSIDE = -4.0


@dataclass(frozen=True)
class Atlas:
    """How the levels of a pyramid lie in one map: the finest on top, the others beside each other below it.

    Attributes:
        sizes: (H_i, W_i) of the levels, finest first.
    """

    sizes: tuple[Size, ...]

    @property
    def size(self) -> Size:
        """Height and width."""
        (height, width), below = self.sizes[0], self.sizes[1:]
        height += max((h for h, _ in below), default=0)
        return height, max(width, sum(w for _, w in below))

    @property
    def origins(self) -> tuple[Size, ...]:
        """Row and column of each level's first pixel."""
        below = self.sizes[1:]
        return (0, 0), *((self.sizes[0][0], sum(w for _, w in below[:i])) for i in range(len(below)))


class AtlasPacking(nn.Module):
    """Maps (B, C, H_i, W_i) to the atlas (B, C, H, W); what no level covers is zero."""

    def __init__(self, atlas: Atlas) -> None:
        super().__init__()
        self.size = atlas.size

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Finest first."""
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
    """What is pooled from a box.

    Attributes:
        output: side of the pooled square, bins.
        ratio: sampling points of a bin along each side.
        canonical_scale, canonical_level: boxes of this side, pixels, take this level, log2 of its stride.
    """

    output: int
    ratio: int = 2
    canonical_scale: int = 224
    canonical_level: int = 4


def stride_exponents(sizes: tuple[Size, ...], image_height: int) -> list[int]:
    """log2 of each level's stride, from its height: torchvision takes the nearest power of two."""
    return [-round(math.log2(height / image_height)) for height, _ in sizes]


class SamplingGrid(nn.Module):
    """Boxes (B, N, 4) x0, y0, x1, y1 in pixels to where GridSample reads the atlas for them. Keep it FP32.

    Args:
        atlas: that is read.
        image_height: of the boxes' image, pixels.
        pooling: what from each box.
    """

    def __init__(self, atlas: Atlas, image_height: int, pooling: Pooling) -> None:
        super().__init__()
        self.output, self.ratio = pooling.output, pooling.ratio
        exponents = stride_exponents(atlas.sizes, image_height)
        # Level k from a side of 2**(k - level) canonical ones on; torchvision adds 1e-6 to the logarithm of the side.
        octaves = [k - pooling.canonical_level - 1e-6 for k in range(exponents[0] + 1, exponents[-1] + 1)]
        self.areas = nn.Buffer(torch.tensor([4.0**octave for octave in octaves]))
        self.canonical_scale = pooling.canonical_scale
        # A level a row: scale, then x and y of its last pixel, and x and y of its origin.
        places = zip(exponents, atlas.sizes, atlas.origins, strict=True)
        rows = [[2.0**-k, width - 1.0, height - 1.0, x, y] for k, (height, width), (y, x) in places]
        self.levels = nn.Buffer(torch.tensor(rows))
        # Of a box's side, (ratio, 1, output, 1): the first points of all bins, then the second ones.
        points = (torch.arange(self.output * self.ratio) + 0.5) / (self.output * self.ratio)
        self.offsets = nn.Buffer(points.reshape(self.output, self.ratio).T[:, None, :, None].contiguous())
        height, width = atlas.size
        self.to_normalised = nn.Buffer(torch.tensor([2 / width, 2 / height]))

    def forward(self, boxes: Tensor) -> Tensor:
        """(B, ratio * ratio * N * output, output, 2), x and y in [-1, 1] from one border of the atlas to the other."""
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
    """Mean of each bin's sampling points.

    Args:
        atlas: (B, C, H, W).
        grid: (B, ratio * ratio * N * output, output, 2) of :class:`SamplingGrid`.
        ratio: :attr:`Pooling.ratio`.

    Returns:
        (B * N, C, output, output).
    """
    batch, channels, output = len(atlas), atlas.shape[1], grid.shape[2]
    # ONNX Runtime works points out once for all channels with these very settings, which is three times as fast.
    samples = F.grid_sample(atlas, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # The points of a bin lie far apart, so that their mean is a sum of whole maps: no pooling, no change of layout.
    bins = samples.reshape(batch, channels, ratio * ratio, -1).mean(2)
    return bins.reshape(batch, channels, -1, output, output).transpose(1, 2).reshape(-1, channels, output, output)
