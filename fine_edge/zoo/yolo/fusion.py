"""FINE or a rival in the neck of an ultralytics detector, behind each of its two upsamplings.

Injection is surgery at named points of the loaded model. The keys of its own weights stay as they were, and the model
stays one of ultralytics', which its trainer, its checkpoints, ``fuse()`` and its exporter accept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fine_edge.errors import ConfigError, ForeignModelError
from fine_edge.fusion.methods import STAGE_KERNELS, MethodConfig, Place, parts_of
from fine_edge.fusion.top_down import TopDown, top_down
from fine_edge.zoo.yolo.library import DetectionModel, conv

_FFN_RATIO, _FFN_RATIO_V8S = 2, 4


def ffn_ratio(model: DetectionModel) -> int:
    """Return the width of FINE's feed-forward, in units of C, that the paper's figures require for a detector.

    A ratio of 4 (12.309 M, 29.603 G) reproduces YOLOv8-S's row of Table 1 (12.3 M, 29.6 G), and 2 (11.98 M, 29.34 G)
    does not. No one structure reproduces the rows of YOLOv8, v10 and v12 together, so that all others keep the ratio of
    the paper's detectors of other libraries.
    """
    name = Path(model.yaml.get("yaml_file", "")).stem  # with or without the letter of the scale
    return _FFN_RATIO_V8S if name.rstrip("s") == "yolov8" and model.yaml.get("scale") == "s" else _FFN_RATIO


class FusedConcat(nn.Module):
    """The concatenation of an upsampled map and a low-level one, with a fusion method in front of it.

    It replaces ultralytics' ``Concat``. The method is the child of the method's name, as in every neck. The upsampled
    map is the model's own, whose upsampling YOLOv6 learns, unless the method computes another (a ``TopDown``).
    """

    def __init__(self, name: str, method: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, method)

    @property
    def method(self) -> nn.Module:
        """Return the injected fusion method."""
        return self.get_submodule(self.name)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Fuse upsampled (B, C_high, H, W), low (B, C, H, W), high (B, C_high, H/2, W/2) to (B, C_high + C, H, W)."""
        upsampled, low, high = maps
        low, changed = top_down(self.method, low, high)
        return torch.cat([changed if isinstance(self.method, TopDown) else upsampled, low], 1)


def fusions(model: DetectionModel) -> list[nn.Module]:
    """Return the injected methods, deepest fusion first; empty without any."""
    return [layer.method for layer in model.model if isinstance(layer, FusedConcat)]


def backbone(model: DetectionModel) -> list[nn.Module]:
    """Return the layers that the model's description calls its backbone, in the order that they run."""
    return list(model.model[: len(model.yaml["backbone"])])


@dataclass(frozen=True)
class _Site:
    """The layer indices of a concatenation, its low-level map, and the map that is upsampled for it."""

    concat: int
    low: int
    high: int


def _sites(layers: nn.Sequential) -> list[_Site]:
    """Return the first two concatenations of an upsampled map and one of the backbone."""
    sites = []
    for index, layer in enumerate(layers):
        # A layer's f says what it reads: [-1, 6] is the layer before it and layer 6, which is one of the backbone.
        before: Any = layers[index - 1]
        upsampled = isinstance(before, (nn.Upsample, nn.ConvTranspose2d, conv.ConvTranspose))
        if upsampled and isinstance(layer, conv.Concat) and layer.f[0] == -1 and len(layer.f) == 2:
            source = before.f if before.f >= 0 else index - 1 + before.f
            sites.append(_Site(index, layer.f[1], source))
    return sites[: len(STAGE_KERNELS)]


@torch.no_grad()
def _channels(model: DetectionModel) -> dict[int, int]:
    """Return the output channels of each layer before the head, found by a run on the smallest image."""
    seen: dict[int, int] = {}

    def note(layer: Any, _inputs: object, output: Tensor) -> None:
        seen[layer.i] = output.shape[1]

    hooks = [layer.register_forward_hook(note) for layer in model.model[:-1]]
    # At the largest stride's size the coarsest map is one pixel. In eval mode, so that no norm learns from zeros.
    training, weight, side = model.training, next(model.parameters()), int(model.stride.max())
    try:
        model.train(False)(torch.zeros(1, model.yaml["channels"], side, side).to(weight))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return seen


def inject(model: DetectionModel, config: MethodConfig | None = None) -> DetectionModel:
    """Put a fusion method, FINE by default, behind both upsamplings of an ultralytics detector, in place.

    Args:
        model: a ``DetectionModel``, such as ``ultralytics.YOLO("yolov8s.pt").model``.
        config: the method; FINE by default, with the feed-forward of :func:`ffn_ratio` unless it states another.

    Raises:
        ConfigError: when the model does not have these two fusions, or already has a method.
    """
    where = "DetectionModel.model"
    if not isinstance(model, DetectionModel):
        raise ForeignModelError(
            f"{type(model).__name__} is not a detector of ultralytics", hint="give a DetectionModel: YOLO(...).model"
        )
    config = (config or MethodConfig()).with_ffn(ffn_ratio(model))
    layers = model.model
    if fusions(model):
        raise ConfigError("a fusion method is already there", where=where)
    sites = _sites(layers)
    if len(sites) != len(STAGE_KERNELS):
        raise ConfigError(f"expected {len(STAGE_KERNELS)} upsampled maps in the neck, found {len(sites)}", where=where)
    parts = parts_of(config)
    if parts.fusion is None or parts.replaces_layers:
        raise ConfigError(f"{config.name} replaces layers that this neck does not have", where=where)
    channels, weight = _channels(model), next(model.parameters())
    for site, k in zip(sites, STAGE_KERNELS, strict=True):
        method = parts.fusion(Place(channels[site.low], channels[site.high], k), config)
        layer: Any = FusedConcat(config.name, method.to(weight.device, weight.dtype).train(model.training))
        # ultralytics' forward pass, summaries and trainer read these attributes of a layer.
        layer.i, layer.f = site.concat, [-1, site.low, site.high]
        layer.type, layer.np = f"{__name__}.FusedConcat", sum(p.numel() for p in method.parameters())
        layers[site.concat] = layer
        # ultralytics keeps no output for a later layer that is not in this list.
        model.save = sorted({*model.save, site.low, site.high})
    return model
