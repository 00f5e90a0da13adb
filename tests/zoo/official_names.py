"""The names of the official RT-DETR repository (rtdetr_pytorch), made from transformers' names.

Written from the module names in its presnet.py, hybrid_encoder.py and rtdetr_decoder.py, and in the direction
opposite to the package's own mapping, so that one checks the other.
"""

from __future__ import annotations

import torch

NORMS = {
    "encoder": ("self_attn_layer_norm", "final_layer_norm"),
    "decoder": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
}
KIND = {"convolution": "conv", "normalization": "norm"}


def backbone(parts: list[str]) -> str:
    """``embedder.embedder.0.convolution.weight``, ``encoder.stages.1.layers.0.shortcut.1.normalization.bias`` ..."""
    if parts[0] == "embedder":
        return f"conv1.conv1_{int(parts[2]) + 1}.{KIND[parts[3]]}.{parts[4]}"
    stage, block, branch, *rest = parts[2], parts[4], *parts[5:]
    if branch == "layer":
        name = f"branch2{'abc'[int(rest[0])]}.{KIND[rest[1]]}.{rest[2]}"
    elif (
        rest[0] == "1"
    ):  # behind an average pool: a Sequential of "pool" and "conv", the latter a convolution and a norm
        name = f"short.conv.{KIND[rest[1]]}.{rest[2]}"
    else:
        name = f"short.{KIND[rest[0]]}.{rest[1]}"
    return f"res_layers.{stage}.blocks.{block}.{name}"


def transformer_layer(parts: list[str], side: str) -> str:
    if parts[0] in NORMS[side]:
        return ".".join([f"norm{NORMS[side].index(parts[0]) + 1}", *parts[1:]])
    if parts[0] == "mlp":
        return ".".join([f"linear{parts[1][-1]}", *parts[2:]])
    return ".".join(["cross_attn" if parts[0] == "encoder_attn" else parts[0], *parts[1:]]).replace(
        "o_proj", "out_proj"
    )


def official_name(key: str, enc_output: tuple[str, str]) -> str:
    first, *parts = key.removeprefix("model.").split(".")
    if first == "backbone":
        return "backbone." + backbone(parts[1:])
    if first == "encoder_input_proj":
        return ".".join(["encoder.input_proj", *parts])
    if first == "decoder_input_proj":
        return ".".join(["decoder.input_proj", parts[0], ("conv", "norm")[int(parts[1])], *parts[2:]])
    if first == "encoder":
        if parts[0] == "aifi":
            return f"encoder.encoder.{parts[1]}.layers.{parts[3]}.{transformer_layer(parts[4:], 'encoder')}"
        return ".".join(["encoder", *parts])
    if first == "decoder":
        if parts[0] == "layers":
            return f"decoder.decoder.layers.{parts[1]}.{transformer_layer(parts[2:], 'decoder')}"
        heads = {"class_embed": "dec_score_head", "bbox_embed": "dec_bbox_head"}
        return ".".join(["decoder", heads.get(parts[0], parts[0]), *parts[1:]])
    if first == "enc_output":
        return ".".join(["decoder.enc_output", enc_output[int(parts[0])], *parts[1:]])
    return ".".join(["decoder", first, *parts])


def official_state(model: torch.nn.Module, enc_output: tuple[str, str] = ("0", "1")) -> dict[str, torch.Tensor]:
    """A state dict as the official repository saves it: query, key and value of self-attention in one tensor.

    ``enc_output``: rtdetr_pytorch leaves the two layers unnamed, rtdetrv2_pytorch calls them proj and norm.
    """
    state: dict[str, torch.Tensor] = {}
    packed: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in model.state_dict().items():
        name = official_name(key, enc_output)
        for letter in "qkv":
            if f".self_attn.{letter}_proj." in name:
                packed.setdefault(name.replace(f"{letter}_proj.", "in_proj_"), {})[letter] = tensor
                break
        else:
            state[name] = tensor
    state.update({name: torch.cat([parts[letter] for letter in "qkv"]) for name, parts in packed.items()})
    # Buffers that are computed, not learned.
    state["decoder.anchors"], state["decoder.valid_mask"] = torch.zeros(1, 8400, 4), torch.ones(1, 8400, 1) > 0
    return state
