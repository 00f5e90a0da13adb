"""The state dict inside whatever a training loop wrapped around it: dicts of a checkpoint, prefixes of the keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fine_edge.errors import WeightsError
from fine_edge.zoo.tensors import State

# Best first: what was averaged over the training is what its own scripts evaluate.
_WRAPPERS = (
    *("ema", "model_ema", "ema_model", "ema_state_dict", "state_dict_ema", "params_ema"),
    *("module", "model", "state_dict", "model_state_dict", "model_state", "net", "network", "params", "weights"),
)
_DEEPEST = 5
_COMPILED = "_orig_mod"


def state_of(data: Any, path: Path) -> State:
    """Return the tensors by key of the state dict that a checkpoint holds.

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
    own = {str(key): value for key, value in data.items() if isinstance(value, Tensor)}
    if own:
        return own
    others = [value for value in data.values() if isinstance(value, dict)]
    found = [state for value in others if (state := {str(k): t for k, t in value.items() if isinstance(t, Tensor)})]
    return found[0] if len(found) == 1 else {}


def bare(state: State, anchors: Sequence[str], path: Path) -> State:
    """Return the state under the model's own keys, without what compilation, replication or a trainer put in front.

    Args:
        state: by key.
        anchors: keys of which every state of the family has one.
        path: of the file, for the message.

    Raises:
        WeightsError: when it holds several models and none is the average of a training.
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
    """Return a key without the segments of torch.compile, and of parallel modules in front."""
    parts = [part for part in key.split(".") if part != _COMPILED]
    while len(parts) > 1 and parts[0] == "module":
        del parts[0]
    return ".".join(parts)
