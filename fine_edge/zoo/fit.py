"""Whether a checkpoint is of a model: by its tensors' keys and shapes, and which model it is of where it is not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fine_edge.errors import FineEdgeError, WeightsError
from fine_edge.fusion.methods import is_of_method
from fine_edge.zoo.catalog import CATALOG, DETECTORS, ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint, learned_state
from fine_edge.zoo.family import family_of

# Tensors that only these models have, which share all others with RT-DETR.
_MARKS = (
    (re.compile(r"(\.|^)(n_points_scale|num_points_scale)$"), "RT-DETRv2"),
    (re.compile(r"(\.|^)(lqe_layers\.\d+|pre_bbox_head|reg_scale|integral)(\.|$)"), "D-FINE"),
)


@dataclass(frozen=True)
class Fit:
    """What a model wants and a state gives.

    Attributes:
        missing: keys that the model has and the state lacks, without those that only training uses.
        unexpected: keys that the state has and the model lacks.
        wrong_shape: keys of tensors of another shape.
        misplaced: those of ``unexpected`` that lie in a module which the model has.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]
    misplaced: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether the state is one of the model but for its fusion methods."""
        outside = [key for key in self.missing if not is_of_method(key)]
        return not (outside or self.wrong_shape or self.misplaced)


def fit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Fit:
    """Compare keys and shapes of what a model learns with a checkpoint's."""
    # Denoising embeddings serve training only, and inference checkpoints come without them.
    missing = tuple(key for key in wanted if key not in given and "denoising_class_embed" not in key)
    unexpected = tuple(key for key in given if key not in wanted)
    wrong_shape = tuple(key for key in wanted if key in given and given[key].shape != wanted[key].shape)
    # Every tensor of RT-DETR R18 is also one of R34: what is left over in a module that the model has tells a deeper
    # model's weights apart. What a library keeps for training lies elsewhere.
    roots = {_root(key) for key in wanted}
    return Fit(missing, unexpected, wrong_shape, tuple(key for key in unexpected if _root(key) in roots))


def require_shapes(model: nn.Module, checkpoint: Checkpoint, where: Path, settings: Callable[[str], str]) -> None:
    """Refuse a checkpoint whose tensors are not what its own configuration makes.

    Args:
        model: made from the configuration, without memory for its weights.
        checkpoint: whose tensors are compared.
        where: it lies, for the message.
        settings: says which settings decide the shape of a tensor.

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


def refuse_misfit(wanted: Mapping[str, Tensor], checkpoint: Checkpoint, entry: ModelEntry, where: Path) -> Fit:
    """Compare a model with a checkpoint, and refuse anything that would be dropped, or missing outside its methods.

    Returns:
        The comparison, for the report.

    Raises:
        WeightsError: saying what the checkpoint is of, where that is known.
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
    if found.misplaced:
        known = {_without_numbers(key) for key in wanted}
        deeper = all(_without_numbers(key) in known for key in found.misplaced)
        raise WeightsError(
            f"{'weights of a deeper model' if deeper else of}: {len(found.misplaced)} tensors have no place here, such"
            f" as {found.misplaced[0]}",
            where=where,
            hint=choose(entry, where),
        )
    return found


def fitting_model(weights: Path, but: ModelEntry) -> str | None:
    """Return the name of the zoo's model that a checkpoint is of, other than ``but``; ``None`` for none."""
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
    """Return whether a checkpoint is of a model, which is built without memory where its library can."""
    if (entry.method is not None) != any(map(is_of_method, checkpoint.state)):
        return False
    family = family_of(entry.family)
    num_labels = family.num_labels(checkpoint)
    if num_labels is None:
        return False
    try:
        with torch.device("meta" if family.builds_on_meta else "cpu"), torch.random.fork_rng(devices=[]):
            model = family.build(entry, num_labels)
    except FineEdgeError:
        return False
    found = fit(learned_state(model), checkpoint.state)
    return found.whole and not any(map(is_of_method, found.missing)) and _other_model(found) is None


def choose(entry: ModelEntry, weights: Path) -> str:
    """Return what to do about weights that are not of a model: the name of the one they are of, if any."""
    name = fitting_model(weights, entry)
    if name:
        return f"use {name}"
    names = ", ".join(detector.name for detector in DETECTORS if detector.family == entry.family)
    return f"no model of the zoo has these tensors, so they are not supported; of this family it has {names}"


def _other_model(found: Fit) -> str | None:
    """Return the name of a model that shares its keys with one of ours, by a tensor that only it has."""
    return next((name for mark, name in _MARKS if any(map(mark.search, found.unexpected))), None)


def _root(key: str) -> str:
    """The module two levels down that a tensor belongs to, such as ``model.backbone``."""
    return ".".join(key.split(".")[:2])


def _without_numbers(key: str) -> str:
    return re.sub(r"\d+", "#", key)
