"""AdaFPN: upsampling from predicted sampling points, and a weight for each map at each pixel.

Source: C. Wang, C. Zhong, "Adaptive Feature Pyramid Networks for Object Detection", IEEE Access 9, 2021, which is the
FINE paper's reference. Its adaptive feature upsampling (AdaUp) predicts a group of sampling points for every pixel and
computes the pixel from the features there. Its adaptive feature fusion (AFF) computes pixel-level weights of the two
maps by attention.

What could not be matched: only the paper's summary was available, and its authors published no code. The layers' sizes
follow the implementation that the FINE authors published (HyungseopLee/FINE-FPN): four points, offsets from a 1x1 and a
3x3 convolution of both maps, a 1x1 convolution of the sampled map, and the mean over the points; weights from two 3x3
convolutions of both maps and two narrow ones, through a sigmoid. One point differs. In that implementation all four
points start at the same place, get the same gradients and remain one point. Here they start at the pixel's corners.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.fusion.top_down import TopDown

# The initial sampling points of a pixel, its corners, as (x, y) in pixels of the upsampled map.
CORNERS = ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5))
# The ratio of the maps' channels to the attention's.
NARROWING = 16


class PointSampling(nn.Module):
    """The sampling of every pixel as the mean over its points; a module of its own so that it can stay FP32.

    In FP16 a position would be off by about 1/8192 of the map's side: 0.01 pixels in 80.
    """

    def forward(self, feature: Tensor, offset: Tensor) -> Tensor:
        """Sample a map (B, C, h, w) at offsets (B, 2P, H, W), x and y of each point in pixels, to (B, C, H, W)."""
        samples = [
            F.grid_sample(feature, position, mode="bilinear", padding_mode="border", align_corners=False)
            for position in self.positions(offset).unbind(1)
        ]
        return torch.stack(samples).mean(0)

    def positions(self, offset: Tensor) -> Tensor:
        """Map offsets (B, 2P, H, W) to positions (B, P, H, W, 2), x before y, the map's borders at -1 and 1."""
        batch, doubled, height, width = offset.shape
        moved = offset.reshape(batch, doubled // 2, 2, height, width).permute(0, 1, 3, 4, 2)
        # Computed and rounded by numpy, so that an exporter sees one constant.
        starts = _starts(height, width).astype(np.float64 if offset.dtype == torch.float64 else np.float32)
        return offset.new_tensor(starts) + moved * offset.new_tensor([2 / width, 2 / height])


def _starts(height: int, width: int) -> npt.NDArray[np.float64]:
    """Return the initial positions of every pixel's points, (P, H, W, 2)."""
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    starts = centres + np.array(CORNERS)[:, None, None]
    return 2 * starts / np.array([width, height]) - 1  # type: ignore[no-any-return]


class AdaptiveUpsampling(nn.Module):
    """AdaUp, which samples the high-level map at points that are predicted from both maps."""

    def __init__(self, channels: int, high_channels: int) -> None:
        super().__init__()
        self.compare = nn.Conv2d(channels + high_channels, high_channels, 1)
        self.offset = nn.Conv2d(high_channels, 2 * len(CORNERS), 3, padding=1)
        self.feature = nn.Conv2d(high_channels, high_channels, 1)
        self.sampling = PointSampling()
        for zero in self.offset.parameters():
            nn.init.zeros_(zero)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Map (B, C, H, W) and (B, C_high, h, w) to (B, C_high, H, W)."""
        up = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
        offset = self.offset(F.relu(self.compare(torch.cat([up, low], 1))))
        return self.sampling(self.feature(high), offset)  # type: ignore[no-any-return]


class AdaptiveFusion(nn.Module):
    """AFF, which gives each of the two maps a weight in (0, 1) at every pixel."""

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
        """Multiply two maps (B, C, H, W) and (B, C_high, H, W) by their weights."""
        of_up, of_low = self.layers(torch.cat([up, low], 1)).split(1, dim=1)  # (B, 1, H, W) each
        return low * of_low, up * of_up


class AdaFpn(TopDown):
    """AdaFPN: adaptive upsampling, then weights for both maps; their sum is the paper's fused map.

    Args:
        channels: number of channels of the low-level map.
        high_channels: number of channels of the high-level map.
    """

    def __init__(self, channels: int = 256, high_channels: int = 256) -> None:
        super().__init__()
        self.upsampling = AdaptiveUpsampling(channels, high_channels)
        self.fusion = AdaptiveFusion(channels, high_channels)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W) and (B, C_high, h, w) to the weighted maps (B, C, H, W) and (B, C_high, H, W)."""
        weighted: tuple[Tensor, Tensor] = self.fusion(low, self.upsampling(low, high))
        return weighted
