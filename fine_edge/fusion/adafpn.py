"""AdaFPN: upsampling from predicted sampling points, and a weight for each map at each pixel.

Source: C. Wang, C. Zhong, "Adaptive Feature Pyramid Networks for Object Detection", IEEE Access 9, 2021, which is the
FINE paper's reference: adaptive feature upsampling (AdaUp) predicts a group of sampling points for every pixel and
puts the pixel together from the features there; adaptive feature fusion (AFF) builds pixel-level weights of the two
maps by attention.

What could not be matched: of the paper, its summary alone was at hand, and its authors published no code. The layers'
sizes follow what the FINE authors published as their reading of it (HyungseopLee/FINE-FPN): four points, offsets from
a 1x1 and a 3x3 convolution of both maps, a 1x1 convolution of the sampled map, the mean over the points; weights from
two 3x3 convolutions of both maps and two narrow ones, through a sigmoid. One thing differs: in that reading all four
points start at the same place, get the same gradients and remain one point. Here they start at the corners of the
pixel they make up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.fusion.top_down import TopDown

# Where a pixel's sampling points start, in pixels of the upsampled map (x, y): the pixel's corners.
CORNERS = ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5))
NARROWING = 16
"""Channels of the attention over those of the maps."""


class PointSampling(nn.Module):
    """Every pixel as the mean over its sampling points. A module of its own, ``sampling``, so that it can stay FP32.

    In FP16 a position would be off by about 1/8192 of the map's side: 0.01 pixels in 80.
    """

    def forward(self, feature: Tensor, offset: Tensor) -> Tensor:
        """A map (B, C, h, w) and, in pixels, x and y of each point's offset (B, 2P, H, W) to (B, C, H, W)."""
        samples = [
            F.grid_sample(feature, position, mode="bilinear", padding_mode="border", align_corners=False)
            for position in self.positions(offset).unbind(1)
        ]
        return torch.stack(samples).mean(0)

    def positions(self, offset: Tensor) -> Tensor:
        """Offsets (B, 2P, H, W) to positions (B, P, H, W, 2), x before y, the map's borders at -1 and 1."""
        batch, doubled, height, width = offset.shape
        moved = offset.reshape(batch, doubled // 2, 2, height, width).permute(0, 1, 3, 4, 2)
        # Made and rounded by numpy, so that an exporter sees one constant.
        starts = _starts(height, width).astype(np.float64 if offset.dtype == torch.float64 else np.float32)
        return offset.new_tensor(starts) + moved * offset.new_tensor([2 / width, 2 / height])


def _starts(height: int, width: int) -> npt.NDArray[np.float64]:
    """Where the points of every pixel start, (P, H, W, 2)."""
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    starts = centres + np.array(CORNERS)[:, None, None]
    return 2 * starts / np.array([width, height]) - 1  # type: ignore[no-any-return]


class AdaptiveUpsampling(nn.Module):
    """AdaUp: every pixel is put together from the high-level map at points that both maps decide on."""

    def __init__(self, channels: int, high_channels: int) -> None:
        super().__init__()
        self.compare = nn.Conv2d(channels + high_channels, high_channels, 1)
        self.offset = nn.Conv2d(high_channels, 2 * len(CORNERS), 3, padding=1)
        self.feature = nn.Conv2d(high_channels, high_channels, 1)
        self.sampling = PointSampling()
        for zero in self.offset.parameters():
            nn.init.zeros_(zero)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(B, C, H, W) and (B, C_high, h, w) to (B, C_high, H, W)."""
        up = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
        offset = self.offset(F.relu(self.compare(torch.cat([up, low], 1))))
        return self.sampling(self.feature(high), offset)  # type: ignore[no-any-return]


class AdaptiveFusion(nn.Module):
    """AFF: a weight in (0, 1) for each of the two maps at every pixel."""

    def __init__(self, channels: int, high_channels: int) -> None:
        super().__init__()
        narrow = max(channels // NARROWING, 1)
        self.layers = nn.Sequential(
            nn.Conv2d(channels + high_channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, narrow, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(narrow, 2, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, low: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps (B, C, H, W) and (B, C_high, H, W), each times its weights."""
        of_up, of_low = self.layers(torch.cat([up, low], 1)).split(1, dim=1)  # (B, 1, H, W) each
        return low * of_low, up * of_up


class AdaFpn(TopDown):
    """Adaptive upsampling, then both maps weighted pixel by pixel; their sum is the paper's fused map.

    Args:
        channels: of the low-level map.
        high_channels: of the high-level map.
    """

    def __init__(self, channels: int = 256, high_channels: int = 256) -> None:
        super().__init__()
        self.upsampling = AdaptiveUpsampling(channels, high_channels)
        self.fusion = AdaptiveFusion(channels, high_channels)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B, C_high, h, w) to the weighted maps (B, C, H, W) and (B, C_high, H, W)."""
        weighted: tuple[Tensor, Tensor] = self.fusion(low, self.upsampling(low, high))
        return weighted
