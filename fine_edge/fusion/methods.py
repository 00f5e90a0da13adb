"""The fusion methods by name: FINE, and the rivals of the paper's Table 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from fine_edge.errors import ConfigError
from fine_edge.fine_options import PAPERS, FineOptions
from fine_edge.fusion.adafpn import AdaFpn
from fine_edge.fusion.config import FineConfig
from fine_edge.fusion.fapn import Fapn, SelectedLaterals
from fine_edge.fusion.fine import Fine
from fine_edge.fusion.mgc import Mgc
from fine_edge.fusion.top_down import Laterals, Sni

# FINE's base sampling kernel k by fusion, deepest first: k = 1 at l = 3 and k = 2 at l = 2 (Sec. 5.3).
STAGE_KERNELS = (1, 2)


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
        name: a key of :data:`METHODS`.
        options: FINE's options.
        identity: whether FINE starts as the identity, so that a pretrained detector's outputs do not change; without
            modulation it cannot.
    """

    name: str = "fine"
    options: FineOptions = PAPERS
    identity: bool = True

    def with_ffn(self, ratio: int) -> MethodConfig:
        """Return the choice with a feed-forward of this ratio, unless its options state one."""
        return self if self.options.ffn is not None else replace(self, options=replace(self.options, ffn=ratio))


def _fine(place: Place, config: MethodConfig) -> nn.Module:
    options = config.options
    return Fine(
        FineConfig(
            channels=place.channels,
            high_channels=place.high_channels,
            attention=options.attention,
            k=place.k if options.k is None else options.k,
            r=options.r,
            head_dim=options.d,
            heads=options.heads,
            down=options.down,
            modulation=options.modulation,
            # 2 fits the paper's figures; the segmenters and YOLOv8-S, which need 4, ask for it by with_ffn.
            ffn_ratio=2 if options.ffn is None else options.ffn,
            window=options.window,
            areas=options.areas,
            identity=config.identity and options.modulation != "none",
        )
    )


def _sni(_place: Place, _config: MethodConfig) -> nn.Module:
    return Sni()


def _fapn(place: Place, _config: MethodConfig) -> nn.Module:
    return Fapn(place.channels, place.high_channels)


def _adafpn(place: Place, _config: MethodConfig) -> nn.Module:
    return AdaFpn(place.channels, place.high_channels)


@dataclass(frozen=True)
class Method:
    """The parts of a method, each a builder, or ``None`` where the neck keeps its own.

    Attributes:
        fusion: what refines or replaces one fusion.
        laterals: what stands in the place of the lateral convolutions of all levels.
        sums: whether the sum of both maps is the fused map, with no block of the neck behind it.
    """

    fusion: Callable[[Place, MethodConfig], nn.Module] | None
    laterals: Callable[[Sequence[int], int], Laterals] | None = None
    sums: bool = False

    @property
    def replaces_layers(self) -> bool:
        """Return whether layers of the detector are gone, so that its own weights do not fill the model."""
        return self.laterals is not None or self.sums


# As the FINE authors' logs print them: FaPN and MGC in place of the laterals, AdaFPN of the block behind a fusion.
METHODS: dict[str, Method] = {
    "fine": Method(_fine),
    "sni": Method(_sni),
    "fapn": Method(_fapn, laterals=SelectedLaterals),
    "adafpn": Method(_adafpn, sums=True),
    "mgc": Method(None, laterals=Mgc),
}


def parts_of(config: MethodConfig) -> Method:
    """Return the parts of a method.

    Raises:
        ConfigError: for a name that is not in :data:`METHODS`.
    """
    if config.name not in METHODS:
        raise ConfigError(f"no fusion method is called {config.name!r}", hint=f"known: {', '.join(METHODS)}")
    return METHODS[config.name]


def is_of_method(name: str) -> bool:
    """Return whether a module or tensor of that name, such as ``fpn.fine.2.query.weight``, belongs to a method."""
    return not set(name.split(".")).isdisjoint(METHODS)


def method_of(owner: nn.Module) -> nn.Module | None:
    """Return the fusion method that a module has as a child of the method's name; ``None`` without any."""
    return next((child for name, child in owner.named_children() if name in METHODS), None)
