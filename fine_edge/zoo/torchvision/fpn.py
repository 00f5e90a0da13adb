"""Injection of a fusion method into the feature pyramid of any loaded torchvision detector.

Injection replaces ``backbone.fpn`` by a pyramid that holds the same layers under the same keys, and beside them the
methods (``backbone.fpn.fine.2.query.weight``). A baseline's checkpoint still loads, and torchvision's own training loop
trains the added weights. A method with laterals of its own takes the place of the layers that it replaces.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from fine_edge.errors import ConfigError, ForeignModelError
from fine_edge.fusion.methods import STAGE_KERNELS, MethodConfig, Place, parts_of
from fine_edge.fusion.top_down import Laterals, top_down

Model = TypeVar("Model", bound=nn.Module)

# The name of a method's laterals beside its modules by level.
_LATERALS = "laterals"


@dataclass(frozen=True)
class FusionPlace:
    """The place of a method: level ``index`` of the pyramid, 0 the finest, and FINE's sampling kernel ``k``."""

    index: int
    k: int


def deepest(fusions: int, kernels: Sequence[int] = STAGE_KERNELS) -> tuple[FusionPlace, ...]:
    """Return the deepest of a pyramid's fusions, at most one for each kernel; finer fusions stay unchanged."""
    return tuple(FusionPlace(index, k) for index, k in zip(range(fusions - 1, -1, -1), kernels, strict=False))


class FusedPyramid(FeaturePyramidNetwork):  # type: ignore[misc]  # torchvision has no types
    """torchvision's pyramid with a fusion method in front of some of its additions.

    Args:
        pyramid: the pyramid whose layers are reused without a copy.
        name: name of the method, under which its modules are kept.
        methods: methods by level of the low-level map, deepest first.
        laterals: what stands in the place of the lateral convolutions; ``None`` where they stay.
    """

    def __init__(
        self,
        pyramid: FeaturePyramidNetwork,
        name: str,
        methods: dict[int, nn.Module],
        laterals: Laterals | None = None,
    ) -> None:
        nn.Module.__init__(self)  # skips torchvision's own, which would create layers
        self.inner_blocks = pyramid.inner_blocks if laterals is None else nn.ModuleList()
        self.layer_blocks, self.extra_blocks = pyramid.layer_blocks, pyramid.extra_blocks
        parts: dict[str, nn.Module] = {str(index): method for index, method in methods.items()}
        if laterals is not None:
            parts[_LATERALS] = laterals
        self.add_module(name, nn.ModuleDict(parts))
        self.method_name = name
        self.train(pyramid.training)

    @property
    def methods(self) -> nn.ModuleDict:
        """Return the injected modules by level, deepest first, and the laterals last."""
        found: Any = self.get_submodule(self.method_name)
        return found  # type: ignore[no-any-return]

    def forward(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map the backbone's maps, finest first, to the pyramid's under the same names."""
        names, maps = list(x), list(x.values())
        methods = dict(self.methods.items())
        laterals = methods.pop(_LATERALS, None)
        lows = laterals(maps) if laterals else [block(low) for block, low in zip(self.inner_blocks, maps, strict=True)]
        fused = lows[-1]
        results = [self.layer_blocks[-1](fused)]
        for index in range(len(maps) - 2, -1, -1):
            low, upsampled = top_down(methods.get(str(index)), lows[index], fused)
            fused = low + upsampled
            results.insert(0, self.layer_blocks[index](fused))
        if self.extra_blocks is not None:
            results, names = self.extra_blocks(results, maps, names)
        return OrderedDict(zip(names, results, strict=True))


def _pyramid_of(model: nn.Module) -> FeaturePyramidNetwork:
    pyramid = getattr(getattr(model, "backbone", None), "fpn", None)
    if not isinstance(pyramid, FeaturePyramidNetwork):
        raise ForeignModelError(
            f"{type(model).__name__} has no feature pyramid",
            where="backbone.fpn",
            hint="use a detector of torchvision.models.detection whose name ends in _fpn",
        )
    return pyramid


def inject(model: Model, config: MethodConfig | None = None, places: Sequence[FusionPlace] | None = None) -> Model:
    """Put a fusion method, FINE by default, into the pyramid of a loaded torchvision detector, in place.

    Args:
        model: Faster, Mask or Keypoint R-CNN, RetinaNet, FCOS, or any other model with a ``backbone.fpn``.
        config: the method.
        places: fusions to change; by default the two deepest, which leaves stride 4 of two-stage detectors unchanged.

    Returns:
        The model itself.

    Raises:
        ConfigError: when the model does not have these fusions, or already has a method.
    """
    config = config or MethodConfig()
    pyramid = _pyramid_of(model)
    if isinstance(pyramid, FusedPyramid):
        raise ConfigError("a fusion method is already there", where="backbone.fpn")
    # A subclass may compute something else, which the replacement would drop in silence.
    if type(pyramid) is not FeaturePyramidNetwork:
        raise ConfigError(f"{type(pyramid).__name__} is a pyramid of its own kind", where="backbone.fpn")
    fusions = len(pyramid.inner_blocks) - 1
    places = deepest(fusions) if places is None else tuple(places)
    outside = [place.index for place in places if not 0 <= place.index < fusions]
    if not places or outside:
        level = f" at level {outside[0]}" if outside else " to refine"
        raise ConfigError(f"the pyramid has {fusions} fusions, none{level}", where="backbone.fpn")
    parts, weights = parts_of(config), [block[0].weight for block in pyramid.inner_blocks]  # (C, C_in, 1, 1) each
    channels = int(weights[0].shape[0])
    methods = {
        # In the type and on the device of the layer beside it, as a loaded detector may be half or on a GPU.
        place.index: parts.fusion(Place(channels, channels, place.k), config).to(weights[place.index])
        for place in sorted(places, key=lambda place: -place.index)
        if parts.fusion
    }
    laterals = parts.laterals([int(weight.shape[1]) for weight in weights], channels) if parts.laterals else None
    backbone: Any = model.backbone
    backbone.fpn = FusedPyramid(pyramid, config.name, methods, laterals and laterals.to(weights[0]))
    return model


def pyramid_fusions(model: nn.Module) -> list[nn.Module]:
    """Return the injected modules of a detector, deepest fusion first, laterals last; empty without any."""
    pyramid = _pyramid_of(model)
    return list(pyramid.methods.values()) if isinstance(pyramid, FusedPyramid) else []


def pyramid_backbone(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of the backbone below the pyramid, in the order that they run."""
    _pyramid_of(model)
    backbone: Any = model.backbone
    return list(backbone.body.children())
