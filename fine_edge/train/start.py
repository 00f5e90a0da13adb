"""Where a training starts: a detector with a data set's classes and initial weights, or an earlier state of it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from fine_edge import console, files
from fine_edge.errors import ConfigError, DataError, WeightsError
from fine_edge.evaluate.class_names import plain
from fine_edge.files import read_json, sha256_of
from fine_edge.fusion.methods import is_of_method
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint, learned_state
from fine_edge.zoo.family import Family, Trainable
from fine_edge.zoo.hf_processor import refused
from fine_edge.zoo.tensors import require_values


def labels_of(family: Family, categories: tuple[str, ...]) -> tuple[str, ...]:
    """Return the class names of a detector of the family that is trained on a data set's categories.

    Raises:
        DataError: when two classes have the same name, which would make them one in every table.
    """
    labels = family.labels_of(categories)
    if twice := [name for name, count in Counter(map(plain, labels)).items() if count > 1]:
        raise DataError(f"more than one class is called {twice[0]!r}", hint="give each category its own name")
    return labels


def trainable(family: Family, entry: ModelEntry, model: nn.Module) -> Trainable:
    """Return a detector with its library's losses.

    Raises:
        ConfigError: for a detector that needs more than boxes, or that its library trains better.
    """
    if entry.detector.task != "detection":
        raise ConfigError(f"{entry.name} needs masks to be trained with, this takes boxes", where=entry.name)
    return family.trainable(entry, model)


def start(
    family: Family, entry: ModelEntry, labels: tuple[str, ...], weights: Path | None, seed: int
) -> tuple[nn.Module, int]:
    """Build the detector with seeded initial weights, FINE at identity, and fill it from a checkpoint.

    Returns:
        The model, and the number of its tensors that the checkpoint filled. Class heads of another number of classes
        keep their initial weights, and so does FINE when the checkpoint is a baseline's.

    Raises:
        WeightsError: when the checkpoint is another detector's.
    """
    torch.manual_seed(seed)
    model = family.build(entry, len(labels))
    if weights is None:
        return model, 0
    checkpoint = family.read(weights)
    given, wanted = checkpoint.state, learned_state(model)
    fitting = {key: given[key] for key in wanted if key in given and given[key].shape == wanted[key].shape}
    foreign = [key for key in wanted if key not in given and not is_of_method(key)]
    # Only class heads have another shape; where more tensors differ, a few fit by accident.
    other_shape = [key for key in wanted if key in given and key not in fitting]
    if foreign or len(other_shape) > len(wanted) // 10:
        example = (foreign or other_shape)[0]
        raise WeightsError(
            f"weights of another model: {len(foreign) + len(other_shape)} tensors do not fit, such as {example}",
            where=weights,
            hint="choose the model that these weights were made for: python -m fine_edge zoo",
        )
    for key, tensor in fitting.items():
        require_values(key, tensor, weights)
    _refuse_other_settings(family, entry, model, checkpoint, weights)
    model.load_state_dict(fitting, strict=False)
    return model, len(fitting)


def _refuse_other_settings(
    family: Family, entry: ModelEntry, model: nn.Module, checkpoint: Checkpoint, weights: Path
) -> None:
    """Refuse a checkpoint whose own settings would be lost, as the detector of the catalogue is trained."""
    if (num_labels := family.num_labels(checkpoint)) is not None:
        stated = family.rebuild(entry, checkpoint, num_labels, weights)
        family.require_settings(entry, stated, checkpoint, weights)
        ours, theirs = (family.stated_settings(each) or {} for each in (model, stated))
        for name in theirs:
            if theirs[name] != ours[name]:
                raise refused(name, theirs[name], (ours[name],), weights)
    if checkpoint.preprocessing not in (None, entry.detector.preprocessing):
        raise WeightsError(
            f"its pictures are preprocessed as {checkpoint.preprocessing}, those of a training are not",
            where=weights,
            hint="train it with its own library, or start from weights with the usual preprocessing",
        )


# Resumption of a training from Trainer's own checkpoints, if they are complete and of the same training.
#
# A manifest is written into each checkpoint as its last file. It names the training and holds the hashes of all files.
# A checkpoint that a kill cut off, a disk damaged or a person copied from another training is thereby recognised.

MANIFEST = "manifest.json"
# The number of checkpoints that are kept: the newest, and one to fall back to.
_KEPT = 2


def _steps(folder: Path) -> int:
    """Return the number in a checkpoint's name, -1 for any other folder."""
    prefix, _, steps = folder.name.rpartition("-")
    return int(steps) if prefix == PREFIX_CHECKPOINT_DIR and steps.isascii() and steps.isdecimal() else -1


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir() and _steps(path) >= 0]
    return sorted(found, key=_steps, reverse=True)


def _hashes(checkpoint: Path) -> dict[str, str]:
    files = (path for path in sorted(checkpoint.iterdir()) if path.is_file() and path.name != MANIFEST)
    return {path.name: sha256_of(path) for path in files}


def _flaw(checkpoint: Path, fingerprint: str) -> str | None:
    """Return why a training cannot resume from a checkpoint; ``None`` if it can."""
    if not (checkpoint / MANIFEST).is_file():
        return "was not written to its end"
    try:
        manifest = read_json(checkpoint / MANIFEST, DataError)
        found = _hashes(checkpoint)
    except (DataError, OSError):
        return "cannot be read"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return f"has a damaged {MANIFEST}"
    if manifest.get("training") != fingerprint:
        return "is of another training"
    changed = [name for name in sorted({*manifest["files"], *found}) if found.get(name) != manifest["files"].get(name)]
    return f"is damaged ({changed[0]} is not what was written)" if changed else None


def newest_whole(folder: Path, fingerprint: str) -> Path | None:
    """Return the newest checkpoint that a training can resume from, and warn of newer ones that it cannot.

    Args:
        folder: folder of the training.
        fingerprint: fingerprint of the training, see :func:`fine_edge.train.recipe.fingerprint`.
    """
    found = _newest_first(folder)
    for checkpoint in found:
        flaw = _flaw(checkpoint, fingerprint)
        if flaw is None:
            console.remark(f"goes on from {checkpoint}")
            return checkpoint
        console.warn(f"{checkpoint} {flaw}: not used")
    if found:
        console.warn(f"{folder} holds no whole checkpoint of this training: it begins anew")
    return None


class Keeper(TrainerCallback):
    """A callback that writes each checkpoint's manifest, then removes all but the newest checkpoints.

    Args:
        fingerprint: fingerprint of the training.
        wait: returns when every process has called it.
    """

    def __init__(self, fingerprint: str, wait: Callable[[], None]) -> None:
        self._fingerprint, self._wait = fingerprint, wait

    def on_save(self, args: TrainingArguments, state: TrainerState, *_more: Any, **_named: Any) -> None:
        """Write the manifest of the checkpoint that Trainer has just written."""
        self._wait()  # every process writes its random state
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir))
        checkpoint = folder / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        manifest = {"training": self._fingerprint, "files": _hashes(checkpoint)}
        files.write_text(checkpoint / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        older = [path for path in _newest_first(folder) if _steps(path) < state.global_step]
        whole = [path for path in older if self._is_own(path)]
        for path in whole[_KEPT - 1 :]:
            shutil.rmtree(path)

    def _is_own(self, checkpoint: Path) -> bool:
        """Return whether this training wrote the checkpoint completely."""
        try:
            manifest = read_json(checkpoint / MANIFEST, DataError)
        except DataError:
            return False
        return isinstance(manifest, dict) and manifest.get("training") == self._fingerprint
