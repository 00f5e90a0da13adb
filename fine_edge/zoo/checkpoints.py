"""Reading and writing of checkpoint files of any detector.

A family reads the keys of its library (:meth:`fine_edge.zoo.family.Family.read`). One layout is common to all families:
``fine_edge``, which :func:`save` writes with the model's name and labels in the header.

Files are not trusted. They are read as safetensors or by ``torch.load(weights_only=True)``, so that no code of theirs
runs, and no memory is allocated for sizes that a file merely claims (:mod:`fine_edge.zoo.tensors`).
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
from torchvision.ops import FrozenBatchNorm2d

from fine_edge.errors import ArtifactError, OutputError, WeightsError
from fine_edge.fields import LONGEST_TEXT, Count, from_data
from fine_edge.files import file_size, output_errors, parse_json, read_json, written_together
from fine_edge.preprocess import Preprocessing
from fine_edge.text import printable
from fine_edge.zoo.catalog import DETECTORS
from fine_edge.zoo.inert import PLAIN_DATA, records
from fine_edge.zoo.rtdetr.settings import stated_settings
from fine_edge.zoo.tensors import State, bare, plain, refuse_foreign_zip, require_values, state_of
from fine_edge.zoo.weights_file import CheckpointFiles, checkpoint_files

# The epsilon of frozen batch norms in torchvision and transformers; a state has no key for another.
EPS = 1e-5


def weight_for_default_eps(weight: Tensor, var: Tensor, eps: float) -> Tensor:
    """Return the weight (C,) with which a batch norm of :data:`EPS` computes the same as this one with ``eps``."""
    # weight / sqrt(var + eps) = new / sqrt(var + EPS). In double, as trained variances may be as small as an epsilon.
    return (weight.double() * torch.sqrt((var.double() + EPS) / (var.double() + eps))).to(weight)


def weights_for_default_eps(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights by key that a saved state needs instead of the model's own; empty if all have :data:`EPS`."""
    return {
        f"{name}.weight": weight_for_default_eps(module.weight, module.running_var, module.eps)
        for name, module in model.named_modules()
        if isinstance(module, FrozenBatchNorm2d) and module.eps != EPS
    }


# Keys of values that a network holds but does not learn.
_NOT_LEARNED = re.compile(r"(num_batches_tracked|(^|\.)anchors|(^|\.)valid_mask)$")
# The largest finite number of FP16.
_FP16_MAX = 65504.0


@dataclass(frozen=True)
class Checkpoint:
    """Weights under the keys of a family's models, and the file's other statements.

    Attributes:
        state: learned tensors by key.
        layout: layout of the file.
        model: name in the zoo; ``None`` where the file does not state it, as for all that follow.
        labels: class names by index.
        settings: settings that change the computation, in the form of the family that reads the file.
        preprocessing: preprocessing from a picture to the input.
        named: the file's own name of its model, for messages.
        trained_hw: height and width that the weights were trained at.
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
    """The contents of a checkpoint's files.

    Attributes:
        state: tensors by key.
        metadata: header of a safetensors file.
        beside: the dict around the state dict; empty where there is none.
        files: the files that were read.
    """

    state: State
    metadata: dict[str, str]
    beside: dict[str, Any]
    files: CheckpointFiles


# As torch's unpickler says it: "Unsupported global: GLOBAL posix.mkdir was not an allowed global by default."
_CODE = re.compile(r"unsupported (?:global|class)\b:? ?(?:GLOBAL )?(\S+)", re.IGNORECASE)
# torchvision's training scripts save their command line, a Namespace of plain data.
_INERT = ("argparse.Namespace", *PLAIN_DATA)


def _reason(error: Exception) -> str:
    """Return the line of torch's message that states the reason; its unpickler adds advice before and after it."""
    lines = [line.strip() for line in str(error).split("WeightsUnpickler error:")[-1].splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:160]


