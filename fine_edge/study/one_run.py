"""One run in a process of its own: train, export, evaluate, and write the result. See :mod:`fine_edge.study.result`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_edge import command, console, machine
from fine_edge.contract import Artifact, Contract, TensorSpec
from fine_edge.errors import FineEdgeError, MissingExtraError, OutputError
from fine_edge.evaluate.average_precision import AveragePrecision
from fine_edge.evaluate.boxes import evaluate_boxes
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.segment_data import read_boxes
from fine_edge.export.artifacts import ensure_exported
from fine_edge.export.request import ExportRequest, multiples_above
from fine_edge.fields import Sha256, from_data, to_data
from fine_edge.files import output_errors, read_json, write_text
from fine_edge.matrix.stages import end_with_parent
from fine_edge.runners.opened import Opened, open_onnx
from fine_edge.study.result import (
    FIGURES,
    EpochFigures,
    EpochLoss,
    EstimatedLatency,
    RunResult,
    recipe_in,
    write_result,
)
from fine_edge.train.recipe import Recipe
from fine_edge.zoo.catalog import find

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class RunJob:
    """What a process is told of its run.

    Attributes:
        key, made_from: of the run.
        train, val: annotations, and ``images``, ``val_images`` the folders of their pictures.
        weights: checkpoint to start from.
        folder: of the training, where an interrupted one goes on.
        result: file to write.
        ap_every: number of epochs between two evaluations on the way; 0 for none.
        estimates: whether to estimate the latency, too.
    """

    key: Sha256
    train: Path
    val: Path
    images: Path
    val_images: Path
    folder: Path
    result: Path
    ap_every: int = 0
    estimates: bool = False
    weights: Path | None = None
    made_from: dict[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """Return the recipe of the training."""
        return recipe_in(self.made_from)


def figures_of(found: AveragePrecision) -> dict[str, float | None]:
    """Return COCO's figures in per cent; ``None`` for those of nothing."""
    values = {name: getattr(found, name) for name in FIGURES}
    return {name: 100 * value if value >= 0 else None for name, value in values.items()}


def _point(job: RunJob, epoch: int) -> Path:
    return job.folder / f"figures-{epoch}.json"


def _see(job: RunJob, val: CocoData, model: nn.Module, labels: tuple[str, ...], epoch: int) -> None:
    """Evaluate a detector on its way, by PyTorch, and keep its figures for the curve."""
    from fine_edge.runners.eager import EagerRunner
    from fine_edge.zoo.family import GraphForm, family_of

    entry = find(job.recipe.model)
    family, (height, width) = family_of(entry.family), multiples_above(job.recipe.height, job.recipe.width)
    how, nothing = entry.detector.preprocessing, "0" * 64
    # A contract of what was never exported: the code that evaluates artifacts evaluates the model as it trains.
    contract = Contract(
        model=entry.name,
        artifacts=(Artifact(f"{entry.name}.onnx", "fp32", nothing),),
        inputs=(TensorSpec("images", "float32", (1, 3, height, width), "RGB as preprocessing says"),),
        outputs=family.outputs(model, GraphForm(1, height, width)),
        preprocessing=how,
        postprocessed=True,
        labels=labels,
        opset=1,
        cost={},
        golden={},
        made_by={"weights": {"source": "training"}},
    )
    opened = Opened(EagerRunner(model, family, how, raw=False), contract, "fp32", nothing, nothing)
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate_boxes(opened, val, job.val_images, Path(folder))
    write_text(_point(job, epoch), console.json_text(to_data(EpochFigures(epoch, figures_of(found.boxes)))))


def _curve(job: RunJob, last: EpochFigures) -> tuple[EpochFigures, ...]:
    found = []
    for epoch in range(job.ap_every, job.recipe.epochs, job.ap_every) if job.ap_every else ():
        with contextlib.suppress(FineEdgeError, ValueError):  # a point less in a curve
            found.append(from_data(EpochFigures, read_json(_point(job, epoch), FineEdgeError)))
    return (*found, last)


def _estimated(onnx: Path, model: str) -> EstimatedLatency | None:
    """Return what the FP16 engine would take on the usual board; ``None`` where nothing can compile it."""
    from fine_edge.engine import supervise
    from fine_edge.estimate.calibration import find_calibration
    from fine_edge.estimate.device import DEFAULT, find_device
    from fine_edge.estimate.engine import engine_work, in_fp16
    from fine_edge.estimate.latency import Conditions, estimate

    try:
        supervise.require_builder("rtx-sm86")
        device = find_device(DEFAULT)
        at = Conditions(device, device.mode(None), find_calibration(device), "fp16", True)
        with tempfile.TemporaryDirectory() as folder:
            found = estimate(engine_work(in_fp16(onnx, Path(folder), None), device, model), at)
    except MissingExtraError:
        return None
    except FineEdgeError as error:  # the run has its result without
        console.warn(f"no latency: {error}")
        return None
    return EstimatedLatency(
        found.latency_ms, found.latency_ms_low, found.latency_ms_high, f"{device.title}, {at.mode.name}"
    )


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep every other process out of a run's folder; the system opens it again when this process ends.

    Raises:
        OutputError: when another process is in it.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / "lock").open("a")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            what, hint = "another process is making this run", "give each machine its own --shard, or wait"
            raise OutputError(what, where=folder, hint=hint) from error
        yield


def run(job: RunJob) -> RunResult:
    """Train, or go on; export; evaluate; write the result.

    Raises:
        FineEdgeError: when one of them fails, or another process is at the same run.
    """
    with _alone_in(job.folder):
        return _run(job)


def _run(job: RunJob) -> RunResult:
    from fine_edge.train.run import Watch, train

    start_s = time.monotonic()
    recipe, train_data, val = job.recipe, read_boxes(job.train), read_boxes(job.val)
    watch = Watch(job.ap_every, lambda model, labels, epoch: _see(job, val, model, labels, epoch))
    trained = train(recipe, train_data, job.images, job.folder, job.weights, watch=watch if job.ap_every else None)
    height, width = multiples_above(recipe.height, recipe.width)
    onnx = ensure_exported(
        ExportRequest(recipe.model, trained.checkpoint, height=height, width=width), job.folder, replace_trained=True
    )
    opened = open_onnx(onnx, rounded=False)
    with contextlib.closing(opened.runner):
        figures = figures_of(evaluate_boxes(opened, val, job.val_images, job.folder / "evaluations").boxes)
    cost = opened.contract.cost
    result = RunResult(
        key=job.key,
        model=recipe.model,
        seed=recipe.seed,
        figures=figures,
        params=cost["params"],
        flops=cost["flops"],
        convention=str(cost.get("convention", "")),
        losses=tuple(EpochLoss(each["epoch"], each["loss"]) for each in trained.record["losses"]),
        curve=_curve(job, EpochFigures(recipe.epochs, figures)),
        latency=_estimated(onnx, recipe.model) if job.estimates else None,
        seconds=round(time.monotonic() - start_s, 1),
        made_from=job.made_from,
        machine=machine.describe(),
    )
    write_result(result, job.result)
    for checkpoint in job.folder.glob("checkpoint-*"):  # a training that has ended does not go on
        shutil.rmtree(checkpoint, ignore_errors=True)
    return result


def main(argv: list[str]) -> int:
    """Run one job, given as JSON."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    run(from_data(RunJob, json.loads(argv[0])))
    return 0


if __name__ == "__main__":
    command.run(main)
