"""Reading and writing checkpoint files, whatever detector they are of.

Which keys a file has is the business of a family (:meth:`fine_edge.zoo.family.Family.read`); one layout is the same
for all, ``fine_edge``: written by :func:`save`, with the model's name and labels in the header.

Untrusted files: safetensors, or ``torch.load(weights_only=True)``. Nothing is unpickled, and nothing is allocated for
what a file merely claims (:mod:`fine_edge.zoo.tensors`).
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from fine_edge.errors import ArtifactError, OutputError, WeightsError
from fine_edge.files import file_size, output_errors, parse_json, read_json, written_together
from fine_edge.preprocess import Preprocessing
from fine_edge.text import printable
from fine_edge.zoo.catalog import DETECTORS
from fine_edge.zoo.inert import PLAIN_DATA, records
from fine_edge.zoo.rtdetr.settings import stated_settings
from fine_edge.zoo.tensors import State, plain, refuse_bomb, require_values
from fine_edge.zoo.weights_file import CheckpointFiles, checkpoint_files
from fine_edge.zoo.wrappers import bare, state_of

EPS = 1e-5


def weight_for_default_eps(weight: Tensor, var: Tensor, eps: float) -> Tensor:
    """The weight (C,) with which a frozen batch norm of :data:`EPS` does what this one does with ``eps``."""
    return (weight.double() * torch.sqrt((var.double() + EPS) / (var.double() + eps))).to(weight)


def weights_for_default_eps(model: nn.Module) -> dict[str, Tensor]:
    """The weights, by key, that a model's state needs instead of its own; empty where all have :data:`EPS`."""
    return {
        f"{name}.weight": weight_for_default_eps(module.weight, module.running_var, module.eps)
        for name, module in model.named_modules()
        if isinstance(module, FrozenBatchNorm2d) and module.eps != EPS
    }


# Keys that a network holds but that are not learned.
_NOT_LEARNED = re.compile(r"(num_batches_tracked|(^|\.)anchors|(^|\.)valid_mask)$")
_FP16_MAX = 65504.0


@dataclass(frozen=True)
class Checkpoint:
    """Weights under the keys of a family's models, and what the file says besides.

    Attributes:
        state: what is learned, by key.
        layout: of the file.
        model: name in the zoo, and ``labels`` the class names by index, where the file says them.
        settings: what changes the computation, as the family that reads the file understands it.
        preprocessing: from a picture to the input, where the file says it.
        named: what the file calls its own model, for messages.
        trained_hw: height and width that it was trained at, where the file says them.
    """

    state: State
    layout: str
    model: str | None = None
    labels: tuple[str, ...] | None = None
    settings: Any = None
    preprocessing: Preprocessing | None = None
    named: str | None = None
    trained_hw: tuple[int, int] | None = None


@dataclass(frozen=True)
class ReadFile:
    """What a checkpoint's files hold.

    Attributes:
        state: tensors by key.
        metadata: header of a safetensors file.
        beside: the dict around the state dict, where there is one.
        files: that were read.
    """

    state: State
    metadata: dict[str, str]
    beside: dict[str, Any]
    files: CheckpointFiles


_CODE = re.compile(r"unsupported (?:global|class)\b:? ?(?:GLOBAL )?(\S+)", re.IGNORECASE)
# A command line, as torchvision's training scripts save it, and what may stand in one.
_INERT = ("argparse.Namespace", *PLAIN_DATA)


def _reason(error: Exception) -> str:
    """The telling line of a message of torch's: its unpickler puts advice before and after it."""
    lines = [line.strip() for line in str(error).split("WeightsUnpickler error:")[-1].splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:160]


