"""Lowering: a detector rewritten, weight by weight, into the form that compiles to the fewest kernels.

Every rewrite is exact in real arithmetic but for one, which moves a box by less than 1e-5
(:mod:`fine_edge.export.lowering.decoder`). Parity compares the result with the original model.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import RTDetrForObjectDetection

from fine_edge.export.lowering.rtdetr import LoweredRTDetr


@torch.no_grad()
def lower(model: RTDetrForObjectDetection, batch: int, height: int, width: int) -> nn.Module:
    """The inference form of a detector for one static input shape; the model itself is left as it is.

    Returns:
        A module from images (B, 3, H, W) to logits (B, Q, K) and boxes (B, Q, 4) cx, cy, w, h in [0, 1].

    Raises:
        ConfigError: for a configuration that the lowered form does not cover.
    """
    return LoweredRTDetr(copy.deepcopy(model), batch, height, width)
