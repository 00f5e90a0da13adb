"""#Params and FLOPs, by the convention that reproduces the paper's table of each family.

RT-DETR: two FLOPs per multiply-accumulate as fvcore counts them, on the model of
transformers as built (frozen batch norms, attention as explicit matrix products).
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import torch
from torch import nn

CONVENTION = {"rtdetr": "2 x fvcore MACs, attention as explicit matmul, batch 1"}


@dataclass(frozen=True)
class Cost:
    """What a model costs at one input size.

    Attributes:
        params: number of parameters.
        flops: floating-point operations of one forward pass at batch 1.
        convention: how ``flops`` was counted.
    """

    params: int
    flops: int
    convention: str

    @property
    def params_m(self) -> float:
        """Parameters in millions."""
        return self.params / 1e6

    @property
    def flops_g(self) -> float:
        """FLOPs in units of 10^9."""
        return self.flops / 1e9


def macs(model: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-accumulates of ``model(*inputs)`` as fvcore counts them."""
    # fvcore lists every elementwise operator it does not count, and traces with deprecated calls.
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, inputs)
        return int(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def count(model: nn.Module, family: str, height: int, width: int) -> Cost:
    """#Params and FLOPs of a detector on one (1, 3, height, width) image."""
    params = sum(parameter.numel() for parameter in model.parameters())
    flops = 2 * macs(model, torch.zeros(1, 3, height, width))
    return Cost(params, flops, CONVENTION[family])