def names_in(path: Path) -> list[str]:
    """Return the names outside torch's own list that a file of ``torch.save`` mentions; read, not imported."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged file names nothing; reading it for good says what is wrong
        return []


def read_torch(path: Path, allowed: Sequence[Any] = ()) -> Any:
    """Whatever object a file of ``torch.save`` holds, read without running its code.

    Args:
        path: the file.
        allowed: classes, and (class, name) pairs, that it may hold besides tensors and containers.

    Raises:
        WeightsError: when it is damaged, or holds anything else.
    """
    file_size(path, WeightsError)
    if _is_torchscript(path):
        raise WeightsError(
            "is a TorchScript program, not weights",
            where=path,
            hint=f"save torch.jit.load({path.name!r}).state_dict() with torch.save",
        )
    refuse_bomb(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged files make torch warn of pickle protocols that do not exist
            with torch.serialization.safe_globals([*allowed, *records(_INERT)]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch raise whatever it meets: IndexError, AssertionError ...
        if isinstance(error, pickle.UnpicklingError) and (code := _CODE.search(str(error))):
            raise _needs_code(code[1], path) from error
        raise WeightsError(
            f"not a PyTorch checkpoint ({_reason(error)})", where=path, hint="is the file whole?"
        ) from error


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return False


def _needs_code(code: str, path: Path) -> WeightsError:
    """Return the error of a file that names a class or function, with the way to its weights."""
    loaded = f"torch.load({path.name!r}, weights_only=False)"
    if code.startswith("ultralytics."):
        yolos = ", ".join(detector.name for detector in DETECTORS if detector.family == "yolo")
        return WeightsError(
            f"a model of ultralytics: it cannot be loaded without running code ({code})",
            where=path,
            hint=f"use the model that it is of, where that is one of {yolos}",
        )
    if any(name.startswith("torch.nn.modules.") for name in names_in(path)):
        return WeightsError(
            f"a whole model instead of its weights: it cannot be loaded without running code ({code})",
            where=path,
            hint=f"save its state dict, where you trust it: torch.save({loaded}.state_dict(), 'weights.pth')",
        )
    return WeightsError(
        f"cannot be loaded without running code ({code})",
        where=path,
        hint="save only the state dict, or convert it to safetensors where you trust it:"
        f" torch.save({loaded}['model'], 'weights.pth') if it lies under 'model'",
    )


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            return {key: handle.get_tensor(key) for key in handle.keys()}, handle.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"not a safetensors file ({error})", where=path) from error


def _own_labels(metadata: dict[str, str], path: Path) -> tuple[str, ...]:
    try:
        names = parse_json(metadata["fine_edge.labels"])
        if not isinstance(names, list):
            raise TypeError(f"a {type(names).__name__} instead of a list")
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"its class names are broken ({error!r})", where=path) from error
    return class_names(names, path)


def class_names(names: Sequence[object], path: Path) -> tuple[str, ...]:
    """Return class names fit for contracts and JSON: what no encoding or terminal takes is written out.

    Raises:
        WeightsError: for a name that is neither text nor a number.
    """
    for index, name in enumerate(names):
        if not isinstance(name, str | int | float):
            raise WeightsError(
                f"its class names are broken (class {index} is a {type(name).__name__})", where=path, hint="use text"
            )
    return tuple(printable(str(name)) for name in names)


def read_file(path: Path, anchors: Sequence[str]) -> ReadFile:
    """The tensors of a ``.safetensors`` file, or of any other that torch can load without running code.

    Args:
        path: a file, or a folder as Hugging Face's libraries write it.
        anchors: keys of which every state of the family has one, see :func:`fine_edge.zoo.wrappers.bare`.

    Returns:
        The state, out of the training checkpoint around it, and what lies around it.

    Raises:
        WeightsError: when the path holds no checkpoint, or one that would need its code run.
    """
    files = checkpoint_files(path)
    state: State = {}
    metadata: dict[str, str] = {}
    beside: dict[str, Any] = {}
    for file in files.tensors:
        if file.suffix == ".safetensors":
            tensors, metadata = _read_safetensors(file)
        else:
            beside = read_torch(file)
            tensors = state_of(beside, file)
        state |= tensors
    if files.index is not None:
        _require_indexed(state, files.index)
    state = plain(bare(state, anchors, path), path)
    return ReadFile(state, metadata, beside, files)


def _require_indexed(state: State, index: Path) -> None:
    """Refuse shards that lack a tensor which their index names."""
    lacking = [key for key in read_json(index, WeightsError)["weight_map"] if key not in state]
    if lacking:
        raise WeightsError(
            f"the shards lack {len(lacking)} tensors of the index, such as {lacking[0]}", where=index, hint="copy all"
        )


def own(read: ReadFile, path: Path) -> Checkpoint | None:
    """What a file holds if :func:`save` wrote it."""
    metadata = read.metadata
    if "fine_edge.model" not in metadata:
        return None
    try:
        settings = parse_json(metadata.get("fine_edge.settings", "null"))
        stated = parse_json(metadata.get("fine_edge.preprocessing", "null"))
        preprocessing = None if stated is None else Preprocessing.from_json(stated)
    except (ValueError, ArtifactError, TypeError) as error:
        raise WeightsError(f"its header is broken ({error})", where=path) from error
    return Checkpoint(
        read.state,
        "fine_edge",
        metadata["fine_edge.model"],
        _own_labels(metadata, path),
        settings=settings,
        preprocessing=preprocessing,
    )


def learned(state: State) -> State:
    """Without what a network holds but does not learn."""
    return {key: tensor for key, tensor in state.items() if not _NOT_LEARNED.search(key)}


def learned_state(model: nn.Module) -> State:
    """The state of a model that a checkpoint must bring: parameters and batch-norm statistics."""
    return learned(model.state_dict())


def save(
    model: nn.Module,
    path: Path,
    *,
    name: str,
    labels: tuple[str, ...],
    half: bool = False,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Write a detector's weights as safetensors in our own layout, whole or not at all.

    Args:
        model: whose weights, and whose configuration where its library has one.
        path: of the file.
        name: of the model in the zoo.
        labels: class names by index.
        half: store weights as FP16. Biases and norms stay FP32: they are small, and variances may leave FP16's range.
            So do weights that leave it.
        preprocessing: from a picture to the input, where it is not the model's usual one.

    Raises:
        WeightsError: for a weight that is not finite.
        OutputError: when the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {**learned_state(model), **weights_for_default_eps(model)}
    for key, tensor in state.items():
        if tensor.is_floating_point():
            require_values(key, tensor.float(), name)
    state = {key: (_halved(t) if half else t).contiguous().clone() for key, t in state.items()}
    metadata = {"fine_edge.model": name, "fine_edge.labels": json.dumps(labels)}
    if (settings := stated_settings(model)) is not None:
        metadata["fine_edge.settings"] = json.dumps(settings)
    if preprocessing is not None:
        metadata["fine_edge.preprocessing"] = json.dumps(preprocessing.to_json())
    with written_together(path.parent, path.name) as partial, output_errors(path):
        try:
            save_file(state, str(partial / path.name), metadata=metadata)
        except SafetensorError as error:  # how it reports a full disk
            raise OutputError(f"cannot be written ({error})", where=path, hint="free some space") from error


def _halved(tensor: Tensor) -> Tensor:
    """Return a weight in FP16, or as it is where FP16 has no such numbers."""
    fits = tensor.ndim > 1 and tensor.numel() and float(tensor.abs().max()) <= _FP16_MAX
    return tensor.half() if fits else tensor
