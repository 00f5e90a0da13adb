"""Loading of a detector: built, with weights from a checkpoint or seeded random ones, and their origin."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fine_edge.errors import WeightsError
from fine_edge.fusion.methods import is_of_method
from fine_edge.preprocess import Preprocessing
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint, learned_state
from fine_edge.zoo.family import Family, family_of
from fine_edge.zoo.fit import choose, refuse_misfit
from fine_edge.zoo.random_weights import randomise_offsets
from fine_edge.zoo.tensors import require_values
from fine_edge.zoo.weights_file import weights_sha256


@dataclass(frozen=True)
class LoadReport:
    """The report of which keys of a checkpoint were loaded.

    Attributes:
        layout: layout of the checkpoint.
        loaded: number of tensors that were loaded.
        missing: keys that the model has and the checkpoint lacks; only FINE's can be here.
        unexpected: keys that the checkpoint has and the model lacks.
        fine: ``loaded`` from the checkpoint, at ``identity``, at ``random`` where it cannot be the identity, or
            ``none`` in a model without FINE.
    """

    layout: str
    loaded: int
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    fine: str

    def __str__(self) -> str:
        """Return the report as one line."""
        starts = {kind: f", FINE starts at {kind}" for kind in ("identity", "random")}
        fine = {"loaded": ", FINE loaded", "none": "", **starts}[self.fine]
        extra = f" ({', '.join(self.unexpected[:3])}...)" if self.unexpected else ""
        return (
            f"{self.layout} weights: {self.loaded} loaded, {len(self.missing)} missing,"
            f" {len(self.unexpected)} unexpected{extra}{fine}"
        )


@dataclass(frozen=True)
class LoadedDetector:
    """A detector in eval mode, with its family and the origin of its weights.

    Attributes:
        entry: the model's entry in the catalogue.
        family: the family that built the model.
        model: the model, under its library's keys.
        labels: class names by index.
        provenance: origin of the weights, as a contract records it.
        report: what became of the checkpoint's keys; ``None`` for random weights.
        preprocessing: from a picture to the input; the checkpoint's own where it states one.
        trained_hw: height and width that the weights were trained at, where the checkpoint states them.
    """

    entry: ModelEntry
    family: Family
    model: nn.Module
    labels: tuple[str, ...]
    provenance: dict[str, Any]
    report: LoadReport | None
    preprocessing: Preprocessing
    trained_hw: tuple[int, int] | None = None


def load(entry: ModelEntry, weights: Path | None = None, seed: int = 0) -> LoadedDetector:
    """Build a catalog entry with a checkpoint's weights, or with seeded random ones.

    Raises:
        WeightsError: when the checkpoint does not fit the model.
        MissingExtraError: when the model's library is not installed.
    """
    family = family_of(entry.family)
    labels = family.labels(entry)
    if weights is None:
        with _seeded(seed):
            model = family.build(entry, len(labels), identity=False)
        # Seeded again: building draws more numbers with FINE than without. So a detector and its variant with FINE
        # share all weights but those of heads that are scaled on photographs.
        with _seeded(seed), torch.no_grad():
            family.randomise(model)
            randomise_offsets(model)
        provenance = {"source": "random", "seed": seed}
        return LoadedDetector(entry, family, model, labels, provenance, None, entry.detector.preprocessing)
    digest = weights_sha256(weights)
    checkpoint = family.read(weights)
    # Options such as the number of heads change no tensor's shape: FINE's weights of another block would load.
    if checkpoint.model not in (None, entry.name) and any(map(is_of_method, checkpoint.state)):
        raise WeightsError(
            f"holds weights of {checkpoint.model}, not of {entry.name}", where=weights, hint=f"use {checkpoint.model}"
        )
    num_labels = family.num_labels(checkpoint)
    if num_labels is None:
        raise WeightsError(
            f"these are not weights of {entry.detector.name} (no class head)",
            where=weights,
            hint=choose(entry, weights),
        )
    labels = _labels(checkpoint, labels, num_labels, weights)
    with _seeded(seed):
        model = family.rebuild(entry, checkpoint, num_labels, weights, identity=True)
    report = _apply(model, checkpoint, entry, weights)
    family.require_settings(entry, model, checkpoint, weights)
    provenance = {"source": checkpoint.layout, "file": weights.name, "sha256": digest, "fine": report.fine}
    if report.fine in ("identity", "random"):
        provenance["seed"] = seed  # of the FINE that no checkpoint fills
    preprocessing = checkpoint.preprocessing or entry.detector.preprocessing
    return LoadedDetector(entry, family, model, labels, provenance, report, preprocessing, checkpoint.trained_hw)


def _labels(checkpoint: Checkpoint, usual: tuple[str, ...], num_labels: int, where: Path) -> tuple[str, ...]:
    """Return a checkpoint's class names; else the published ones where their number fits, or numbered ones."""
    stated = checkpoint.labels
    if stated is None:
        return usual if len(usual) == num_labels else tuple(f"class_{index}" for index in range(num_labels))
    if len(stated) != num_labels:
        raise WeightsError(
            f"it names {len(stated)} classes, its class head has {num_labels}",
            where=where,
            hint="give every class of the head a name, by its number from 0 on",
        )
    return stated


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch within the context, and restore its random state; the weights that no checkpoint fills repeat."""
    # Weights are drawn on the CPU; by default the states of all GPUs would be saved as well.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _apply(model: nn.Module, checkpoint: Checkpoint, entry: ModelEntry, where: Path) -> LoadReport:
    """Copy a checkpoint into a model built for it; refuse tensors that do not fit or are not finite."""
    wanted = learned_state(model)
    found = refuse_misfit(wanted, checkpoint, entry, where)
    taken = {key: checkpoint.state[key] for key in wanted if key in checkpoint.state}
    for key, tensor in taken.items():
        require_values(key, tensor, where)
    # Not strict: what may be missing, FINE's tensors and constants that no network learns, is decided above.
    model.load_state_dict(taken, strict=False)
    methods_wanted, methods_missing = (any(map(is_of_method, keys)) for keys in (wanted, found.missing))
    starts = "random" if entry.options.modulation == "none" else "identity"
    fine = "none" if not methods_wanted else starts if methods_missing else "loaded"
    return LoadReport(checkpoint.layout, len(taken), found.missing, found.unexpected, fine)
