"""The fusion methods by name: FINE, and the rivals of the paper's Table 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fine_edge.errors import ConfigError
from fine_edge.fusion.adafpn import AdaFpn
from fine_edge.fusion.config import FineConfig
from fine_edge.fusion.fapn import Fapn
from fine_edge.fusion.fine import Fine
from fine_edge.fusion.mgc import DEEPEST_FUSION, Mgc
from fine_edge.fusion.sni import Sni
from fine_edge.method_names import AttentionName

STAGE_KERNELS = (1, 2)
"""FINE's base sampling kernel k by fusion, deepest first: k = 1 at l = 3 and k = 2 at l = 2 (Sec. 5.3)."""


@dataclass(frozen=True)
class Place:
    """One fusion of a neck.

    Attributes:
        channels: number of channels of the low-level map.
        high_channels: number of channels of the high-level map.
        k: FINE's base sampling kernel there: 1 at the deepest fusion, doubling with every finer one (Sec. 5.3).
    """

    channels: int
    high_channels: int
    k: int


@dataclass(frozen=True)
class MethodConfig:
    """The choice of a method for a neck's fusions.

    Attributes:
        name: key of :data:`METHODS`.
        attention: FINE's attention strategy.
        ffn_ratio: ratio of FINE's feed-forward; ``None`` for the one that the paper's figures require, mostly 2.
        identity: whether FINE starts as the identity, so that a pretrained detector's outputs do not change.
    """

    name: str = "fine"
    attention: AttentionName = "aats"
    ffn_ratio: int | None = None
    identity: bool = True


def _fine(place: Place, config: MethodConfig) -> nn.Module:
    return Fine(
        FineConfig(
            channels=place.channels,
            high_channels=place.high_channels,
            attention=config.attention,
            k=place.k,
            ffn_ratio=2 if config.ffn_ratio is None else config.ffn_ratio,
            identity=config.identity,
        )
    )


def _sni(_place: Place, _config: MethodConfig) -> nn.Module:
    return Sni()


def _fapn(place: Place, _config: MethodConfig) -> nn.Module:
    return Fapn(place.channels, place.high_channels)


def _adafpn(place: Place, _config: MethodConfig) -> nn.Module:
    return AdaFpn(place.channels, place.high_channels)


def _mgc(place: Place, _config: MethodConfig) -> nn.Module:
    level = DEEPEST_FUSION - (place.k.bit_length() - 1)  # k doubles with every finer fusion
    return Mgc(place.channels, place.high_channels, level)


METHODS: dict[str, Callable[[Place, MethodConfig], nn.Module]] = {
    "fine": _fine,
    "sni": _sni,
    "fapn": _fapn,
    "adafpn": _adafpn,
    "mgc": _mgc,
}


def build_method(place: Place, config: MethodConfig) -> nn.Module:
    """Build the module for one fusion; necks call it by :func:`fine_edge.fusion.top_down.top_down`.

    Raises:
        ConfigError: for a name that is not in :data:`METHODS`.
    """
    if config.name not in METHODS:
        raise ConfigError(f"no fusion method is called {config.name!r}", hint=f"known: {', '.join(METHODS)}")
    return METHODS[config.name](place, config)


def is_of_method(name: str) -> bool:
    """Return whether a module or tensor of that name, such as ``fpn.fine.2.query.weight``, belongs to a method."""
    return not set(name.split(".")).isdisjoint(METHODS)


def method_of(owner: nn.Module) -> nn.Module | None:
    """Return the fusion method that a module has as a child of the method's name; ``None`` without any."""
    return next((child for name, child in owner.named_children() if name in METHODS), None)
