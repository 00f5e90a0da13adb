"""The fusion of two levels in a top-down path, which FINE and its rivals share, and the plainest of these, SNI.

A neck brings a low-level map and the high-level map above it to one size, and adds or concatenates them. FINE refines
the low-level map alone. Its rivals change the upsampled map, or both maps, or the laterals in front of all fusions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.errors import ConfigError


class TopDown(nn.Module):
    """A fusion method for both maps: ``forward(low, high)`` returns ``(low', up')``, both of low's size."""


class Laterals(nn.Module):
    """A pyramid's way from the backbone's maps to those that its fusions take, in place of one convolution a level.

    ``forward(maps)`` maps a list of (B, C_i, H_i, W_i), finest first, to a list of (B, C, H_i, W_i).

    Args:
        in_channels: number of channels of each of the backbone's maps, finest first.
        channels: number of channels of the neck.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.in_channels, self.channels = tuple(in_channels), channels


def top_down(method: nn.Module | None, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the two maps that a neck adds or concatenates.

    Args:
        method: a :class:`TopDown`, a module such as ``Fine`` that returns the refined low-level map, or ``None``.
        low: low-level map (B, C, H, W).
        high: coarser map (B, C_high, H_high, W_high).

    Returns:
        The low-level map (B, C, H, W) and the high-level map at its size (B, C_high, H, W).
    """
    if isinstance(method, TopDown):
        refined, upsampled = method(low, high)
        return refined, upsampled
    if method is not None:
        low = method(low, high)
    return low, F.interpolate(high, size=low.shape[-2:], mode="nearest")


# SNI, soft nearest neighbour interpolation, which gives the upsampled map a smaller weight in the fusion.
#
# Source: H. Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024. There Y = alpha * f(X) with f
# the nearest neighbour interpolation and alpha the resolution of X over that of Y: 1 / factor^2, 1/4 between neighbours
# of a pyramid. It has no parameters and no multiply-accumulates: Table 2's +0 / +0.
#
# Here alpha is a constant that follows from the strides. Where a size is odd, the quotient of the two maps' areas is a
# little more than 1/4. The weight would then depend on the input size, which the paper does not ask for.


class Sni(TopDown):
    """Nearest neighbour upsampling times 1 / factor^2.

    Args:
        factor: ratio of the strides of the two levels.
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise ConfigError(f"factor must be at least 1, not {factor}", where="Sni")
        self.alpha = 1.0 / factor**2

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return low (B, C, H, W) unchanged, and high (B, C_high, h, w) scaled and at low's size (B, C_high, H, W)."""
        # Scaling before upsampling gives the same numbers with a quarter of the products.
        return low, F.interpolate(high * self.alpha, size=low.shape[-2:], mode="nearest")
