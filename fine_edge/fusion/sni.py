"""SNI, soft nearest neighbour interpolation, which gives the upsampled map a smaller weight in the fusion.

Source: H. Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024. There Y = alpha * f(X) with f
the nearest neighbour interpolation and alpha the resolution of X over that of Y: 1 / factor^2, 1/4 between neighbours
of a pyramid. It has no parameters and no multiply-accumulates: Table 2's +0 / +0.

Here alpha is a constant that follows from the strides. Where a size is odd, the quotient of the two maps' areas is a
little more than 1/4. The weight would then depend on the input size, which the paper does not ask for.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fine_edge.errors import ConfigError
from fine_edge.fusion.top_down import TopDown


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
