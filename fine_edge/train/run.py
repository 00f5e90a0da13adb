"""One training, from a data set to a checkpoint; goes on where it was interrupted."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from fine_edge import atomic, console
from fine_edge.errors import ConfigError, DataError, OutputError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.export.request import ExportRequest
from fine_edge.files import read_json, sha256_of
from fine_edge.machine import describe
from fine_edge.train.losses import trainable
from fine_edge.train.pictures import LabelledPictures
from fine_edge.train.recipe import FLIPS, WARMUP, Recipe
from fine_edge.train.start import labels_of, start
from fine_edge.train.statistics import PICTURES, measure
from fine_edge.zoo.catalog import ModelEntry, find
from fine_edge.zoo.checkpoints import save
from fine_edge.zoo.families import family_of
from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.weights_file import weights_file

RECORD = "training.json"


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        checkpoint: what ``--weights`` takes.
        record: recipe, data, machine and losses, as :data:`RECORD` has them.
    """

    checkpoint: Path
    record: dict[str, Any]


def train(
    recipe: Recipe, data: CocoData, images: Path, folder: Path, weights: Path | None = None, *, half: bool = False
) -> Trained:
    """Train a detector, or go on with what ``folder`` holds of this very training.

    Args:
        recipe: how.
        data: boxes in COCO's format.
        images: folder of its pictures.
        folder: of the checkpoint, the record, and what resuming needs.
        weights: to start from; ``None`` starts from nothing.
        half: write weights as FP16, half as large; norms and biases stay FP32.

    Raises:
        FineEdgeError: for bad input, or a folder that holds another training.
    """
    entry = find(recipe.model)
    labels = labels_of(entry, tuple(data.categories.values()))
    model, taken = start(entry, labels, weights, recipe.seed)
    subject = trainable(entry, model)
    _require_size(entry, model, recipe)
    how = entry.detector.preprocessing
    pictures = LabelledPictures(data, images, recipe.height, recipe.width, how, FLIPS[recipe.flips])
    record = _begun(recipe, data, weights, folder)
    checkpoint = folder / f"{recipe.model}.safetensors"
    if "losses" in record and checkpoint.is_file():
        console.remark(f"{checkpoint} is finished")
        return Trained(checkpoint, record)
    if weights:
        console.remark(f"{weights.name}: {taken} tensors taken over")
    trainer = Trainer(
        model=subject.module,
        args=_arguments(recipe, folder),
        train_dataset=pictures,
        data_collator=subject.collate,
    )
    trainer.remove_callback(PrinterCallback)  # prints losses among the results, on standard output
    _run(trainer, folder)
    if trainer.is_world_process_zero():
        batches = math.ceil(min(len(pictures), PICTURES) / recipe.batch)
        measure(subject.module, trainer.get_train_dataloader(), batches, recipe.seed)
        record["losses"] = [
            {"epoch": round(logged["epoch"], 3), "loss": logged["loss"]}
            for logged in trainer.state.log_history
            if "loss" in logged
        ]
        save(model, checkpoint, name=recipe.model, labels=labels, half=half)
        atomic.write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return Trained(checkpoint, record)


def _require_size(entry: ModelEntry, model: nn.Module, recipe: Recipe) -> None:
    """What cannot be exported is not worth training, and some inputs are too small to be looked at.

    The sides of an export are multiples of 32, which only RT-DETR needs: with others, pictures of another shape spare
    the padding.
    """
    if entry.family == "rtdetr":
        ExportRequest(entry.name, height=recipe.height, width=recipe.width)
    family_of(entry.family).outputs(model, GraphForm(1, recipe.height, recipe.width))


def _run(trainer: Trainer, folder: Path) -> None:
    """Train, from the newest of Trainer's own checkpoints that was written to its end."""
    whole = sorted(folder.glob(f"checkpoint-*/{TRAINER_STATE_NAME}"), key=lambda path: int(path.parent.name[11:]))
    with atomic.output_errors(folder):
        try:
            trainer.train(resume_from_checkpoint=str(whole[-1].parent) if whole else None)
        except SafetensorError as error:  # how it reports a full disk
            raise OutputError(f"cannot be written ({error})", where=folder, mend="free some space") from error


def _arguments(recipe: Recipe, folder: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        lr_scheduler_type="cosine",
        warmup_steps=WARMUP,
        seed=recipe.seed,
        logging_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        report_to="none",
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=not console.err.is_terminal,
    )


def _begun(recipe: Recipe, data: CocoData, weights: Path | None, folder: Path) -> dict[str, Any]:
    """The record of a training that begins, or that of the folder if it is this one."""
    record = {
        "recipe": recipe.to_json(),
        "data": {"file": data.path.name, "sha256": data.sha256, "images": len(data.images)},
        "weights": weights and {"file": weights.name, "sha256": sha256_of(weights_file(weights))},
        "machine": describe(),
    }
    path = folder / RECORD
    if path.is_file():
        former = read_json(path, DataError, mend="choose another --out, or remove it")
        for key in ("recipe", "data", "weights"):
            if former.get(key) != record[key]:
                raise ConfigError(
                    f"holds a training with another {key}", where=folder, mend="choose another --out, or remove it"
                )
        return dict(former)
    folder.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, json.dumps(record, indent=1) + "\n")
    return record
