"""The configuration of a FINE block; every choice that the paper ablates is a field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from fine_edge.errors import ConfigError
from fine_edge.fine_options import AttentionName, DownName, ModulationName


@dataclass(frozen=True)
class FineConfig:
    """Configuration of one FINE block between a low- and a high-level feature map.

    Attributes:
        channels: C, number of channels of the low-level map and of the attention.
        high_channels: number of channels of the high-level map; where it differs from ``channels``, a 1x1 convolution
            without bias unifies them (Eq. 10). ``None`` means the same as ``channels``.
        attention: strategy of Table 3. Only ``aats`` samples tokens; the others attend at full resolution.
        k: base sampling kernel of the high-level map (Eq. 4). The paper uses 1 at stage l=3 and 2 at l=2.
        r: alignment-aware sampling ratio, the stride between the two levels (Eq. 4).
        head_dim: d, width of a head. 16 is the paper's default and the smallest that TensorRT fuses.
        heads: h, number of heads; takes precedence over ``head_dim`` (d = C / h), as in Table 4.
        down: sampling operator (Table 6).
        modulation: ``residual`` is Eq. 9; ``direct`` and ``none`` are Fig. 7's ablations.
        ffn_ratio: width of the feed-forward on the tokens in units of C; 0 removes it. The paper's equations do not
            mention it, but its #Params and FLOPs require a ratio of 2.
        window: M, side of the attention windows in low-level pixels (``window`` only).
        areas: A, number of horizontal areas (``area`` only).
        identity: whether the block starts as the identity, so that a pretrained detector is unchanged.
    """

    channels: int = 256
    high_channels: int | None = None
    attention: AttentionName = "aats"
    k: int = 1
    r: int = 2
    head_dim: int = 16
    heads: int | None = None
    down: DownName = "avg"
    modulation: ModulationName = "residual"
    ffn_ratio: int = 2
    window: int = 7
    areas: int = 4
    identity: bool = False

    def __post_init__(self) -> None:
        for field in ("channels", "k", "r", "head_dim", "window", "areas"):
            if getattr(self, field) < 1:
                raise ConfigError(f"{field} must be at least 1, not {getattr(self, field)}", where="FineConfig")
        for field, names in (("attention", AttentionName), ("down", DownName), ("modulation", ModulationName)):
            if getattr(self, field) not in get_args(names):
                allowed = ", ".join(get_args(names))
                raise ConfigError(f"{field} is {getattr(self, field)!r}, known: {allowed}", where="FineConfig")
        if self.high_channels is not None and self.high_channels < 1:
            raise ConfigError(f"high_channels must be at least 1, not {self.high_channels}", where="FineConfig")
        if self.heads is not None and self.heads < 1:
            raise ConfigError(f"heads must be at least 1, not {self.heads}", where="FineConfig")
        if self.ffn_ratio < 0:
            raise ConfigError(f"ffn_ratio must not be negative, not {self.ffn_ratio}", where="FineConfig")
        divisor, name = (self.heads, "heads") if self.heads is not None else (self.head_dim, "head_dim")
        # Eq. 6 gives each of h heads d = C / h channels.
        if self.channels % divisor:
            raise ConfigError(
                f"channels ({self.channels}) must be divisible by {name} ({divisor})",
                where="FineConfig",
                hint=f"choose a {name} that divides {self.channels}",
            )
        if self.identity and self.modulation == "none":
            raise ConfigError(
                "modulation 'none' replaces the low-level map, so it cannot start as the identity",
                where="FineConfig",
                hint="use modulation 'residual' or 'direct', or identity=False",
            )

    @property
    def num_heads(self) -> int:
        """Return h, the number of attention heads."""
        return self.heads if self.heads is not None else self.channels // self.head_dim

    @property
    def low_kernel(self) -> int:
        """Return rk, the sampling kernel of the low-level map; 1 for strategies that do not sample."""
        return self.r * self.k if self.attention == "aats" else 1

    @property
    def high_kernel(self) -> int:
        """Return k, the sampling kernel of the high-level map; 1 for strategies that do not sample."""
        return self.k if self.attention == "aats" else 1
