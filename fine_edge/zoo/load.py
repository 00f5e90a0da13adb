"""A detector ready to use: built, with weights from a checkpoint or seeded random ones, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fine_edge.errors import WeightsError
from fine_edge.files import sha256_of
from fine_edge.fusion.methods import is_of_method
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint, learned_state
from fine_edge.zoo.families import family_of
from fine_edge.zoo.family import Family
from fine_edge.zoo.random_weights import randomise_offsets
from fine_edge.zoo.weights_file import weights_file


@dataclass(frozen=True)
class LoadReport:
    """What became of a checkpoint's keys.

    Attributes:
        layout: of the checkpoint.
        loaded: number of tensors taken over.
        missing: keys that the model has and the checkpoint lacks; only FINE's may be here.
        unexpected: keys that the checkpoint has and the model lacks.
        fine: ``loaded`` from the checkpoint, at ``identity``, or ``none`` in a model without FINE.
    """

    layout: str
    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    fine: str

    def __str__(self) -> str:
        """One line for people."""
        fine = {"loaded": ", FINE loaded", "identity": ", FINE starts at identity", "none": ""}[self.fine]
        extra = f" ({', '.join(self.unexpected[:3])}...)" if self.unexpected else ""
        return (
            f"{self.layout} weights: {self.loaded} loaded, {len(self.missing)} missing,"
            f" {len(self.unexpected)} unexpected{extra}{fine}"
        )


@dataclass(frozen=True)
class LoadedDetector:
    """A detector in eval mode with the provenance that goes into its contract."""

    entry: ModelEntry
    model: nn.Module
    labels: tuple[str, ...]
    provenance: dict[str, Any]
    report: LoadReport | None


def load(entry: ModelEntry, weights: Path | None = None, seed: int = 0) -> LoadedDetector:
    """Build a catalog entry with a checkpoint's weights, or with seeded random ones.

    Raises:
        WeightsError: when the checkpoint does not fit the model.
        MissingExtraError: when the model's library is not installed.
    """
    family = family_of(entry.family)
    labels = family.labels(entry)
    if weights is None:
        model = _build(family, entry, len(labels), seed, identity=False)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            family.randomise(model)
            randomise_offsets(model)
        return LoadedDetector(entry, model, labels, {"source": "random", "seed": seed}, None)
    checkpoint = family.read(weights)
    if checkpoint.model not in (None, entry.name) and any(map(is_of_method, checkpoint.state)):
        raise WeightsError(
            f"holds weights of {checkpoint.model}, not of {entry.name}", where=weights, mend=f"use {checkpoint.model}"
        )
    num_labels = family.num_labels(checkpoint)
    if num_labels is None:
        raise WeightsError(f"these are not weights of {entry.detector.name} (no class head)", where=weights)
    model = _build(family, entry, num_labels, seed, identity=True)
    report = _apply(model, checkpoint, weights)
    labels = checkpoint.labels or labels
    if len(labels) != num_labels:
        labels = tuple(f"class_{index}" for index in range(num_labels))
    digest = sha256_of(weights_file(weights))
    provenance = {"source": checkpoint.layout, "file": weights.name, "sha256": digest, "fine": report.fine}
    return LoadedDetector(entry, model, labels, provenance, report)


def _build(family: Family, entry: ModelEntry, num_labels: int, seed: int, *, identity: bool) -> nn.Module:
    """Seeded, so that what a checkpoint leaves untouched is the same every time; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return family.build(entry, num_labels, identity=identity)


def _apply(model: nn.Module, checkpoint: Checkpoint, where: Path) -> LoadReport:
    """Copy a checkpoint into a model built for it; refuse anything missing outside the fusion methods."""
    wanted = learned_state(model)
    given = checkpoint.state
    # Denoising embeddings serve training only, and inference checkpoints come without them.
    missing = [key for key in wanted if key not in given and "denoising_class_embed" not in key]
    unexpected = tuple(key for key in given if key not in wanted)
    fine_missing = [key for key in missing if is_of_method(key)]
    fine_wanted = [key for key in wanted if is_of_method(key)]
    wrong_shape = [key for key in wanted if key in given and given[key].shape != wanted[key].shape]

    if wrong_shape:
        key = wrong_shape[0]
        raise WeightsError(
            f"weights of another model: {key} is {tuple(given[key].shape)}, needed {tuple(wanted[key].shape)}"
            f" ({len(wrong_shape)} such)",
            where=where,
            mend="choose the model that these weights were made for: python -m fine_edge.zoo",
        )
    if len(missing) > len(fine_missing) or (fine_missing and len(fine_missing) < len(fine_wanted)):
        outside = [key for key in missing if not is_of_method(key)] or fine_missing
        raise WeightsError(
            f"weights of another model: {len(outside)} tensors are missing, such as {outside[0]}"
            f" ({len(given)} given, {len(unexpected)} unexpected)",
            where=where,
            mend="choose the model that these weights were made for: python -m fine_edge.zoo",
        )
    if any(map(is_of_method, unexpected)):
        raise WeightsError(
            "holds trained FINE weights that this model would drop", where=where, mend="use its _fine model"
        )
    # Every tensor of RT-DETR R18 is also one of R34: what is left over in a module that the model has tells a deeper
    # model's weights apart. What a library keeps for training lies elsewhere.
    roots = {_root(key) for key in wanted}
    deeper = [key for key in unexpected if _root(key) in roots]
    if deeper:
        raise WeightsError(
            f"weights of a deeper model: {len(deeper)} tensors have no place here, such as {deeper[0]}",
            where=where,
            mend="choose the model that these weights were made for: python -m fine_edge.zoo",
        )
    taken = {key: given[key] for key in wanted if key in given}
    model.load_state_dict(taken, strict=False)
    fine = "none" if not fine_wanted else "identity" if fine_missing else "loaded"
    return LoadReport(checkpoint.layout, len(taken), tuple(missing), unexpected, fine)


def _root(key: str) -> str:
    """The module two levels down that a tensor belongs to, such as ``model.backbone``."""
    return ".".join(key.split(".")[:2])
