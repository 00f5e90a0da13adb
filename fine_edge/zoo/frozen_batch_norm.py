"""The epsilon of torchvision's frozen batch norms, which a state dict does not carry.

The published files of 2020 to 2022 were, but for FCOS's, made for frozen batch norms without an epsilon; torchvision
sets it to zero when it loads them itself, and a model trained further from them keeps that. In our files and models
it is torchvision's default of today everywhere, and the weights take up the difference.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

EPS = 1e-5


def weight_for_default_eps(weight: Tensor, var: Tensor, eps: float) -> Tensor:
    """The weight (C,) with which a frozen batch norm of :data:`EPS` does what this one does with ``eps``."""
    return (weight.double() * torch.sqrt((var.double() + EPS) / (var.double() + eps))).to(weight)


def weights_for_default_eps(model: nn.Module) -> dict[str, Tensor]:
    """The weights, by key, that a model's state needs instead of its own; empty where all have :data:`EPS`."""
    return {
        f"{name}.weight": weight_for_default_eps(module.weight, module.running_var, module.eps)
        for name, module in model.named_modules()
        if isinstance(module, FrozenBatchNorm2d) and module.eps != EPS
    }
