"""The comparison of a checkpoint with a model by keys and shapes, and the search for the model that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fine_edge.errors import FineEdgeError, WeightsError
from fine_edge.fine_options import METHOD_TITLES
from fine_edge.fusion.methods import METHODS, is_of_method
from fine_edge.zoo.catalog import CATALOG, DETECTORS, ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint, learned_state
from fine_edge.zoo.family import family_of

# These models share their tensors with RT-DETR except for these.
_MARKS = (
    (re.compile(r"(\.|^)(n_points_scale|num_points_scale)$"), "RT-DETRv2"),
    (re.compile(r"(\.|^)(lqe_layers\.\d+|pre_bbox_head|reg_scale|integral)(\.|$)"), "D-FINE"),
)


@dataclass(frozen=True)
class CheckpointFit:
    """The differences between a model's keys and shapes and a checkpoint's.

    Attributes:
        missing: keys that the model has and the state lacks, except those that only training uses.
        unexpected: keys that the state has and the model lacks.
        wrong_shape: keys of tensors of another shape.
        misplaced: keys of ``unexpected`` in a module that the model has.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]
    misplaced: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Return whether the state is one of the model, with or without its fusion methods."""
        outside = [key for key in self.missing if not is_of_method(key)]
        return not (outside or self.wrong_shape or self.misplaced)


def fit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> CheckpointFit:
    """Compare the keys and shapes of a model's learned tensors with a checkpoint's."""
    # Denoising embeddings serve training only, and inference checkpoints come without them.
    missing = tuple(key for key in wanted if key not in given and "denoising_class_embed" not in key)
    unexpected = tuple(key for key in given if key not in wanted)
    wrong_shape = tuple(key for key in wanted if key in given and given[key].shape != wanted[key].shape)
    # Every tensor of RT-DETR R18 is also one of R34. Tensors that are left over in a module of the model show that the
    # weights are a deeper model's; tensors that a library saves for training lie elsewhere.
    roots = {_root(key) for key in wanted}
    return CheckpointFit(missing, unexpected, wrong_shape, tuple(key for key in unexpected if _root(key) in roots))


def require_shapes(model: nn.Module, checkpoint: Checkpoint, where: Path, settings: Callable[[str], str]) -> None:
    """Refuse a checkpoint whose tensors contradict its own configuration.

    Args:
        model: model of the configuration, without memory for its weights.
        checkpoint: checkpoint whose tensors are compared.
        where: path of the checkpoint, for the message.
        settings: returns the settings that decide the shape of a tensor.

    Raises:
        WeightsError: naming the first tensor, and the settings.
    """
    wanted = {key: tensor for key, tensor in learned_state(model).items() if "denoising_class_embed" not in key}
    found = fit(wanted, {key: tensor for key, tensor in checkpoint.state.items() if not is_of_method(key)})
    key = next(iter((*found.wrong_shape, *found.missing, *found.misplaced)), None)
    if key is None or _other_model(found):
        return
    has = f"is {tuple(checkpoint.state[key].shape)}" if key in checkpoint.state else "is not there"
    needs = f"{tuple(wanted[key].shape)}" if key in wanted else "none"
    raise WeightsError(
        f"its configuration says {settings(key)}, which its tensors contradict: {key} {has}, it would be {needs}",
        where=where,
        hint="bring both files from the same model",
    )


def refuse_misfit(
    wanted: Mapping[str, Tensor], checkpoint: Checkpoint, entry: ModelEntry, where: Path
) -> CheckpointFit:
    """Refuse a checkpoint with tensors that would be dropped, or that lacks tensors outside the fusion methods.

    Returns:
        The comparison, for the report.

    Raises:
        WeightsError: naming the model of the checkpoint, where that is known.
    """
    given = checkpoint.state
    found = fit(wanted, given)
    of = "weights of another model" + (f" (the file says {checkpoint.named})" if checkpoint.named else "")
    methods = [key for key in found.missing if is_of_method(key)]
    all_methods = [key for key in wanted if is_of_method(key)]
    other = _other_model(found)
    if other:
        raise WeightsError(f"weights of {other}, which is another model", where=where, hint=choose(entry, where))
    if found.wrong_shape:
        key = found.wrong_shape[0]
        raise WeightsError(
            f"{of}: {key} is {tuple(given[key].shape)}, needed {tuple(wanted[key].shape)}"
            f" ({len(found.wrong_shape)} such)",
            where=where,
            hint=choose(entry, where),
        )
    # A baseline's checkpoint lacks the method as a whole; one that lacks a part is damaged or of another block.
    if len(found.missing) > len(methods) or (methods and len(methods) < len(all_methods)):
        outside = [key for key in found.missing if not is_of_method(key)] or methods
        raise WeightsError(
            f"{of}: {len(outside)} tensors are missing, such as {outside[0]}"
            f" ({len(given)} given, {len(found.unexpected)} unexpected)",
            where=where,
            hint=choose(entry, where),
        )
    if any(map(is_of_method, found.unexpected)):
        raise WeightsError(
            "holds trained FINE weights that this model would drop", where=where, hint="use its _fine model"
        )
    if methods and entry.method and METHODS[entry.method].replaces_layers:
        raise WeightsError(
            f"holds no weights of {METHOD_TITLES[entry.method]}, which takes the place of layers of the detector",
            where=where,
            hint=choose(entry, where),
        )
    if found.misplaced:
        # Where left-over keys are the model's own but for their numbers, the weights have more of the same layers.
        layers = {_without_numbers(key) for key in wanted}
        deeper = all(_without_numbers(key) in layers for key in found.misplaced)
        raise WeightsError(
            f"{'weights of a deeper model' if deeper else of}: {len(found.misplaced)} tensors have no place here, such"
            f" as {found.misplaced[0]}",
            where=where,
            hint=choose(entry, where),
        )
    return found


def fitting_model(weights: Path, but: ModelEntry) -> str | None:
    """Return the name of the zoo's model, other than ``but``, that a checkpoint belongs to; ``None`` for none."""
    checkpoints: dict[str, Checkpoint | None] = {}
    for entry in CATALOG.values():
        if entry.name == but.name or entry.method not in (None, "fine"):
            continue
        if entry.family not in checkpoints:
            checkpoints[entry.family] = _read(entry, weights)
        checkpoint = checkpoints[entry.family]
        if checkpoint and _is_of(entry, checkpoint):
            return entry.name
    return None


