"""The FINE block, Eq. 4 to 9 of the paper in order.

The paper's equations alone give half of its reported parameters. Its tables also require the two LayerNorms and the
feed-forward on the tokens (4C^2 more weights, all on the low-level tokens). With ``ffn_ratio=0`` the block is exactly
Eq. 4 to 9.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.errors import ConfigError
from fine_edge.fusion.attention import STRATEGIES
from fine_edge.fusion.config import FineConfig
from fine_edge.fusion.sampling import build_down, feature_map, tokens, upsample


class FeedForward(nn.Module):
    """The feed-forward o + W2 GELU(W1 LN(o)) on tokens; with W2 = 0 it is the identity, and Eq. 7 is as printed."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.up = nn.Linear(channels, ratio * channels)
        self.down = nn.Linear(ratio * channels, channels)

    def forward(self, o: Tensor) -> Tensor:
        """Map tokens (B, N, C) to (B, N, C)."""
        return o + self.down(F.gelu(self.up(self.norm(o))))  # type: ignore[no-any-return]


class Fine(nn.Module):
    """The Feature Interaction Network, which refines a low-level map with the guidance of a high-level one.

    >>> block = Fine(FineConfig(channels=256, k=2))
    >>> block(low, high).shape == low.shape  # doctest: +SKIP
    True
    """

    def __init__(self, config: FineConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        self.scale = float((channels // config.num_heads) ** -0.5)
        high_channels = config.high_channels or channels
        # Eq. 10, only where the two levels differ in width.
        self.unify = nn.Identity() if high_channels == channels else nn.Conv2d(high_channels, channels, 1, bias=False)
        self.down_low = build_down(config.down, channels, config.low_kernel)
        self.down_high = build_down(config.down, channels, config.high_kernel)
        self.norm_low = nn.LayerNorm(channels)
        self.norm_high = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        self.ffn = FeedForward(channels, config.ffn_ratio) if config.ffn_ratio else nn.Identity()
        if config.identity:
            self.reset_to_identity()

    def modulation_map(self, low: Tensor, high: Tensor) -> Tensor:
        """Compute M (B, C, H_low, W_low) by Eq. 4 to 8 from low (B, C, H_low, W_low) and high (B, C_high, H, W)."""
        config = self.config
        height, width = low.shape[-2:]
        high = self.unify(high)  # Eq. 10

        # Eq. 4: one token per r*k x r*k low-level and per k x k high-level block.
        low_sampled, high_sampled = self.down_low(low), self.down_high(high)
        if config.attention == "window":
            high_sampled = F.interpolate(high_sampled, size=(height, width), mode="nearest")
        (h_low, w_low), (h_high, w_high) = low_sampled.shape[-2:], high_sampled.shape[-2:]

        # Eq. 5: (B, N_low, C) queries, (B, N_high, C) keys and values; Eq. 6's 1 / sqrt(d) goes into the queries.
        t, u = self.norm_low(tokens(low_sampled)), self.norm_high(tokens(high_sampled))
        q, k, v = self.query(t) * self.scale, self.key(u), self.value(u)

        # Eq. 6, on maps (B, H, W, C) so that local strategies can cut them into regions.
        attended = STRATEGIES[config.attention](
            q.unflatten(1, (h_low, w_low)), k.unflatten(1, (h_high, w_high)), v.unflatten(1, (h_high, w_high)), config
        )

        # Eq. 7, and the feed-forward on the same N_low tokens.
        o = self.ffn(self.project(attended.flatten(1, 2)))  # (B, N_low, C)

        # Eq. 8: back onto the low-level grid.
        return upsample(feature_map(o, h_low, w_low), config.low_kernel, height, width)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Compute the aligned low-level map (B, C, H_low, W_low) by Eq. 9."""
        if low.shape[1] != self.config.channels:
            raise ConfigError(
                f"the low-level map has {low.shape[1]} channels, the block was made for {self.config.channels}",
                where="Fine",
            )
        m = self.modulation_map(low, high)
        if self.config.modulation == "none":
            return m
        if self.config.modulation == "direct":
            return low * m
        return low * m + low

    def reset_to_identity(self) -> None:
        """Set the last projections so that the block returns ``low`` exactly: M = 0 (residual) or M = 1 (direct)."""
        if self.config.modulation == "none":
            raise ConfigError("modulation 'none' cannot start as the identity", where="Fine")
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        last = self.project
        if isinstance(self.ffn, FeedForward):
            last = self.ffn.down
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        if self.config.modulation == "direct":
            nn.init.ones_(last.bias)
