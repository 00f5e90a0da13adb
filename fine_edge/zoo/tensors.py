"""Tensors of a file that nobody vouches for: what they claim is checked before anything is allocated for it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from fine_edge.errors import WeightsError

State = dict[str, Tensor]

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MOST_SHARED = 16
"""Times that a value may be used, which models do for heads that several layers have in common."""
_AS_PLAIN = "save the state dict of the model in float32 or float16, where it was made"


def refuse_bomb(path: Path) -> None:
    """Refuse a zip file whose entries are larger than they are stored.

    ``torch.save`` does not compress; what is compressed may unpack to any size.

    Raises:
        WeightsError: for such a file.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return  # torch says what is wrong
    packed = next((one for one in entries if one.compress_type != zipfile.ZIP_STORED), None)
    if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise WeightsError(
            "is a zip file with packed or overlapping contents, which torch.save does not write",
            where=path,
            hint="save it again with torch.save, where it was made",
        )


def plain(state: State, path: Path) -> State:
    """Return the state with every tensor dense, in memory and of no more elements than its file has for it.

    The same holds of all of them together, but for values that several share.

    Floats become float32, which every detector here computes in.

    Raises:
        WeightsError: naming the first tensor that is anything else.
    """
    for key, tensor in state.items():
        reason = _not_plain(tensor)
        if reason:
            raise WeightsError(f"{key} {reason}", where=path, hint=_AS_PLAIN)
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    storages = [tensor.untyped_storage() for tensor in state.values()]
    held = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    if claimed > _MOST_SHARED * held:
        what = f"its {len(state)} tensors claim {claimed} bytes where the file holds {held}"
        raise WeightsError(what, where=path, hint=_AS_PLAIN)
    return {key: tensor.detach().float() if tensor.dtype in _FLOATS else tensor for key, tensor in state.items()}


def _not_plain(tensor: Tensor) -> str | None:
    """Return what is wrong with a tensor, ``None`` for nothing."""
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
        key: of the tensor.
        tensor: as :func:`plain` gives it.
        path: of the file, for the message.

    Raises:
        WeightsError: when it is no float, not finite, or a negative variance.
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
    if key.endswith("running_var") and tensor.numel() and float(tensor.min()) < 0:
        raise WeightsError(
            f"{key} holds a negative variance", where=path, hint="is the file damaged? make or fetch it again"
        )
