"""FaPN, which aligns the high-level map to the low-level one by a deformable convolution before they are fused.

Source: S. Huang, Z. Lu, R. Cheng, C. He, "FaPN: Feature-aligned Pyramid Network for Dense Image Prediction", ICCV 2021,
feature selection (FSM) and feature alignment (FAM). The selection stands in the place of the lateral convolutions: it
chooses among the backbone's channels, at every level. The alignment stands at the two deepest fusions.

Sizes are those that the training logs of the FINE authors print (HyungseopLee/FINE-FPN): a group norm behind the
convolution that weighs channels, a batch norm behind the one that compares two maps, and a deformable convolution in 8
groups, so that a group of weights has offsets of its own. FaPN's own authors have no norms there and cut the offsets
alone into 8 groups. Initial values are theirs: offsets and logits of the mask start at zero.

fvcore does not count deformable convolutions, so that their product and sampling are in none of RT-DETR's FLOPs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.errors import ConfigError
from fine_edge.fusion.top_down import Laterals, TopDown

# The number of groups of the deformable convolution; each has its own channels and offsets.
DEFORMABLE_GROUPS = 8
# The number of groups of the norm in the selection.
NORM_GROUPS = 32
KERNEL = 3


class FeatureSelection(nn.Module):
    """Feature selection (FSM) of one level: conv(x + u * x), u = sigmoid(norm(conv(global average of x))).

    Args:
        in_channels: number of channels of the backbone's map, a multiple of 32 from 64 on.
        channels: number of channels of the neck.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        # A group of one channel is its own mean, which torch refuses.
        if in_channels % NORM_GROUPS or in_channels == NORM_GROUPS:
            raise ConfigError(
                f"{in_channels} channels cannot be cut into {NORM_GROUPS} groups of two or more", where="FaPN"
            )
        self.importance = nn.Conv2d(in_channels, in_channels, 1, bias=False)
        self.norm = nn.GroupNorm(NORM_GROUPS, in_channels)
        self.select = nn.Conv2d(in_channels, channels, 1, bias=False)
        for layer in (self.importance, self.select):
            _fill(layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C, H, W)."""
        u = torch.sigmoid(self.norm(self.importance(x.mean((2, 3), keepdim=True))))  # (B, C_in, 1, 1)
        return self.select(x + x * u)  # type: ignore[no-any-return]


class SelectedLaterals(Laterals):
    """The feature selection of every level of a pyramid."""

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__(in_channels, channels)
        self.selections = nn.ModuleList(FeatureSelection(count, channels) for count in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Map the backbone's maps (B, C_i, H_i, W_i) to (B, C, H_i, W_i)."""
        return [selection(x) for selection, x in zip(self.selections, maps, strict=True)]


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
        self.compare = nn.Sequential(
            nn.Conv2d(channels + high_channels, high_channels, 1, bias=False), nn.BatchNorm2d(high_channels)
        )
        points = DEFORMABLE_GROUPS * KERNEL**2
        self.predict = nn.Conv2d(high_channels, 3 * points, KERNEL, padding=KERNEL // 2)
        self.splits = [2 * points, points]
        self.align: nn.Module = DeformConv2d(
            high_channels, high_channels, KERNEL, padding=KERNEL // 2, groups=DEFORMABLE_GROUPS
        )
        self._initialise()

    def _initialise(self) -> None:
        """Start every point on the regular grid with weight 1/2."""
        align: Any = self.align
        _fill(self.compare[0])
        bound = 1 / math.sqrt(align.in_channels // DEFORMABLE_GROUPS * KERNEL**2)
        nn.init.uniform_(align.weight, -bound, bound)
        for zero in (align.bias, *self.predict.parameters()):
            nn.init.zeros_(zero)

    def forward(self, low: Tensor, up: Tensor) -> Tensor:
        """Map selected (B, C, H, W) and upsampled (B, C_high, H, W) to the aligned map (B, C_high, H, W)."""
        # The upsampled map counts twice here, as in the code of FaPN's authors.
        difference = self.compare(torch.cat([low, 2 * up], 1))
        offset, mask = self.predict(difference).split(self.splits, dim=1)
        return F.relu(self.align(up, offset, torch.sigmoid(mask)))


class Fapn(TopDown):
    """The alignment of one fusion, whose low-level map is a selected one.

    Args:
        channels: number of channels of the low-level map.
        high_channels: number of channels of the high-level map, a multiple of 8.
    """

    def __init__(self, channels: int = 256, high_channels: int = 256) -> None:
        super().__init__()
        self.alignment = FeatureAlignment(channels, high_channels)

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return low (B, C, H, W) unchanged, and high (B, C_high, h, w) aligned to it (B, C_high, H, W)."""
        up = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
        return low, self.alignment(low, up)


def _fill(layer: nn.Module) -> None:
    weight: Any = layer.weight
    nn.init.kaiming_uniform_(weight, a=1)
