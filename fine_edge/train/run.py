"""One training, from a data set to a checkpoint; it resumes where it was interrupted."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from fine_edge import console, files
from fine_edge.errors import ConfigError, DataError, OutputError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.export.request import require_multiples
from fine_edge.files import read_json, sha256_of
from fine_edge.machine import describe
from fine_edge.train.pictures import LabelledPictures
from fine_edge.train.recipe import FLIPS, WARMUP, Recipe, difference, fingerprint, identity_of
from fine_edge.train.start import Keeper, labels_of, newest_whole, start, trainable
from fine_edge.zoo.catalog import find
from fine_edge.zoo.checkpoints import save
from fine_edge.zoo.family import Family, GraphForm, family_of

RECORD = "training.json"
# Enough for the statistics of batch norms, however large the data set.
_STATISTICS_PICTURES = 1000


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        checkpoint: path of the weights, for ``--weights``.
        record: recipe, data, machine and losses, the contents of :data:`RECORD`.
    """

    checkpoint: Path
    record: dict[str, Any]


@dataclass(frozen=True)
class Watch:
    """What is to be seen of a training on its way; the training itself is the same as without.

    Attributes:
        every: number of epochs between two looks; the last epoch is the result's.
        see: called with a copy of the detector as it would be saved then, on the CPU and in eval mode, its class names,
            and the number of epochs that it has had.
    """

    every: int
    see: Callable[[nn.Module, tuple[str, ...], int], None]


def train(
    recipe: Recipe,
    data: CocoData,
    images: Path,
    folder: Path,
    weights: Path | None = None,
    *,
    half: bool = False,
    watch: Watch | None = None,
) -> Trained:
    """Train a detector, or resume the same training from its files in ``folder``.

    Args:
        recipe: settings of the training.
        data: boxes in COCO's format.
        images: folder of the data set's pictures.
        folder: folder of the checkpoint, the record and the files for resuming.
        weights: checkpoint to start from; ``None`` for initial weights.
        half: whether to write weights as FP16, half as large; norms and biases stay FP32.
        watch: what to show of it on its way.

    Raises:
        FineEdgeError: for bad input, or a folder that holds another training.
    """
    entry = find(recipe.model)
    record_file, checkpoint = folder / RECORD, folder / f"{recipe.model}.safetensors"
    if not record_file.exists():
        files.refuse_unwritable([record_file, checkpoint])
    family = family_of(entry.family)
    labels = labels_of(family, tuple(data.categories.values()))
    model, taken = start(family, entry, labels, weights, recipe.seed)
    subject = trainable(family, entry, model)
    _require_size(family, model, recipe)
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
    trainer.remove_callback(PrinterCallback)  # would print losses among the results on standard output
    batches = math.ceil(min(len(pictures), _STATISTICS_PICTURES) / recipe.batch)

    def look(epoch: int) -> None:
        if watch and epoch % watch.every == 0 and epoch < recipe.epochs and trainer.is_world_process_zero():
            module, seen = copy.deepcopy((subject.module, model))
            with torch.random.fork_rng():
                measure_batch_norms(module, trainer.get_train_dataloader(), batches, recipe.seed)
                watch.see(seen.cpu().eval(), labels, epoch)

    trainer.add_callback(_EachEpoch(look))
    _run(trainer, folder, fingerprint(identity))
    if trainer.is_world_process_zero():
        measure_batch_norms(subject.module, trainer.get_train_dataloader(), batches, recipe.seed)
        record["losses"] = [
            {"epoch": round(logged["epoch"], 3), "loss": logged["loss"]}
            for logged in trainer.state.log_history
            if "loss" in logged
        ]
        _require_finite(model)
        save(model, checkpoint, name=recipe.model, labels=labels, half=half, trained_hw=(recipe.height, recipe.width))
        record["checkpoint"] = {"sha256": sha256_of(checkpoint)}
        files.write_text(record_file, json.dumps(record, indent=1) + "\n")
    return Trained(checkpoint, record)


class _EachEpoch(TrainerCallback):
    """A callback at the end of each epoch, before its checkpoint is written."""

    def __init__(self, look: Callable[[int], None]) -> None:
        self._look = look

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, *_more: Any, **_named: Any) -> None:
        """Pass on the number of epochs that are done."""
        del args
        self._look(round(state.epoch or 0))


class _FiniteTrainer(Trainer):
    """A Trainer that stops at a loss that is not finite, where transformers' own would go on and log zeros."""

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
    """Check before the checkpoint is written that all weights are finite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(
                f"the training has diverged: {name} is not finite",
                hint="give a lower --learning-rate and another --out",
            )


def _require_size(family: Family, model: nn.Module, recipe: Recipe) -> None:
    """Refuse an input size before the training with which the detector cannot be exported or cannot work."""
    # Most detectors train at any size: pictures of another shape than the export's input spare them the padding.
    if not family.trains_at_any_size:
        require_multiples(recipe.height, recipe.width)
    family.outputs(model, GraphForm(1, recipe.height, recipe.width))


def _run(trainer: Trainer, folder: Path, training: str) -> None:
    """Train, from the newest complete checkpoint of the same training if there is one."""
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


@torch.no_grad()
def measure_batch_norms(module: nn.Module, batches: Iterable[dict[str, Any]], count: int, seed: int) -> None:
    """Measure the running statistics of batch norms anew with the weights that the training ended with.

    A network in training keeps a running mean over statistics of weights that it no longer has. With short epochs and a
    small momentum (0.01 in MobileNetV3) the statistics lag so far behind that a detector of cells lost 19 of 45 points
    of AP. Wu and Johnson, "Rethinking 'Batch' in BatchNorm", 2021, sec. 3, average them anew at the end. Frozen norms
    stay as they are.

    Args:
        module: the network, which takes a batch as in training.
        batches: batches of the training data, drawn and mirrored at random as in training.
        count: number of batches to use.
        seed: seed of the random draws.
    """
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of all batches
    module.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for batch in islice(batches, count):
            module(**batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    module.eval()


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
    """Return the record of an earlier run of the same training; ``None`` without a record."""
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
    """Return whether a training has ended and its checkpoint exists.

    Raises:
        DataError: when the checkpoint is not the one that was trained.
    """
    if "losses" not in record or not checkpoint.exists():
        return False
    if record.get("checkpoint") != {"sha256": sha256_of(checkpoint)}:
        raise DataError("is not what was trained here", where=checkpoint, hint="move it away to have it written again")
    return True