def names_in(path: Path) -> list[str]:
    """Return the names outside torch's own list that a file of ``torch.save`` mentions; nothing is imported."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # a damaged file: loading it afterwards says what is wrong
        return []


def read_torch(path: Path, allowed: Sequence[Any] = ()) -> Any:
    """Read the object in a file of ``torch.save`` without running its code.

    Args:
        path: path of the file.
        allowed: classes, and (class, name) pairs, that the file may hold besides tensors and containers.

    Raises:
        WeightsError: when the file is damaged, or holds anything else.
    """
    file_size(path, WeightsError)
    refuse_foreign_zip(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged files make torch warn of pickle protocols that do not exist
            with torch.serialization.safe_globals([*allowed, *records(_INERT)]):
                # On the CPU, so that a file from a machine with a GPU loads on one without.
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make torch raise any error: IndexError, AssertionError ...
        if isinstance(error, pickle.UnpicklingError) and (code := _CODE.search(str(error))):
            raise _needs_code(code[1], path) from error
        raise WeightsError(
            f"not a PyTorch checkpoint ({_reason(error)})", where=path, hint="is the file whole?"
        ) from error


def _needs_code(code: str, path: Path) -> WeightsError:
    """Return the error for a file that names a class or function, with a hint on how to get at its weights."""
    loaded = f"torch.load({path.name!r}, weights_only=False)"
    package = code.partition(".")[0]
    # Its own family reads such a pickle as inert records, so that the name of the right model is the hint.
    of_library = [detector for detector in DETECTORS if detector.library.package == package]
    if any(detector.library.saves_models for detector in of_library):
        names = ", ".join(detector.name for detector in of_library)
        return WeightsError(
            f"a model of {package}: it cannot be loaded without running code ({code})",
            where=path,
            hint=f"use the model that it is of, where that is one of {names}",
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
            # By keys(), as the handle itself cannot be iterated.
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
    """Return class names for contracts and JSON, with unprintable characters escaped.

    Raises:
        WeightsError: for a name that is neither a text nor a number, or that no contract takes.
    """
    for index, name in enumerate(names):
        if not isinstance(name, str | int | float):
            raise WeightsError(
                f"its class names are broken (class {index} is a {type(name).__name__})", where=path, hint="use text"
            )
    shown = tuple(printable(str(name)) for name in names)
    for index, name in enumerate(shown):
        if len(name) > LONGEST_TEXT:
            what = f"class {index} has a name of {len(name)} characters, at most {LONGEST_TEXT} are read"
            raise WeightsError(what, where=path, hint="give it a shorter name")
    return shown


def read_file(path: Path, anchors: Sequence[str]) -> ReadFile:
    """Read a ``.safetensors`` file, or any other that torch can load without running code.

    Args:
        path: a file, or a folder in the form of Hugging Face's libraries.
        anchors: keys of which every state of the family has one, see :func:`fine_edge.zoo.tensors.bare`.

    Returns:
        The state, taken out of the training checkpoint around it, and that checkpoint.

    Raises:
        WeightsError: when the path holds no checkpoint, or one that only its own code can read.
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
    """Refuse shards that lack a tensor of their index."""
    lacking = [key for key in read_json(index, WeightsError)["weight_map"] if key not in state]
    if lacking:
        raise WeightsError(
            f"the shards lack {len(lacking)} tensors of the index, such as {lacking[0]}", where=index, hint="copy all"
        )


def own(read: ReadFile, path: Path) -> Checkpoint | None:
    """Return the checkpoint if :func:`save` wrote the file, else ``None``."""
    metadata = read.metadata
    if "fine_edge.model" not in metadata:
        return None
    try:
        settings = parse_json(metadata.get("fine_edge.settings", "null"))
        stated = parse_json(metadata.get("fine_edge.preprocessing", "null"))
        preprocessing = None if stated is None else Preprocessing.from_json(stated)
        size = metadata.get("fine_edge.trained_hw")  # files of older versions have none
        trained_hw = None if size is None else from_data(tuple[Count, Count], parse_json(size))
    except (ValueError, ArtifactError, TypeError) as error:
        raise WeightsError(f"its header is broken ({error})", where=path) from error
    return Checkpoint(
        read.state,
        "fine_edge",
        metadata["fine_edge.model"],
        _own_labels(metadata, path),
        settings=settings,
        preprocessing=preprocessing,
        trained_hw=trained_hw,
    )


def learned(state: State) -> State:
    """Return a state without the values that a network holds but does not learn."""
    return {key: tensor for key, tensor in state.items() if not _NOT_LEARNED.search(key)}


def learned_state(model: nn.Module) -> State:
    """Return the state that a checkpoint must bring: parameters and batch-norm statistics."""
    return learned(model.state_dict())


def save(
    model: nn.Module,
    path: Path,
    *,
    name: str,
    labels: tuple[str, ...],
    half: bool = False,
    preprocessing: Preprocessing | None = None,
    trained_hw: tuple[int, int] | None = None,
) -> None:
    """Write a detector's weights as safetensors in our own layout, atomically.

    Args:
        model: the model, of which the configuration is saved too where its library has one.
        path: path of the file.
        name: name of the model in the zoo.
        labels: class names by index.
        half: whether to store weights as FP16. Biases and norms stay FP32, as they are small and variances may leave
            FP16's range. So do weights that leave it.
        preprocessing: preprocessing from a picture to the input, where it is not the model's usual one.
        trained_hw: height and width that the weights were trained at, pixels.

    Raises:
        WeightsError: for a weight that is not finite.
        OutputError: when the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    state = {**learned_state(model), **weights_for_default_eps(model)}
    # Before anything is written, as this program would refuse to read such a file.
    for key, tensor in state.items():
        if tensor.is_floating_point():
            require_values(key, tensor.float(), name)
    # Cloned, as safetensors refuses tensors that share memory, as the heads of several layers may.
    state = {key: (_halved(t) if half else t).contiguous().clone() for key, t in state.items()}
    metadata = {"fine_edge.model": name, "fine_edge.labels": json.dumps(labels)}
    if (settings := stated_settings(model)) is not None:
        metadata["fine_edge.settings"] = json.dumps(settings)
    if preprocessing is not None:
        metadata["fine_edge.preprocessing"] = json.dumps(preprocessing.to_json())
    if trained_hw is not None:
        metadata["fine_edge.trained_hw"] = json.dumps(trained_hw)
    with written_together(path.parent, path.name) as partial, output_errors(path):
        try:
            save_file(state, str(partial / path.name), metadata=metadata)
        except SafetensorError as error:  # how it reports a full disk
            raise OutputError(f"cannot be written ({error})", where=path, hint="free some space") from error


def _halved(tensor: Tensor) -> Tensor:
    """Return a weight in FP16; a weight beyond FP16's range stays as it is."""
    fits = tensor.ndim > 1 and tensor.numel() and float(tensor.abs().max()) <= _FP16_MAX
    return tensor.half() if fits else tensor
