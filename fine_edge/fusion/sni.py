"""SNI, soft nearest neighbour interpolation: the upsampled map weighs less in the fusion.

Source: H. Li, "Rethinking Features-Fused-Pyramid-Neck for Object Detection", ECCV 2024. There Y = alpha * f(X) with f
the nearest neighbour interpolation and alpha the resolution of X over that of Y: 1 / factor^2, 1/4 between neighbours
of a pyramid. Nothing to learn, no multiply-accumulate: Table 2's +0 / +0.

alpha is a constant of the strides here. Where a size is odd, the quotient of the two maps' own areas is a little more
than 1/4; a network would then see another weight at another input size, which the paper does not ask for.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fine_edge.errors import ConfigError
from fine_edge.fusion.top_down import TopDown


class Sni(TopDown):
    """Nearest neighbour upsampling times 1 / factor^2.

    Args:
        factor: between the strides of the two levels.
    """

    def __init__(self, factor: int = 2) -> None:
        super().__init__()
        if factor < 1:
            raise ConfigError(f"factor must be at least 1, not {factor}", where="Sni")
        self.alpha = 1.0 / factor**2

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B, C_high, h, w) to low as it is and the softened high at its size (B, C_high, H, W)."""
        # Scaled before it is upsampled: the same numbers from a quarter of the products.
        return low, F.interpolate(high * self.alpha, size=low.shape[-2:], mode="nearest")
