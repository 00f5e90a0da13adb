"""Seeded random weights with the statistics of a trained detector.

Freshly initialised detectors are a poor stand-in for trained ones: transformers starts
RT-DETR with batch norms near zero, deformable offsets and box heads at exactly zero, and
class scores all equal. Numbers measured on such a network say little about FP16 or about
which queries win. Here instead:

* convolutions and linear layers keep the variance of their input (Kaiming, Xavier);
* batch norms get running statistics from real photographs, so that every map is normalised as
  after training; scales around 0.7 and shifts around 1 keep most units active. Networks of random
  ReLUs around zero amplify every rounding error about 1.2-fold a layer, which trained ones do not:
  with these scales FP32 reproduces FP64 boxes to about 0.001 px (R18) and 0.005 px (R50) at 640x640,
  with scales around 1 and shifts around 0 only to 0.04 px and 2 px;
* deformable offsets, attention weights and box heads get weights of trained magnitude;
* the decoder's class heads are centred and scaled on the same photographs: every class has the prior's
  mean logit of -4.6 and a spread of 1.5, so that a few queries pass 0.5 and no class wins everywhere.

FINE's blocks keep their own initial weights, never at identity, where parity would prove nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import RTDetrForObjectDetection

from fine_edge.images import sample_photographs
from fine_edge.preprocess import Preprocessing, preprocess

# Of trained focal-loss classifiers: sigmoid(-4.6) is the usual prior of 0.01.
_LOGIT_MEAN, _LOGIT_SPREAD = -4.6, 1.5
# Large enough for every stage to have a few hundred positions, small enough to take a second.
_CALIBRATION_SIZE = 320


def _photographs(size: int, count: int = 4) -> Tensor:
    """(count, 3, size, size) of real photographs."""
    batch = [preprocess(image.pixels, size, size, Preprocessing())[0] for image in sample_photographs()[:count]]
    return torch.from_numpy(np.concatenate(batch))


def _is_batch_norm(module: nn.Module) -> bool:
    # transformers' frozen batch norm is a class of its own, with the same buffers.
    return hasattr(module, "running_mean") and hasattr(module, "running_var")


def _calibrate(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Forward pre-hook: take the running statistics from what the norm is about to see."""
    x = inputs[0]
    norm.get_buffer("running_mean").copy_(x.mean(dim=(0, 2, 3)))
    norm.get_buffer("running_var").copy_(x.var(dim=(0, 2, 3)).clamp_min(1e-4))


def _calibrate_scores(head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Forward pre-hook of a class head: give each class mean logit -4.6 and spread 1.5 over what it is about to see."""
    features = inputs[0].flatten(0, -2)  # (B * N, C)
    weight, bias = head.get_parameter("weight"), head.get_parameter("bias")
    centred = (features - features.mean(dim=0)) @ weight.T  # (B * N, classes)
    weight.mul_(_LOGIT_SPREAD / centred.std(dim=0).clamp_min(1e-4)[:, None])
    bias.copy_(_LOGIT_MEAN - weight @ features.mean(dim=0))


def _randomise_rtdetr_heads(model: RTDetrForObjectDetection) -> None:
    """Weights of trained magnitude where transformers starts with zeros or equal scores."""
    width = model.config.d_model
    for layer in model.model.decoder.layers:
        nn.init.normal_(layer.encoder_attn.sampling_offsets.weight, std=width**-0.5)
        nn.init.normal_(layer.encoder_attn.attention_weights.weight, std=width**-0.5)
    for head in (model.model.enc_bbox_head, *model.model.decoder.bbox_embed):
        nn.init.normal_(head.layers[-1].weight, std=0.5 * width**-0.5)
        nn.init.normal_(head.layers[-1].bias, std=0.1)
    # The proposal head is not centred: positions outside the valid anchors, all alike, would then come out on top.
    nn.init.normal_(model.model.enc_score_head.weight, std=_LOGIT_SPREAD * width**-0.5)
    nn.init.constant_(model.model.enc_score_head.bias, _LOGIT_MEAN)


def randomise(model: RTDetrForObjectDetection, seed: int) -> None:
    """Replace all weights outside FINE by seeded random ones with realistic statistics, in place.

    The global random state is left as it was. Equal seeds give equal weights on one machine; the batch-norm
    statistics are computed and may differ in the last bits between machines.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        norms: list[nn.Module] = []
        for name, module in model.named_modules():
            if ".fine" in name:
                continue
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.normal_(module.bias, std=0.02)
            elif _is_batch_norm(module):
                norm: Any = module
                nn.init.uniform_(norm.weight, 0.5, 0.9)
                nn.init.normal_(norm.bias, mean=1.0, std=0.1)
                norms.append(module)
        _randomise_rtdetr_heads(model)
        hooks = [norm.register_forward_pre_hook(_calibrate) for norm in norms]
        hooks += [head.register_forward_pre_hook(_calibrate_scores) for head in model.model.decoder.class_embed]
        try:
            model.train(False)
            model(_photographs(_CALIBRATION_SIZE))
        finally:
            for hook in hooks:
                hook.remove()
