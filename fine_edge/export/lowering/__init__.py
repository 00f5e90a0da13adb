"""Lowering: a detector rewritten, weight by weight, into the form that compiles to the fewest kernels.

RT-DETR is rewritten as a whole; of all others, single modules are (:mod:`fine_edge.export.lowering.modules`), and the
rest is the graph form that its family gives. Every rewrite is exact in real arithmetic but for one, which moves a box
by less than 1e-5 (:mod:`fine_edge.export.lowering.decoder`). Parity compares the result with the original model.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import nn
from transformers import RTDetrForObjectDetection

from fine_edge.export.lowering.modules import fold_batch_norms, lower_modules
from fine_edge.export.lowering.rtdetr import LoweredRTDetr
from fine_edge.zoo.catalog import FamilyName
from fine_edge.zoo.families import family_of
from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.rtdetr import DetectorGraph


@torch.no_grad()
def lower(model: nn.Module, family: FamilyName, form: GraphForm) -> nn.Module:
    """The inference form of a detector for one static input shape; the model itself is left as it is.

    Returns:
        A module from images (B, 3, H, W) to the outputs that :meth:`Family.outputs` lists, as a tuple.

    Raises:
        ConfigError: for a configuration that the lowered form does not cover.
    """
    model = copy.deepcopy(model)
    if family == "rtdetr":
        detector = LoweredRTDetr(cast(RTDetrForObjectDetection, model), form.batch, form.height, form.width)
        return DetectorGraph(detector, form).eval()
    fold_batch_norms(model)
    graph = family_of(family).graph(lower_modules(model), form)
    return graph.requires_grad_(False).eval()
