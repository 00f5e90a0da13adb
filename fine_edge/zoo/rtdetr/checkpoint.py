"""Reading of RT-DETR checkpoints of every origin into the keys of transformers' current model.

Three layouts are known. They are distinguished by their keys, never by the file's name:

* ``transformers``: a directory of ``save_pretrained`` or a safetensors file, of version 4 or 5;
* ``official``: the RT-DETR repository's ``.pth`` files (``ema.module`` or ``model``), PResNet backbone;
* ``fine_edge``: our own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from fine_edge.errors import WeightsError
from fine_edge.files import read_json
from fine_edge.zoo.checkpoints import Checkpoint, class_names, learned, own, read_file
from fine_edge.zoo.hf_processor import read_processor
from fine_edge.zoo.rtdetr.settings import read_labels, read_settings
from fine_edge.zoo.tensors import State
from fine_edge.zoo.weights_file import CONFIG, checkpoint_files

# Keys of transformers' models and of the official repository's; each state has one of them.
ANCHORS = ("model.decoder.class_embed.0.weight", "decoder.dec_score_head.0.weight")

# --- names of the official repository's PResNet, hybrid encoder and decoder to transformers'; the first match wins
_BLOCK = r"^backbone\.res_layers\.(\d+)\.blocks\.(\d+)\."
_LAYER = r"model.backbone.model.encoder.stages.\1.layers.\2."
_OFFICIAL_RULES: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Residual branches; "short.conv.conv" sits behind an average pool, "short.conv" does not.
        (rf"{_BLOCK}short\.conv\.conv\.", rf"{_LAYER}shortcut.1.convolution."),
        (rf"{_BLOCK}short\.conv\.norm\.", rf"{_LAYER}shortcut.1.normalization."),
        (rf"{_BLOCK}short\.conv\.", rf"{_LAYER}shortcut.convolution."),
        (rf"{_BLOCK}short\.norm\.", rf"{_LAYER}shortcut.normalization."),
        *(
            (rf"{_BLOCK}branch2{letter}\.{theirs}\.", rf"{_LAYER}layer.{index}.{ours}.")
            for index, letter in enumerate("abc")
            for theirs, ours in (("conv", "convolution"), ("norm", "normalization"))
        ),
        # Transformer layers of encoder and decoder.
        (r"^encoder\.encoder\.(\d+)\.layers\.(\d+)\.", r"model.encoder.aifi.\1.layers.\2."),
        (r"^decoder\.decoder\.layers\.(\d+)\.cross_attn\.", r"model.decoder.layers.\1.encoder_attn."),
        (r"^decoder\.decoder\.layers\.(\d+)\.", r"model.decoder.layers.\1."),
        # Heads and projections.
        (r"^encoder\.input_proj\.", r"model.encoder_input_proj."),
        (r"^decoder\.input_proj\.(\d+)\.conv\.", r"model.decoder_input_proj.\1.0."),
        (r"^decoder\.input_proj\.(\d+)\.norm\.", r"model.decoder_input_proj.\1.1."),
        (r"^decoder\.dec_score_head\.", r"model.decoder.class_embed."),
        (r"^decoder\.dec_bbox_head\.", r"model.decoder.bbox_embed."),
        (r"^decoder\.query_pos_head\.", r"model.decoder.query_pos_head."),
        (r"^decoder\.enc_output\.proj\.", r"model.enc_output.0."),
        (r"^decoder\.enc_output\.norm\.", r"model.enc_output.1."),
        (r"^decoder\.", r"model."),
        (r"^encoder\.", r"model.encoder."),
    )
]
_STEM = re.compile(r"^backbone\.conv1\.conv1_(\d)\.(conv|norm)\.")
_ENCODER_NORMS = {"norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"}
_DECODER_NORMS = {"norm1": "self_attn_layer_norm", "norm2": "encoder_attn_layer_norm", "norm3": "final_layer_norm"}
_TRANSFORMER_LAYER = re.compile(r"^(model\.(?:encoder\.aifi\.\d+|decoder)\.layers\.\d+)\.(norm\d|linear\d)\.(.+)$")


def _from_official(state: State, path: Path) -> State:
    """Rename the official repository's keys, and split its packed query-key-value projections."""
    renamed: State = {}
    for key, tensor in state.items():
        new = key
        if stem := _STEM.match(key):
            part = "convolution" if stem[2] == "conv" else "normalization"
            new = f"model.backbone.model.embedder.embedder.{int(stem[1]) - 1}.{part}.{key[stem.end() :]}"
        else:
            for pattern, replacement in _OFFICIAL_RULES:
                new, matches = pattern.subn(replacement, key)
                if matches:
                    break
        if layer := _TRANSFORMER_LAYER.match(new):
            norms = _ENCODER_NORMS if ".aifi." in layer[1] else _DECODER_NORMS
            part = {**norms, "linear1": "mlp.fc1", "linear2": "mlp.fc2"}.get(layer[2], layer[2])
            new = f"{layer[1]}.{part}.{layer[3]}"
        if ".self_attn.in_proj_" in new:
            prefix, kind = new.split("in_proj_")  # torch's packed (3C, C): query, key, value
            if not tensor.ndim or tensor.shape[0] % 3:
                raise WeightsError(
                    f"{key} of shape {tuple(tensor.shape)} does not hold query, key and value", where=path
                )
            for name, part_tensor in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"{prefix}{name}_proj.{kind}"] = part_tensor
        else:
            renamed[new.replace(".self_attn.out_proj.", ".self_attn.o_proj.")] = tensor
    return renamed


