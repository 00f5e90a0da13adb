"""Seeded random weights with the statistics of a trained detector.

Freshly initialised detectors are a poor substitute for trained ones. transformers starts RT-DETR with batch norms near
zero, deformable offsets and box heads at exactly zero, and equal class scores. Measurements on such a network show
little about FP16 or about the selection of queries. The weights here differ:

* Convolutions and linear layers keep the variance of their input (Kaiming, Xavier).
* Batch norms get running statistics from real photographs, so that every map is normalised as after training. Scales
  around 0.7 and shifts around 1 keep most units active. Networks of random ReLUs around zero amplify every rounding
  error about 1.2-fold a layer, which trained ones do not. With these scales FP32 reproduces FP64 boxes to about
  0.001 px (R18) and 0.005 px (R50) at 640x640; with scales around 1 and shifts around 0 only to 0.04 px and 2 px.
* Class heads are centred and scaled on the same photographs. Every class has the prior's mean logit of -4.6 and a
  spread of 1.5, so that a few queries pass 0.5 and no class wins everywhere.
* Other weights that a library starts at zero get trained magnitude from the family.

FINE's blocks keep their own initial weights, but not at the identity, where parity would prove nothing. Its rivals keep
theirs too, except for the sampling offsets that they start at zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fine_edge.fusion.adafpn import AdaptiveUpsampling
from fine_edge.fusion.fapn import FeatureAlignment
from fine_edge.fusion.methods import is_of_method
from fine_edge.images import sample_photographs
from fine_edge.lowering.layers import is_batch_norm
from fine_edge.preprocess import Preprocessing, preprocess

# In pixels of a map.
_OFFSET_SPREAD = 0.5
# As in trained focal-loss classifiers; sigmoid(-4.6) is the usual prior of 0.01.
LOGIT_MEAN, LOGIT_SPREAD = -4.6, 1.5


def photographs(height: int, width: int, how: Preprocessing, count: int = 4) -> Tensor:
    """Return real photographs as inputs of a network, (count, 3, height, width)."""
    batch = [preprocess(image.pixels, height, width, how)[0] for image in sample_photographs()[:count]]
    return torch.from_numpy(np.concatenate(batch))


def _calibrate(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Set a norm's running statistics to those of its input; a forward pre-hook."""
    x = inputs[0]
    norm.get_buffer("running_mean").copy_(x.mean(dim=(0, 2, 3)))
    norm.get_buffer("running_var").copy_(x.var(dim=(0, 2, 3)).clamp_min(1e-4))


class ScoreCalibration:
    """A forward pre-hook of a class head, linear or 1x1 to 3x3 convolution, that centres and scales its outputs.

    Each output gets mean logit ``mean`` and spread ``spread`` over the first input of the head.
    """

    def __init__(self, mean: float = LOGIT_MEAN, spread: float = LOGIT_SPREAD) -> None:
        self.mean, self.spread = mean, spread
        self._seen: set[int] = set()

    def __call__(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Adjust weight and bias in place."""
        if id(head) in self._seen:  # levels share the head, and the finest one, which comes first, decides
            return
        self._seen.add(id(head))
        weight, bias = head.get_parameter("weight"), head.get_parameter("bias")
        if isinstance(head, nn.Conv2d):
            bias.zero_()
            outputs = head._conv_forward(inputs[0], weight, None).movedim(1, -1).flatten(0, -2)  # (B * H * W, outputs)
        else:
            outputs = nn.functional.linear(inputs[0], weight).flatten(0, -2)  # (B * N, outputs)
        scale = self.spread / outputs.std(dim=0).clamp_min(1e-4)
        weight.mul_(scale.reshape(-1, *[1] * (weight.ndim - 1)))
        bias.copy_(self.mean - outputs.mean(dim=0) * scale)


def randomise_layers(model: nn.Module) -> list[nn.Module]:
    """Give convolutions, linear layers and batch norms outside the fusion methods new weights; return the norms."""
    norms: list[nn.Module] = []
    for name, module in model.named_modules():
        if is_of_method(name):
            continue
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.normal_(module.bias, std=0.02)
        elif is_batch_norm(module):
            norm: Any = module
            nn.init.uniform_(norm.weight, 0.5, 0.9)
            nn.init.normal_(norm.bias, mean=1.0, std=0.1)
            norms.append(module)
    return norms


def randomise_offsets(model: nn.Module) -> None:
    """Give fusion methods that start offsets at zero offsets of trained magnitude, about a pixel."""
    predictors: list[Any] = [module.predict for module in model.modules() if isinstance(module, FeatureAlignment)]
    predictors += [module.offset for module in model.modules() if isinstance(module, AdaptiveUpsampling)]
    for predictor in predictors:
        nn.init.normal_(predictor.weight, std=_OFFSET_SPREAD * predictor.weight[0].numel() ** -0.5)
        nn.init.zeros_(predictor.bias)


def settle(
    model: nn.Module,
    norms: Iterable[nn.Module],
    heads: Iterable[tuple[nn.Module, ScoreCalibration]],
    forward: Callable[[], object],
) -> None:
    """Run ``forward`` once on photographs, while norms and class heads take their statistics from their inputs."""
    hooks = [norm.register_forward_pre_hook(_calibrate) for norm in norms]
    hooks += [head.register_forward_pre_hook(calibration) for head, calibration in heads]
    try:
        model.train(False)
        forward()
    finally:
        for hook in hooks:
            hook.remove()
