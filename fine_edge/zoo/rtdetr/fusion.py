"""Injection of FINE or a rival at the two fusions of RT-DETR's top-down path, and in the place of its projections.

Injection is surgery at named points of the loaded model. The class is not forked and the keys of its own weights stay
as they were, so that any RT-DETR checkpoint still loads. A rival that replaces layers needs weights of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import RTDetrForObjectDetection

from fine_edge.errors import ConfigError, ForeignModelError
from fine_edge.fusion.methods import STAGE_KERNELS, MethodConfig, Place, method_of, parts_of
from fine_edge.fusion.top_down import Laterals, top_down


class Sum(nn.Module):
    """The fused map as the sum of both maps, for a method that has no block behind a fusion."""

    def forward(self, x: Tensor) -> Tensor:
        """Map two concatenated maps (B, 2C, H, W) to (B, C, H, W)."""
        up, low = x.chunk(2, 1)
        return up + low


def _join(fpn_block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Run the fusion method on the two halves of a concatenated map; a forward pre-hook of an FPN block.

    The block receives (B, 2C, H, W), the upsampled high-level map first. Nearest upsampling by two repeats every
    pixel, so that every second pixel is the high-level map itself, bit for bit.
    """
    (fused,) = inputs
    upsampled, low = fused.chunk(2, dim=1)  # (B, C, H, W) each
    high = upsampled[:, :, ::2, ::2]  # (B, C, H / 2, W / 2)
    low, upsampled = top_down(method_of(fpn_block), low, high)
    return (torch.cat([upsampled, low], dim=1),)


def _project(encoder: nn.Module, inputs: tuple[list[Tensor]]) -> tuple[list[Tensor]]:
    """Run a method's laterals on the backbone's maps, which come unprojected; a forward pre-hook of the encoder."""
    laterals = method_of(encoder)
    assert isinstance(laterals, Laterals)
    return (laterals(inputs[0]),)


def inject(model: RTDetrForObjectDetection, config: MethodConfig | None = None) -> RTDetrForObjectDetection:
    """Put a fusion method, FINE by default, in front of both top-down fusions of a loaded RT-DETR, in place.

    Raises:
        ForeignModelError: for a model of another class.
        ConfigError: when the model does not have these two fusions, or already has a method.
    """
    config = config or MethodConfig()
    if not isinstance(model, RTDetrForObjectDetection):
        raise ForeignModelError(
            f"a {type(model).__name__} is no RT-DETR with its heads",
            hint="give transformers' RTDetrForObjectDetection: RTDetrForObjectDetection.from_pretrained(FOLDER)",
        )
    encoder = model.model.encoder
    blocks = list(getattr(encoder, "fpn_blocks", []))
    if len(blocks) != len(STAGE_KERNELS):
        raise ConfigError(
            f"expected {len(STAGE_KERNELS)} top-down fusions, found {len(blocks)}", where="model.encoder.fpn_blocks"
        )
    if any(method_of(owner) is not None for owner in (encoder, *blocks)):
        raise ConfigError("a fusion method is already there", where="model.encoder.fpn_blocks")
    parts, channels = parts_of(config), encoder.config.encoder_hidden_dim
    # Laterals take the backbone's maps as they are, so that the projections in front of them become identities.
    if parts.laterals:
        projections = model.model.encoder_input_proj
        encoder.add_module(config.name, parts.laterals([layers[0].in_channels for layers in projections], channels))
        encoder.register_forward_pre_hook(_project)
        model.model.encoder_input_proj = nn.ModuleList(nn.Identity() for _ in projections)
    # The deepest fusion comes first: the paper sets k = 1 for its stage 3 and k = 2 for stage 2 (Appendix, sampling
    # ratio).
    for index, k in enumerate(STAGE_KERNELS):
        if parts.sums:
            encoder.fpn_blocks[index] = Sum()
        if parts.fusion:
            encoder.fpn_blocks[index].add_module(config.name, parts.fusion(Place(channels, channels, k), config))
            encoder.fpn_blocks[index].register_forward_pre_hook(_join)
    return model


def rtdetr_fusions(model: RTDetrForObjectDetection) -> list[nn.Module]:
    """Return the injected modules, deepest fusion first, laterals last; empty without any."""
    encoder = model.model.encoder
    found = (method_of(owner) for owner in (*encoder.fpn_blocks, encoder))
    return [method for method in found if method is not None]
