"""Down(.) of Eq. 4 and Up(.) of Eq. 8: from a feature map to its token grid and back.

A token stands for one ``kernel x kernel`` block of pixels. Where the size is not a multiple of the kernel, the last row
and column of blocks are smaller (rounding up, as Fig. 5's FLOPs require), and padding never enters an average.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.fine_options import DownName


class DepthwiseDown(nn.Module):
    """The learned Down(.) of Table 6, a depthwise convolution with kernel = stride; 16C weights at kernel 4."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.conv = nn.Conv2d(channels, channels, kernel, stride=kernel, groups=channels, bias=False)
        # The initial weights compute the average that this operator replaces.
        nn.init.constant_(self.conv.weight, 1.0 / kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, ceil(H / kernel), ceil(W / kernel))."""
        height, width = x.shape[-2:]
        pad_bottom, pad_right = -height % self.kernel, -width % self.kernel
        if pad_bottom or pad_right:
            x = F.pad(x, (0, pad_right, 0, pad_bottom))
        return self.conv(x)  # type: ignore[no-any-return]


def build_down(name: DownName, channels: int, kernel: int) -> nn.Module:
    """Build Down(., kernel) of Eq. 4; at kernel 1 every operator is the identity and has no weights."""
    if kernel == 1:
        return nn.Identity()
    if name == "avg":
        return nn.AvgPool2d(kernel, kernel, ceil_mode=True, count_include_pad=False)
    if name == "max":
        return nn.MaxPool2d(kernel, kernel, ceil_mode=True)
    return DepthwiseDown(channels, kernel)


def upsample(m: Tensor, kernel: int, height: int, width: int) -> Tensor:
    """Compute Up(., scale = kernel) of Eq. 8, each token onto its block of pixels, (B, C, h, w) to (B, C, H, W)."""
    if kernel == 1:
        return m
    up = F.interpolate(m, scale_factor=float(kernel), mode="nearest")
    if up.shape[-2:] != (height, width):
        up = up[:, :, :height, :width]  # blocks at the border are smaller than the kernel
    return up


def tokens(x: Tensor) -> Tensor:
    """Compute Flatten(.) of Eq. 5, from (B, C, H, W) to (B, H * W, C)."""
    # permute + reshape instead of flatten + transpose, which the compiler refuses in front of a projection.
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, x.shape[1])


def feature_map(t: Tensor, height: int, width: int) -> Tensor:
    """Compute Reshape(.) of Eq. 7, from (B, H * W, C) to (B, C, H, W)."""
    return torch.reshape(t, (t.shape[0], height, width, t.shape[2])).permute(0, 3, 1, 2)