# --- names of transformers 4 to those of 5
_OLD_TRANSFORMERS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(r"\.self_attn\.out_proj\."), ".self_attn.o_proj."),
    (re.compile(r"^model\.encoder\.encoder\.(\d+)\."), r"model.encoder.aifi.\1."),
    (re.compile(r"\.layers\.(\d+)\.fc([12])\."), r".layers.\1.mlp.fc\2."),
    (re.compile(r"^(class_embed|bbox_embed)\."), r"model.decoder.\1."),
]


def _from_transformers(state: State) -> State:
    renamed: State = {}
    for key, tensor in state.items():
        new = key
        for pattern, replacement in _OLD_TRANSFORMERS:
            new = pattern.sub(replacement, new)
        renamed[new] = tensor
    return renamed


def read(path: Path) -> Checkpoint:
    """Read a checkpoint of any known layout.

    Raises:
        WeightsError: when the path holds no checkpoint, one that only its own code can read, or one whose
            configuration is not supported.
    """
    files = checkpoint_files(path)
    config = files.settings.get(CONFIG)
    labels, settings = (None, None) if config is None else _configuration(config)
    processor = read_processor(files)
    found = read_file(path, ANCHORS)
    ours = own(found, path)
    if ours:
        stated = ours.settings
        return ours if stated is None else replace(ours, settings=read_settings(_mapping(stated, path), path))
    official = any(key.startswith("backbone.res_layers.") for key in found.state)
    state = _from_official(found.state, path) if official else _from_transformers(found.state)
    return Checkpoint(
        learned(state),
        "official" if official else "transformers",
        labels=labels,
        settings=settings,
        preprocessing=None if processor is None else processor.preprocessing,
    )


def _configuration(config: Path) -> tuple[tuple[str, ...] | None, dict[str, Any] | None]:
    """Return the class names and the settings of a ``config.json``."""
    data = _mapping(read_json(config, WeightsError), config)
    # Settings are read before names, so that a file of another model is refused as such.
    settings = read_settings(data, config)
    names = read_labels(data, config)
    return None if names is None else class_names(names, config), settings


def _mapping(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise WeightsError(f"config.json is broken (a {type(data).__name__})", where=path)
    return data
