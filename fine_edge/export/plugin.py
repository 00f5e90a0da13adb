"""Eq. 8 and 9 as one node, which TensorRT maps to the plugin ``FineModulate`` (``plugins/fine_modulate``).

The node is also an ONNX local function with the native operators as its body. ONNX Runtime runs the body, and a
compiler without the plugin's library compiles it. The parser of TensorRT 10.7 prefers a registered plugin to a local
function (onnx-tensorrt, changelog of 10.7). Later parsers do so where the node has the attribute ``plugin_namespace``.
Earlier ones always take the body.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import torch
from onnx import AttributeProto, NodeProto, helper
from torch import Tensor, nn

from fine_edge.errors import ConfigError
from fine_edge.export.trace import OPSET
from fine_edge.fusion.sampling import feature_map
from fine_edge.lowering.fine import LoweredFine

DOMAIN, OPERATOR = "trt.plugins", "FineModulate"
# TensorRT's parser finds the plugin by these attributes; the plugin's creator has the same values.
_IDENTITY = {"plugin_version": "1", "plugin_namespace": ""}


class PluginModulate(nn.Module):
    """Eq. 8 and 9, ``F * Up(M) + F``, as the plugin's node; torch can export it but has no such operator to run."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, low: Tensor, m: Tensor, rows: int, columns: int) -> Tensor:
        """Map low (B, C, H, W) and tokens m (B, rows * columns, C) to the aligned map (B, C, H, W)."""
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{OPERATOR}",
            (low, feature_map(m, rows, columns)),
            {"kernel": self.kernel, **_IDENTITY},
            dtype=low.dtype,
            shape=low.shape,
            version=1,
        )


@torch.no_grad()
def use_plugin(lowered: nn.Module, model_name: str) -> None:
    """Replace the modulation of every FINE block by the plugin's node, in place.

    Raises:
        ConfigError: when there is no block, or one whose modulation is not Eq. 9.
    """
    blocks = [module for module in lowered.modules() if isinstance(module, LoweredFine)]
    if not blocks or any(block.config.modulation != "residual" for block in blocks):
        raise ConfigError(
            "the plugin fine_modulate computes Eq. 9, which this model does not have",
            where=model_name,
            hint="choose a model with FINE, or export without --plugin",
        )
    for block in blocks:
        last = block.project if block.ffn_down is None else block.ffn_down
        # The lowering's bias holds Eq. 9's "+ F" as M + 1. The kernel adds F itself, and rounds once.
        last.bias.sub_(1.0)
        block.modulate = PluginModulate(block.config.low_kernel)


def define_plugin(model: onnx.ModelProto) -> None:
    """Add the local function that the plugin's nodes call, in place."""
    attributes = ["kernel", *_IDENTITY]
    opset = helper.make_opsetid("", OPSET)
    function = helper.make_function(DOMAIN, OPERATOR, ["low", "m"], ["out"], _body(), [opset], attributes)
    model.functions.append(function)


def _body() -> Sequence[NodeProto]:
    """Return the nodes of ``low * crop(nearest(m)) + low``, with sizes from the inputs, so that all nodes share it."""
    kernel = helper.make_node("Constant", [], ["kernel"])
    kernel.attribute.add(name="value_int", ref_attr_name="kernel", type=AttributeProto.INT)
    return [
        kernel,
        helper.make_node("Constant", [], ["zeros"], value_ints=[0, 0]),
        helper.make_node("Constant", [], ["axes"], value_ints=[2, 3]),
        helper.make_node("Shape", ["low"], ["size"], start=2),
        helper.make_node("Shape", ["m"], ["outer"], end=2),
        helper.make_node("Shape", ["m"], ["grid"], start=2),
        helper.make_node("Mul", ["grid", "kernel"], ["whole"]),
        helper.make_node("Concat", ["outer", "whole"], ["sizes"], axis=0),
        helper.make_node(
            "Resize",
            ["m", "", "", "sizes"],
            ["blocks"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        helper.make_node("Slice", ["blocks", "zeros", "size", "axes"], ["up"]),  # border blocks are smaller
        helper.make_node("Mul", ["low", "up"], ["product"]),
        helper.make_node("Add", ["product", "low"], ["out"]),
    ]
