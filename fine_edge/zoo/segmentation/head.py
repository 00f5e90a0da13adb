"""The semantic head of Panoptic FPN (Kirillov et al., 2019, Sec. 3.1), which makes one map at stride 4 of a pyramid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.errors import ConfigError

# The stride of the pyramid's finest level and of the head's output.
STRIDE = 4
# The stride of the coarsest level. With multiples of it every level has exactly twice the size of the next one.
COARSEST_STRIDE = 32
CHANNELS = 128
"""The number of channels of every stage and of the classifier's input."""
_GROUPS = 32


def batch_norm() -> nn.Module:
    """Build the norm of Semantic FPN, mmsegmentation's choice that the paper counted; an export folds it away."""
    return nn.BatchNorm2d(CHANNELS)


def group_norm() -> nn.Module:
    """Build the norm of Panoptic FPN, its authors' choice, whose batches are too small for batch norms."""
    return nn.GroupNorm(_GROUPS, CHANNELS)


def upsampled(x: Tensor, factor: int) -> Tensor:
    """Resize (B, C, H, W) to (B, C, factor * H, factor * W) bilinearly."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def _stage(channels: int, norm: Callable[[], nn.Module], *, doubled: bool) -> nn.Sequential:
    """Build a convolution, a norm, a ReLU and, where ``doubled``, an upsampling."""
    conv = nn.Conv2d(channels, CHANNELS, 3, padding=1, bias=False)
    layers: list[nn.Module] = [conv, norm(), nn.ReLU(inplace=True)]
    if doubled:
        layers.append(nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


class SemanticHead(nn.Module):
    """Stages that bring each level to stride 4, the sum of the levels, and a classifier.

    Args:
        channels: number of channels of the pyramid.
        num_classes: number of classes K.
        norm: builds one norm.
        levels: number of the pyramid's levels that are used, from the finest on.
    """

    def __init__(self, channels: int, num_classes: int, norm: Callable[[], nn.Module], levels: int = 4) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(_stage(CHANNELS if j else channels, norm, doubled=bool(level)) for j in range(max(1, level)))
            )
            for level in range(levels)
        )
        self.classifier = nn.Conv2d(CHANNELS, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map levels (B, C, H / 4, W / 4) and coarser, each half of the one before, to logits (B, K, H / 4, W / 4)."""
        # Deepest first, so that only the sum has to be kept in memory beside the next level.
        *finer, deepest = zip(self.levels, maps, strict=True)
        total: Tensor = deepest[0](deepest[1])
        for level, x in reversed(finer):
            total = total + level(x)
        logits: Tensor = self.classifier(total)
        return logits


def check_size(height: int, width: int) -> None:
    """Refuse sizes whose pyramid does not double from level to level.

    Raises:
        ConfigError: when one of them is not a multiple of 32.
    """
    if height % COARSEST_STRIDE or width % COARSEST_STRIDE:
        raise ConfigError(
            f"an input of {height}x{width} pixels does not divide by {COARSEST_STRIDE}",
            hint=f"choose multiples of {COARSEST_STRIDE}",
        )
