"""A detector ready to use: built, with weights from a checkpoint or seeded random ones, and where they came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import RTDetrForObjectDetection

from fine_edge.contract import sha256_of
from fine_edge.errors import WeightsError
from fine_edge.zoo import checkpoints, rtdetr
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.coco import COCO_LABELS
from fine_edge.zoo.random_weights import randomise
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
    model: RTDetrForObjectDetection
    labels: tuple[str, ...]
    provenance: dict[str, Any]
    report: LoadReport | None


def load(entry: ModelEntry, weights: Path | None = None, seed: int = 0) -> LoadedDetector:
    """Build a catalog entry with a checkpoint's weights, or with seeded random ones.

    Raises:
        WeightsError: when the checkpoint does not fit the model.
    """
    if weights is None:
        model = _build(entry, len(COCO_LABELS), seed, identity=False)
        randomise(model, seed)
        return LoadedDetector(entry, model, COCO_LABELS, {"source": "random", "seed": seed}, None)
    checkpoint = checkpoints.read(weights)
    if checkpoint.model is not None and checkpoint.model != entry.name and ".fine." in "".join(checkpoint.state):
        raise WeightsError(
            f"holds weights of {checkpoint.model}, not of {entry.name}", where=weights, mend=f"use {checkpoint.model}"
        )
    classes = checkpoint.state.get("model.decoder.class_embed.0.weight")
    if classes is None or classes.ndim != 2 or not len(classes):
        raise WeightsError("these are not weights of an RT-DETR (no class head)", where=weights)
    model = _build(entry, classes.shape[0], seed, identity=True)
    report = _apply(model, checkpoint, weights)
    labels = checkpoint.labels or COCO_LABELS
    if len(labels) != classes.shape[0]:
        labels = tuple(f"class_{index}" for index in range(classes.shape[0]))
    digest = sha256_of(weights_file(weights))
    provenance = {"source": checkpoint.layout, "file": weights.name, "sha256": digest, "fine": report.fine}
    return LoadedDetector(entry, model, labels, provenance, report)


def _build(entry: ModelEntry, num_labels: int, seed: int, *, identity: bool) -> RTDetrForObjectDetection:
    """Seeded, so that what a checkpoint leaves untouched is the same every time; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return rtdetr.build(entry, num_labels, identity=identity)


# Every tensor of RT-DETR R18 is also one of R34: what is left over here tells a deeper model's weights apart.
_LAYERS = ("model.backbone.", "model.encoder.", "model.decoder.")


def _apply(model: RTDetrForObjectDetection, checkpoint: checkpoints.Checkpoint, where: Path) -> LoadReport:
    """Copy a checkpoint into a model built for it; refuse anything missing outside FINE."""
    wanted = checkpoints.learned_state(model)
    given = checkpoint.state
    # Denoising embeddings serve training only, and inference checkpoints come without them.
    missing = [key for key in wanted if key not in given and "denoising_class_embed" not in key]
    unexpected = tuple(key for key in given if key not in wanted)
    fine_missing = [key for key in missing if ".fine." in key]
    fine_wanted = [key for key in wanted if ".fine." in key]
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
        outside = [key for key in missing if ".fine." not in key] or fine_missing
        raise WeightsError(
            f"weights of another model: {len(outside)} tensors are missing, such as {outside[0]}"
            f" ({len(given)} given, {len(unexpected)} unexpected)",
            where=where,
            mend="choose the model that these weights were made for: python -m fine_edge.zoo",
        )
    if any(".fine." in key for key in unexpected):
        raise WeightsError(
            "holds trained FINE weights that this model would drop", where=where, mend="use its _fine model"
        )
    deeper = [key for key in unexpected if key.startswith(_LAYERS)]
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
