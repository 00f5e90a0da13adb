"""The tensors of an untrusted file: the state dict in it, and checks of its claims before memory is allocated."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fine_edge.errors import WeightsError

State = dict[str, Tensor]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# How often a value may be used; models share the heads of several layers.
_MOST_SHARED = 16
_AS_PLAIN = "save the state dict of the model in float32 or float16, where it was made"
# Best first: training scripts evaluate the weights that they average over the training.
_WRAPPERS = (
    *("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "params_ema"),
    *("module", "model", "state_dict", "model_state_dict", "model_state", "net", "network", "params", "weights"),
)
# Training loops nest a few of these dicts; a hostile file could nest any number.
_DEEPEST = 5
# The segment that torch.compile puts into the keys of a model.
_COMPILED = "_orig_mod"


def refuse_foreign_zip(path: Path) -> None:
    """Refuse zip files that ``torch.save`` does not write: TorchScript programs, and files with packed contents.

    ``torch.save`` does not compress. Compressed contents may unpack to any size.

    Raises:
        WeightsError: for such a file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return  # no zip file, or a damaged one, on which torch's own message is better
    # torch.load tells TorchScript from a checkpoint by this entry, too.
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise WeightsError(
            "is a TorchScript program, not weights",
            where=path,
            hint=f"save torch.jit.load({path.name!r}).state_dict() with torch.save",
        )
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise WeightsError(
            "is a zip file with packed or overlapping contents, which torch.save does not write",
            where=path,
            hint="save it again with torch.save, where it was made",
        )


def state_of(data: Any, path: Path) -> State:
    """Return the state dict inside the dicts that a training loop wrapped around it.

    Raises:
        WeightsError: when it holds none.
    """
    if not isinstance(data, dict):
        raise WeightsError(f"holds a {type(data).__name__}, not a state dict", where=path)
    state = _inside(data, _DEEPEST)
    if not state:
        raise WeightsError("holds no tensor", where=path, hint="give a state dict, or a dict with 'model' or 'ema'")
    return state


def _inside(data: dict[Any, Any], depth: int) -> State:
    """Return the state of the best wrapper that holds one, or of the dict itself, or of the only dict with tensors."""
    if depth:
        for name in _WRAPPERS:
            inner = data.get(name)
            if isinstance(inner, dict) and (state := _inside(inner, depth - 1)):
                return state
    # No wrapper of a known name held tensors: an empty ema does not hide the model beside it.
    own = {str(key): value for key, value in data.items() if isinstance(value, Tensor)}
    if own:
        return own
    # A dict of an unknown name is taken where there is no other to choose.
    others = [value for value in data.values() if isinstance(value, dict)]
    found = [state for value in others if (state := {str(k): t for k, t in value.items() if isinstance(t, Tensor)})]
    return found[0] if len(found) == 1 else {}


def bare(state: State, anchors: Sequence[str], path: Path) -> State:
    """Return the state under the model's own keys, without the prefixes of compilation, replication or a trainer.

    Args:
        state: tensors by key.
        anchors: keys of which every state of the family has one.
        path: path of the file, for the message.

    Raises:
        WeightsError: when the state holds several models and none is the average of a training.
    """
    state = {_unwrapped(key): tensor for key, tensor in state.items()}
    if any(anchor in state for anchor in anchors):
        return state
    found = {key.removesuffix(anchor) for key in state for anchor in anchors if key.endswith(f".{anchor}")}
    averaged = {prefix for prefix in found if "ema" in prefix.lower() or "averag" in prefix.lower()}
    prefixes = sorted(averaged or found)
    if len(prefixes) > 1:
        raise WeightsError(
            f"holds {len(prefixes)} models, under {' and '.join(prefixes[:3])}",
            where=path,
            hint="save the state dict of one of them",
        )
    if not prefixes:
        return state
    return {key.removeprefix(prefixes[0]): tensor for key, tensor in state.items() if key.startswith(prefixes[0])}


def _unwrapped(key: str) -> str:
    """Return a key without the segments of torch.compile, and without those of parallel modules in front."""
    parts = [part for part in key.split(".") if part != _COMPILED]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    return ".".join(parts)


def plain(state: State, path: Path) -> State:
    """Return the state with float32 for all floats, the type that every detector here computes in.

    Every tensor must be dense, in memory, and have no more elements than its file holds for it. The last also holds for
    all tensors together, except for values that several share.

    Raises:
        WeightsError: naming the first tensor that breaks this.
    """
    for key, tensor in state.items():
        reason = _not_plain(tensor)
        if reason:
            raise WeightsError(f"{key} {reason}", where=path, hint=_AS_PLAIN)
    # float() below copies what is not float32 yet: many tensors that share one value would take any memory.
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    storages = [tensor.untyped_storage() for tensor in state.values()]
    held = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if claimed > _MOST_SHARED * held:
        what = f"its {len(state)} tensors claim {claimed} bytes where the file holds {held}"
        raise WeightsError(what, where=path, hint=_AS_PLAIN)
    return {key: tensor.detach().float() if tensor.dtype in _FLOATS else tensor for key, tensor in state.items()}


def _not_plain(tensor: Tensor) -> str | None:
    """Return why a tensor is not plain; ``None`` when it is."""
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
        return f"is a {type(tensor).__name__}, not a plain tensor"
    if tensor.is_nested:
        return "is a nested tensor"
    if tensor.layout != torch.strided:
        return f"is a {str(tensor.layout).removeprefix('torch.')} tensor, not a dense one"
    if tensor.device.type != "cpu":
        return f"has a shape but no values (device {tensor.device.type})"
    if tensor.is_quantized:
        return "is quantized"
    if tensor.is_complex():
        return f"is of complex numbers ({tensor.dtype})"
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        held = tensor.untyped_storage().nbytes() // max(1, tensor.element_size())
        return f"claims {tensor.numel()} values of shape {tuple(tensor.shape)} where the file holds {held}"
    return None


def require_values(key: str, tensor: Tensor, path: object) -> None:
    """Refuse a tensor that no layer can compute with.

    Args:
        key: key of the tensor.
        tensor: a tensor as :func:`plain` returns it.
        path: path of the file, for the message.

    Raises:
        WeightsError: when it is not a float, not finite, or a negative variance.
    """
    if tensor.dtype != torch.float32:
        raise WeightsError(f"{key} is of {str(tensor.dtype)[6:]}, floats are needed", where=path, hint=_AS_PLAIN)
    wrong = int((~torch.isfinite(tensor)).sum())
    if wrong:
        raise WeightsError(
            f"{key} holds {wrong} of {tensor.numel()} values that are not finite (NaN or infinity)",
            where=path,
            hint="take a checkpoint from before the training diverged",
        )
    # The root of a negative variance is no number, and neither is any map behind the norm.
    if key.endswith("running_var") and tensor.numel() and float(tensor.min()) < 0:
        raise WeightsError(
            f"{key} holds a negative variance", where=path, hint="is the file damaged? make or fetch it again"
        )
