"""Reading RT-DETR checkpoints of every origin into the keys of transformers' current model.

Three layouts are known, told apart by their keys, never by the file's name:

* ``transformers``: a directory of ``save_pretrained`` or a safetensors file, of version 4 or 5;
* ``official``: the RT-DETR repository's ``.pth`` files (``ema.module`` or ``model``), PResNet backbone;
* ``fine_edge``: written by :func:`save`, with the model's name and labels in the header.

Untrusted files: safetensors, or ``torch.load(weights_only=True)``. Nothing is unpickled.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fine_edge.atomic import output_errors, written_together
from fine_edge.errors import OutputError, WeightsError
from fine_edge.zoo.weights_file import weights_file

State = dict[str, Tensor]
Layout = Literal["transformers", "official", "fine_edge"]

# Keys that a network holds but that are not learned.
_NOT_LEARNED = re.compile(r"(num_batches_tracked|(^|\.)anchors|(^|\.)valid_mask)$")


@dataclass(frozen=True)
class Checkpoint:
    """Weights under the keys of transformers' current RT-DETR.

    ``model`` and ``labels`` are known only where the file says them.
    """

    state: State
    layout: Layout
    model: str | None = None
    labels: tuple[str, ...] | None = None


# --- the official repository: its PResNet, hybrid encoder and decoder to transformers' names, first match wins
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


# --- transformers 4 to 5
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


_CODE = re.compile(r"unsupported (?:global|class)\b:? ?(?:GLOBAL )?(\S+)", re.IGNORECASE)


def _reason(error: Exception) -> str:
    """The telling line of a message of torch's: its unpickler puts advice before and after it."""
    lines = [line.strip() for line in str(error).split("WeightsUnpickler error:")[-1].splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:160]


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged files make torch warn of pickle protocols that do not exist
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch raise whatever it meets: IndexError, AssertionError ...
        if isinstance(error, pickle.UnpicklingError) and (code := _CODE.search(str(error))):
            raise WeightsError(
                f"cannot be loaded without running code ({code[1]})",
                where=path,
                mend="save only the state dict, or convert it to safetensors where you trust it",
            ) from error
        raise WeightsError(
            f"not a PyTorch checkpoint ({_reason(error)})", where=path, mend="is the file whole?"
        ) from error


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            return {key: handle.get_tensor(key) for key in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"not a safetensors file ({error})", where=path) from error


def _unwrap(data: Any, path: Path) -> State:
    """The state dict inside a training checkpoint: ``ema.module`` before ``model`` before the dict itself."""
    if isinstance(data, dict):
        ema = data.get("ema")
        for candidate in (
            ema.get("module") if isinstance(ema, dict) else None,
            data.get("model"),
            data.get("state_dict"),
        ):
            if isinstance(candidate, dict):
                data = candidate
                break
    if not isinstance(data, dict):
        raise WeightsError(f"holds a {type(data).__name__}, not a state dict", where=path)
    state = {str(k).removeprefix("module."): v for k, v in data.items() if isinstance(v, Tensor)}
    if not state:
        raise WeightsError("holds no tensor", where=path, mend="give a state dict, or a dict with 'model' or 'ema'")
    return state


def _directory_labels(folder: Path) -> tuple[str, ...] | None:
    config = folder / "config.json"
    if not config.is_file():
        return None
    try:
        names = json.loads(config.read_text(encoding="utf-8")).get("id2label") or {}
        return tuple(str(names[key]) for key in sorted(names, key=int)) or None
    except (ValueError, AttributeError, TypeError, OSError, RecursionError) as error:
        raise WeightsError(f"config.json is broken ({error})", where=config) from error


def _own_labels(metadata: dict[str, str], path: Path) -> tuple[str, ...]:
    try:
        return tuple(str(name) for name in json.loads(metadata["fine_edge.labels"]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"its class names are broken ({error!r})", where=path) from error


def read(path: Path) -> Checkpoint:
    """Read a checkpoint of any known layout.

    Raises:
        WeightsError: when the path holds no checkpoint, or one that would need its code run.
    """
    labels = None
    if path.is_dir():
        labels = _directory_labels(path)
        file = weights_file(path)
        if file == path:
            raise WeightsError("the folder holds no model.safetensors or pytorch_model.bin", where=path)
        path = file
    if not path.is_file():
        raise WeightsError("no such checkpoint", where=path)
    metadata: dict[str, str] = {}
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state = _unwrap(_read_torch(path), path)
    if "fine_edge.model" in metadata:
        names = _own_labels(metadata, path)
        return Checkpoint(state, "fine_edge", metadata["fine_edge.model"], names)
    if any(key.startswith("backbone.res_layers.") for key in state):
        return Checkpoint(_learned(_from_official(state, path)), "official", labels=labels)
    return Checkpoint(_learned(_from_transformers(state)), "transformers", labels=labels)


def _learned(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if not _NOT_LEARNED.search(key)}


def learned_state(model: nn.Module) -> State:
    """The state of a model that a checkpoint must bring: parameters and batch-norm statistics."""
    return _learned(model.state_dict())


def save(model: nn.Module, path: Path, *, name: str, labels: tuple[str, ...]) -> None:
    """Write a detector's weights as safetensors in our own layout, whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {key: tensor.contiguous().clone() for key, tensor in learned_state(model).items()}
    metadata = {"fine_edge.model": name, "fine_edge.labels": json.dumps(labels)}
    with written_together(path.parent, path.name) as partial, output_errors(path):
        try:
            save_file(state, str(partial / path.name), metadata=metadata)
        except SafetensorError as error:  # how it reports a full disk
            raise OutputError(f"cannot be written ({error})", where=path, mend="free some space") from error
