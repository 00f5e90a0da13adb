"""A detector before its training: for the classes of a data set, from a checkpoint of other classes or from nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from torch import nn

from fine_edge.errors import DataError, WeightsError
from fine_edge.evaluate.run import plain
from fine_edge.fusion.methods import is_of_method
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint, learned_state
from fine_edge.zoo.family import family_of
from fine_edge.zoo.hf_processor import refused
from fine_edge.zoo.rtdetr.settings import stated_settings
from fine_edge.zoo.tensors import require_values

BACKGROUND = "__background__"


def labels_of(entry: ModelEntry, categories: tuple[str, ...]) -> tuple[str, ...]:
    """Names by the index that the detector gives: torchvision's have the background in front.

    Raises:
        DataError: when two of them are called alike, which nobody could tell apart again.
    """
    labels = (BACKGROUND, *categories) if entry.family == "torchvision" else categories
    if twice := [name for name, count in Counter(map(plain, labels)).items() if count > 1]:
        raise DataError(f"more than one class is called {twice[0]!r}", hint="give each category its own name")
    return labels


def start(entry: ModelEntry, labels: tuple[str, ...], weights: Path | None, seed: int) -> tuple[nn.Module, int]:
    """The detector with seeded initial weights, FINE at identity, and what a checkpoint has for it.

    Returns:
        The model, and how many of its tensors the checkpoint has filled. Class heads of another number of classes
        keep their initial weights, and so does FINE from a baseline's checkpoint.

    Raises:
        WeightsError: when the checkpoint is another detector's.
    """
    family = family_of(entry.family)
    torch.manual_seed(seed)
    model = family.build(entry, len(labels))
    if weights is None:
        return model, 0
    checkpoint = family.read(weights)
    given, wanted = checkpoint.state, learned_state(model)
    fitting = {key: given[key] for key in wanted if key in given and given[key].shape == wanted[key].shape}
    foreign = [key for key in wanted if key not in given and not is_of_method(key)]
    # What has another shape is a class head; anything else would be a handful of tensors that fit by accident.
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
    _refuse_other_settings(entry, model, checkpoint, weights)
    model.load_state_dict(fitting, strict=False)
    return model, len(fitting)


def _refuse_other_settings(entry: ModelEntry, model: nn.Module, checkpoint: Checkpoint, weights: Path) -> None:
    """Refuse a checkpoint whose own settings would be lost: what is trained is the detector of the catalogue."""
    family = family_of(entry.family)
    if (num_labels := family.num_labels(checkpoint)) is not None:
        stated = family.rebuild(entry, checkpoint, num_labels, weights)
        family.require_settings(entry, stated, checkpoint, weights)
        ours, theirs = (stated_settings(each) or {} for each in (model, stated))
        for name in theirs:
            if theirs[name] != ours[name]:
                raise refused(name, theirs[name], (ours[name],), weights)
    if checkpoint.preprocessing not in (None, entry.detector.preprocessing):
        raise WeightsError(
            f"its pictures are preprocessed as {checkpoint.preprocessing}, those of a training are not",
            where=weights,
            hint="train it with its own library, or start from weights with the usual preprocessing",
        )
