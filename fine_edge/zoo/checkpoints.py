"""Reading and writing checkpoint files, whatever detector they are of.

Which keys a file has is the business of a family (:meth:`fine_edge.zoo.family.Family.read`); one layout is the same
for all, ``fine_edge``: written by :func:`save`, with the model's name and labels in the header.

Untrusted files: safetensors, or ``torch.load(weights_only=True)``. Nothing is unpickled.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fine_edge.atomic import output_errors, written_together
from fine_edge.errors import OutputError, WeightsError
from fine_edge.zoo.frozen_batch_norm import weights_for_default_eps

State = dict[str, Tensor]

# Keys that a network holds but that are not learned.
_NOT_LEARNED = re.compile(r"(num_batches_tracked|(^|\.)anchors|(^|\.)valid_mask)$")


@dataclass(frozen=True)
class Checkpoint:
    """Weights under the keys of a family's models.

    Attributes:
        state: what is learned, by key.
        layout: of the file.
        model: name in the zoo, and ``labels`` the class names by index, where the file says them.
    """

    state: State
    layout: str
    model: str | None = None
    labels: tuple[str, ...] | None = None


_CODE = re.compile(r"unsupported (?:global|class)\b:? ?(?:GLOBAL )?(\S+)", re.IGNORECASE)


def _reason(error: Exception) -> str:
    """The telling line of a message of torch's: its unpickler puts advice before and after it."""
    lines = [line.strip() for line in str(error).split("WeightsUnpickler error:")[-1].splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:160]


def read_torch(path: Path, allowed: Sequence[Any] = ()) -> Any:
    """Whatever object a file of ``torch.save`` holds, read without running its code.

    Args:
        path: the file.
        allowed: classes, and (class, name) pairs, that it may hold besides tensors and containers.

    Raises:
        WeightsError: when it is damaged, or holds anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged files make torch warn of pickle protocols that do not exist
            with torch.serialization.safe_globals(list(allowed)):
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


def _own_labels(metadata: dict[str, str], path: Path) -> tuple[str, ...]:
    try:
        return tuple(str(name) for name in json.loads(metadata["fine_edge.labels"]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"its class names are broken ({error!r})", where=path) from error


def read_file(path: Path) -> tuple[State, dict[str, str]]:
    """The tensors of a ``.safetensors`` file, or of any other that torch can load without running code.

    Returns:
        The state, out of the training checkpoint around it, and the header of a safetensors file.

    Raises:
        WeightsError: when the path holds no checkpoint, or one that would need its code run.
    """
    if not path.is_file():
        raise WeightsError("no such checkpoint", where=path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _unwrap(read_torch(path), path), {}


def own(state: State, metadata: dict[str, str], path: Path) -> Checkpoint | None:
    """What a file holds if :func:`save` wrote it."""
    if "fine_edge.model" not in metadata:
        return None
    return Checkpoint(state, "fine_edge", metadata["fine_edge.model"], _own_labels(metadata, path))


def learned(state: State) -> State:
    """Without what a network holds but does not learn."""
    return {key: tensor for key, tensor in state.items() if not _NOT_LEARNED.search(key)}


def learned_state(model: nn.Module) -> State:
    """The state of a model that a checkpoint must bring: parameters and batch-norm statistics."""
    return learned(model.state_dict())


def save(model: nn.Module, path: Path, *, name: str, labels: tuple[str, ...], half: bool = False) -> None:
    """Write a detector's weights as safetensors in our own layout, whole or not at all.

    Args:
        model: whose weights.
        path: of the file.
        name: of the model in the zoo.
        labels: class names by index.
        half: store weights as FP16. Biases and norms stay FP32: they are small, and variances may leave FP16's range.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {**learned_state(model), **weights_for_default_eps(model)}
    state = {key: (t.half() if half and t.ndim > 1 else t).contiguous().clone() for key, t in state.items()}
    metadata = {"fine_edge.model": name, "fine_edge.labels": json.dumps(labels)}
    with written_together(path.parent, path.name) as partial, output_errors(path):
        try:
            save_file(state, str(partial / path.name), metadata=metadata)
        except SafetensorError as error:  # how it reports a full disk
            raise OutputError(f"cannot be written ({error})", where=path, mend="free some space") from error
