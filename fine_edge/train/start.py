"""A detector before its training, with the classes of a data set and initial weights or those of a checkpoint."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from torch import nn

from fine_edge.errors import ConfigError, DataError, WeightsError
from fine_edge.evaluate.class_names import plain
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