def _read(entry: ModelEntry, weights: Path) -> Checkpoint | None:
    try:
        return family_of(entry.family).read(weights)
    except FineEdgeError:
        return None


def _is_of(entry: ModelEntry, checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint belongs to a model, which is built without memory where its library can."""
    if (entry.method is not None) != any(map(is_of_method, checkpoint.state)):
        return False
    family = family_of(entry.family)
    num_labels = family.num_labels(checkpoint)
    if num_labels is None:
        return False
    try:
        # Only keys and shapes count. Building draws random weights, which must not change the caller's random state.
        with torch.device("meta" if family.builds_on_meta else "cpu"), torch.random.fork_rng(devices=[]):
            model = family.build(entry, num_labels)
    except FineEdgeError:
        return False
    found = fit(learned_state(model), checkpoint.state)
    return found.whole and not any(map(is_of_method, found.missing)) and _other_model(found) is None


def choose(entry: ModelEntry, weights: Path) -> str:
    """Return the hint for weights of another model, with that model's name if the zoo has it."""
    name = fitting_model(weights, entry)
    if name:
        return f"use {name}"
    names = ", ".join(detector.name for detector in DETECTORS if detector.family == entry.family)
    return f"no model of the zoo has these tensors, so they are not supported; of this family it has {names}"


def _other_model(found: CheckpointFit) -> str | None:
    """Return the name of a model outside the zoo that shares RT-DETR's keys, by a tensor that only it has."""
    return next((name for mark, name in _MARKS if any(map(mark.search, found.unexpected))), None)


def _root(key: str) -> str:
    """Return the module of two levels that a tensor belongs to, such as ``model.backbone``."""
    return ".".join(key.split(".")[:2])


def _without_numbers(key: str) -> str:
    return re.sub(r"\d+", "#", key)
