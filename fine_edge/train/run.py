"""One training, from a data set to a checkpoint; goes on where it was interrupted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from fine_edge import console, files
from fine_edge.errors import ConfigError, DataError, OutputError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.export.request import ExportRequest
from fine_edge.files import read_json, sha256_of
from fine_edge.machine import describe
from fine_edge.train.identity import difference, fingerprint, identity_of
from fine_edge.train.losses import trainable
from fine_edge.train.pictures import LabelledPictures
from fine_edge.train.recipe import FLIPS, WARMUP, Recipe
from fine_edge.train.resumption import Keeper, newest_whole
from fine_edge.train.start import labels_of, start
from fine_edge.train.statistics import PICTURES, measure
from fine_edge.zoo.catalog import ModelEntry, find
from fine_edge.zoo.checkpoints import save
from fine_edge.zoo.family import GraphForm, family_of

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
    record_file, checkpoint = folder / RECORD, folder / f"{recipe.model}.safetensors"
    if not record_file.exists():
        files.refuse_unwritable([record_file, checkpoint])
    labels = labels_of(entry, tuple(data.categories.values()))
    model, taken = start(entry, labels, weights, recipe.seed)
    subject = trainable(entry, model)
    _require_size(entry, model, recipe)
    how = entry.detector.preprocessing
    pictures = LabelledPictures(data, images, recipe.height, recipe.width, how, FLIPS[recipe.flips])
    identity = identity_of(recipe, data, pictures.by_name, weights, half=half, device=_device())
    record = _former(record_file, identity)
    if record and _is_finished(record, checkpoint):
        console.remark(f"{checkpoint} is finished")
        return Trained(checkpoint, record)
    files.refuse_unwritable([record_file, checkpoint])
    if not record:
        record = {**identity, "machine": describe()}
        files.write_text(record_file, json.dumps(record, indent=1) + "\n")
    if weights:
        console.remark(f"{weights.name}: {taken} tensors taken over")
    trainer = _FiniteTrainer(
        model=subject.module,
        args=_arguments(recipe, folder),
        train_dataset=pictures,
        data_collator=subject.collate,
    )
    trainer.remove_callback(PrinterCallback)  # prints losses among the results, on standard output
    _run(trainer, folder, fingerprint(identity))
    if trainer.is_world_process_zero():
        batches = math.ceil(min(len(pictures), PICTURES) / recipe.batch)
        measure(subject.module, trainer.get_train_dataloader(), batches, recipe.seed)
        record["losses"] = [
            {"epoch": round(logged["epoch"], 3), "loss": logged["loss"]}
            for logged in trainer.state.log_history
            if "loss" in logged
        ]
        _require_finite(model)
        save(model, checkpoint, name=recipe.model, labels=labels, half=half)
        record["checkpoint"] = {"sha256": sha256_of(checkpoint)}
        files.write_text(record_file, json.dumps(record, indent=1) + "\n")
    return Trained(checkpoint, record)


class _FiniteTrainer(Trainer):
    """Stops where a loss is no number: what is learned from then on is none either, and Trainer would log zeros."""

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *more: Any, **named: Any) -> Tensor:
        """Return the loss of a batch.

        Raises:
            DataError: when it is not finite.
        """
        loss: Tensor = super().training_step(model, inputs, *more, **named)
        if not torch.isfinite(loss):
            raise DataError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}: this training diverges",
                where=self.args.output_dir,
                hint="give a lower --learning-rate and another --out",
            )
        return loss


def _require_finite(model: nn.Module) -> None:
    """Find out before it is written that a training has ended in weights that are no numbers."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(
                f"the training has diverged: {name} is not finite",
                hint="give a lower --learning-rate and another --out",
            )


def _require_size(entry: ModelEntry, model: nn.Module, recipe: Recipe) -> None:
    """What cannot be exported is not worth training, and some inputs are too small to be looked at.

    The sides of an export are multiples of 32, which only RT-DETR needs: with others, pictures of another shape spare
    the padding.
    """
    if entry.family == "rtdetr":
        ExportRequest(entry.name, height=recipe.height, width=recipe.width)
    family_of(entry.family).outputs(model, GraphForm(1, recipe.height, recipe.width))


def _run(trainer: Trainer, folder: Path, training: str) -> None:
    """Train, from the newest whole checkpoint of this very training if there is one."""
    trainer.add_callback(Keeper(training, trainer.accelerator.wait_for_everyone))
    former = newest_whole(folder, training)
    with files.output_errors(folder):
        try:
            trainer.train(resume_from_checkpoint=str(former) if former else None)
        except SafetensorError as error:  # how it reports a full disk
            raise OutputError(f"cannot be written ({error})", where=folder, hint="free some space") from error
        except RuntimeError as error:  # how torch.save does
            if "PytorchStreamWriter" not in str(error) and "unexpected pos" not in str(error):
                raise
            raise OutputError("a checkpoint cannot be written", where=folder, hint="free some space") from error


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


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
        report_to="none",
        remove_unused_columns=False,
        use_cpu=_device() == "cpu",
        dataloader_pin_memory=_device() == "cuda",
        disable_tqdm=not console.err.is_terminal,
    )


def _former(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the record of the training that a folder holds, if it holds this one."""
    if not path.exists():
        return None
    former = read_json(path, DataError, hint="choose another --out, or remove it")
    if not isinstance(former, dict):
        raise DataError("is no record of a training", where=path, hint="choose another --out, or remove it")
    if other := difference(former, identity):
        raise ConfigError(
            f"holds a training with {other}", where=path.parent, hint="choose another --out, or remove it"
        )
    return former


def _is_finished(record: Mapping[str, Any], checkpoint: Path) -> bool:
    """Return whether a training has come to its end and its checkpoint is there.

    Raises:
        DataError: when the file in its place is not what was trained.
    """
    if "losses" not in record or not checkpoint.exists():
        return False
    if record.get("checkpoint") != {"sha256": sha256_of(checkpoint)}:
        raise DataError("is not what was trained here", where=checkpoint, hint="move it away to have it written again")
    return True
