"""RT-DETR of transformers, with FINE injected at the two fusions of its hybrid encoder's top-down path.

Injection is surgery at named points of the loaded model: the class is not forked, and
the keys of its own weights stay what they were, so any RT-DETR checkpoint still loads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection

from fine_edge.errors import ConfigError
from fine_edge.fusion import Fine, FineConfig
from fine_edge.fusion.config import AttentionName
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.coco import COCO_LABELS

# Sampling kernel by fusion, deepest first: k = 1 at l = 3, k = 2 at l = 2 (Sec. 5.3).
STAGE_KERNELS = (1, 2)


def rtdetr_config(variant: str, num_labels: int = len(COCO_LABELS), decoder_layers: int | None = None) -> RTDetrConfig:
    """Configuration of ``r18`` or ``r50`` as the official repository's rtdetr_r18vd and rtdetr_r50vd have it."""
    labels: dict[str, Any] = {"num_labels": num_labels}
    if num_labels == len(COCO_LABELS):
        labels = {"id2label": dict(enumerate(COCO_LABELS)), "label2id": {x: i for i, x in enumerate(COCO_LABELS)}}
    if variant == "r18":
        config = RTDetrConfig(
            **labels,
            backbone_config={
                "model_type": "rt_detr_resnet",
                "hidden_sizes": [64, 128, 256, 512],
                "depths": [2, 2, 2, 2],
                "layer_type": "basic",
                "out_features": ["stage2", "stage3", "stage4"],
            },
            encoder_in_channels=[128, 256, 512],
            hidden_expansion=0.5,
            decoder_layers=decoder_layers or 3,
        )
    elif variant == "r50":
        config = RTDetrConfig(**labels, decoder_layers=decoder_layers or 6)
    else:
        raise ConfigError(f"RT-DETR has no variant {variant!r} here, known: r18, r50", where="rtdetr_config")
    # Anchors follow the size of the input instead of one fixed size.
    config.anchor_image_size = None
    # Explicit matmul and softmax: fvcore does not count fused attention, and the exporter lowers it less well.
    config._attn_implementation = {"": "eager", "backbone_config": "eager"}
    return config


def _refine_low_level(fpn_block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Forward pre-hook of an FPN block: run FINE on the low-level half of the concatenated map.

    The block receives (B, 2C, H, W), the upsampled high-level map first. Nearest upsampling by two
    repeats every pixel, so every second pixel is the high-level map itself, bit for bit.
    """
    (fused,) = inputs
    upsampled, low = fused.chunk(2, dim=1)  # (B, C, H, W) each
    high = upsampled[:, :, ::2, ::2]  # (B, C, H / 2, W / 2)
    fine: nn.Module = fpn_block.get_submodule("fine")
    return (torch.cat([upsampled, fine(low, high)], dim=1),)


def inject_fine(
    model: RTDetrForObjectDetection, attention: AttentionName = "aats", *, identity: bool = True
) -> RTDetrForObjectDetection:
    """Put FINE in front of both top-down fusions of a loaded RT-DETR, in place.

    Args:
        model: any RT-DETR of transformers.
        attention: strategy of Table 3.
        identity: start as the identity, so that a pretrained detector's outputs do not change.

    Raises:
        ConfigError: when the model has no such two fusions, or already has FINE.
    """
    encoder = model.model.encoder
    blocks = list(getattr(encoder, "fpn_blocks", []))
    if len(blocks) != len(STAGE_KERNELS):
        raise ConfigError(
            f"expected {len(STAGE_KERNELS)} top-down fusions, found {len(blocks)}", where="model.encoder.fpn_blocks"
        )
    if any(hasattr(block, "fine") for block in blocks):
        raise ConfigError("FINE is already there", where="model.encoder.fpn_blocks")
    for block, k in zip(blocks, STAGE_KERNELS, strict=True):
        channels = encoder.config.encoder_hidden_dim
        block.fine = Fine(FineConfig(channels=channels, attention=attention, k=k, identity=identity))
        block.register_forward_pre_hook(_refine_low_level)
    return model


def fine_blocks(model: RTDetrForObjectDetection) -> list[Fine]:
    """The injected FINE blocks, deepest fusion first; empty without FINE."""
    return [block.fine for block in model.model.encoder.fpn_blocks if hasattr(block, "fine")]


def build(entry: ModelEntry, num_labels: int = len(COCO_LABELS), *, identity: bool = True) -> RTDetrForObjectDetection:
    """The detector of a catalog entry with transformers' own initial weights, in eval mode."""
    model = RTDetrForObjectDetection(rtdetr_config(entry.variant, num_labels))
    if entry.attention:
        inject_fine(model, entry.attention, identity=identity)
    model.train(False)
    return model
