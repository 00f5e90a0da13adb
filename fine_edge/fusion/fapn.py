"""FaPN, which aligns the high-level map to the low-level one by a deformable convolution before they are fused.

Source: S. Huang, Z. Lu, R. Cheng, C. He, "FaPN: Feature-aligned Pyramid Network for Dense Image Prediction", ICCV 2021,
feature alignment (FAM) and feature selection (FSM). Sizes and initial values follow the authors' public implementation
(EMI-Group/FaPN): no norms, 8 deformable groups, bilinear upsampling, offsets and logits of the mask that start at zero.

Two points differ, because a fusion method here takes the maps that a neck adds or concatenates:

* FaPN selects among the backbone's channels, and its last 1x1 convolution is the pyramid's lateral one. Here the
  lateral convolution (torchvision) or projection (RT-DETR) comes first, and the selection works on its output. That is
  C^2 weights more, and C instead of C_backbone channels to choose from.
* FaPN has an alignment at every fusion, stride 4 included. Here the neck decides where the modules are.

The implementation that the FINE authors published for RT-DETR (HyungseopLee/FINE-FPN) cuts the convolution itself into
8 groups instead of its offsets: 0.835 M weights a module and Table 2's +1.7 M, where the original has 1.350 M. fvcore
does not count deformable convolutions: their product (9 C^2 a pixel) and their sampling are in no FLOPs here, nor in
that table.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.errors import ConfigError
from fine_edge.fusion.top_down import TopDown

DEFORMABLE_GROUPS = 8
"""The number of groups of channels that share their offsets."""
KERNEL = 3


class FeatureSelection(nn.Module):
    """Feature selection (FSM), which emphasises channels: conv(x + u * x), u = sigmoid(conv(global average of x))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.importance = nn.Conv2d(channels, channels, 1, bias=False)
        self.select = nn.Conv2d(channels, channels, 1, bias=False)
        for layer in (self.importance, self.select):
            _fill(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        u = torch.sigmoid(self.importance(x.mean((2, 3), keepdim=True)))  # (B, C, 1, 1)
        return self.select(x + x * u)  # type: ignore[no-any-return]


class FeatureAlignment(nn.Module):
    """Feature alignment (FAM) of the upsampled map: a modulated deformable convolution and a ReLU."""

    def __init__(self, channels: int, high_channels: int) -> None:
        super().__init__()
        # Imported here because FINE itself needs torch alone.
        from torchvision.ops import DeformConv2d

        if high_channels % DEFORMABLE_GROUPS:
            raise ConfigError(
                f"{high_channels} channels cannot be cut into {DEFORMABLE_GROUPS} deformable groups", where="FaPN"
            )
        self.compare = nn.Conv2d(channels + high_channels, high_channels, 1, bias=False)
        points = DEFORMABLE_GROUPS * KERNEL**2
        self.predict = nn.Conv2d(high_channels, 3 * points, KERNEL, padding=KERNEL // 2)
        self.splits = [2 * points, points]
        self.align: nn.Module = DeformConv2d(high_channels, high_channels, KERNEL, padding=KERNEL // 2)
        self._initialise()

    def _initialise(self) -> None:
        """Start every point on the regular grid with weight 1/2."""
        _fill(self.compare)
        align: Any = self.align
        bound = 1 / math.sqrt(align.in_channels * KERNEL**2)
        nn.init.uniform_(align.weight, -bound, bound)
        for zero in (align.bias, *self.predict.parameters()):
            nn.init.zeros_(zero)

    def forward(self, low: Tensor, up: Tensor) -> Tensor:
        """Map selected (B, C, H, W) and upsampled (B, C_high, H, W) to the aligned map (B, C_high, H, W)."""
        difference = self.compare(torch.cat([low, 2 * up], 1))
        offset, mask = self.predict(difference).split(self.splits, dim=1)
        return F.relu(self.align(up, offset, torch.sigmoid(mask)))


class Fapn(TopDown):
    """FaPN: feature selection of the low-level map, feature alignment of the high-level one.

    Args:
        channels: number of channels of the low-level map.
        high_channels: number of channels of the high-level map, a multiple of 8.
    """

    def __init__(self, channels: int = 256, high_channels: int = 256) -> None:
        super().__init__()
        self.selection = FeatureSelection(channels)
        self.alignment = FeatureAlignment(channels, high_channels)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, C, H, W), (B, C_high, h, w) to the selected (B, C, H, W) and the aligned map (B, C_high, H, W)."""
        up = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
        selected = self.selection(low)
        return selected, self.alignment(selected, up)


def _fill(layer: nn.Conv2d) -> None:
    nn.init.kaiming_uniform_(layer.weight, a=1)
