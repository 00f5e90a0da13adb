"""One run of a study: what it is made from, by content, and what came out, as a file of its own.

A run is known by a hash of its recipe (model, options and seed among it), of the data sets with their pictures, of the
weights it starts from, and of the versions that can change weights. Its result is ``results/HASH.json``: so a study
goes on where it stopped, and machines that share a folder fill it together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from fine_edge import __version__, console
from fine_edge.errors import DataError, FineEdgeError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.segment_data import read_boxes
from fine_edge.fields import Amount, Finite, Sha256, Text, Whole, from_data, to_data
from fine_edge.files import contents_checked, read_document, sha256_of_files, write_text
from fine_edge.machine import version
from fine_edge.study.plan import StudyPlan, StudyVariant
from fine_edge.text import printable
from fine_edge.train.recipe import LIBRARIES, Recipe
from fine_edge.zoo.weights_file import weights_sha256

FORMAT = 1
# COCO's figures, per cent, and how tables call them.
FIGURES = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_s": "AP_s", "ap_m": "AP_m", "ap_l": "AP_l"}
_AGAIN = "remove it: the study makes it again"
_PerCent = Annotated[float, Meta(ge=0, le=100)]


@dataclass(frozen=True)
class EpochLoss:
    """The mean training loss of the epoch that ended at ``epoch``."""

    epoch: Amount
    loss: Finite


@dataclass(frozen=True)
class EpochFigures:
    """COCO's figures after a number of epochs, per cent; ``None`` where there is no object that they could be of."""

    epoch: Amount
    figures: dict[str, _PerCent | None]


@dataclass(frozen=True)
class EstimatedLatency:
    """An ESTIMATE of the FP16 engine's latency on a board, with its interval, milliseconds."""

    ms: Amount
    low_ms: Amount
    high_ms: Amount
    board: Text


@dataclass(frozen=True)
class RunResult:
    """What one run gave.

    Attributes:
        key: hash of all that it was made from.
        model: its model.
        seed: its seed.
        figures: COCO's on the data set to evaluate on, per cent, of the exported graph in FP32 on ONNX Runtime.
        params, flops, convention: cost of the model, as its contract has it.
        seconds: how long it took, of its last start alone.
        losses: by epoch.
        curve: figures on the way and at the end.
        latency: of the variant, in one of its runs; ``None`` where NVIDIA's compiler is not installed.
        made_from: what ``key`` is the hash of.
        machine: where it ran.
    """

    key: Sha256
    model: Text
    seed: Whole
    figures: dict[str, _PerCent | None]
    params: Whole
    flops: Whole
    convention: Text
    seconds: Amount
    losses: tuple[EpochLoss, ...]
    curve: tuple[EpochFigures, ...] = ()
    latency: EstimatedLatency | None = None
    made_from: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for figures in (self.figures, *(point.figures for point in self.curve)):
            if absent := [name for name in FIGURES if name not in figures]:
                raise ValueError(f"{absent[0]} is missing")


@dataclass(frozen=True)
class StudyRun:
    """One run that a study wants.

    Attributes:
        variant: what is trained.
        seed: its seed.
        key: hash of all that it is made from.
        made_from: what that is.
    """

    variant: StudyVariant
    seed: int
    key: Sha256
    made_from: dict[str, Any]

    @property
    def label(self) -> str:
        """Return its name in messages."""
        return f"{self.variant.name}, seed {self.seed}"

    def folder(self, out: Path) -> Path:
        """Return the folder of its training."""
        return out / "runs" / f"{self.variant.model}-seed{self.seed}-{self.key[:12]}"

    def result_file(self, out: Path) -> Path:
        """Return the file of its result."""
        return out / "results" / f"{self.key}.json"


def runs_of(plan: StudyPlan) -> list[StudyRun]:
    """Return all runs of a study, seed by seed, so that every variant soon has its first.

    Raises:
        DataError: when a data set is broken, its pictures are missing, or training lacks classes of the evaluation.
    """
    train, val = read_boxes(plan.data.train), read_boxes(plan.data.val)
    known = set(train.categories.values())
    if lacking := [name for name in val.categories.values() if name not in known]:
        shown = printable(lacking[0])[:80]
        raise DataError(f"has a class {shown!r} that {plan.data.train.name} lacks", where=plan.data.val)
    val_images = plan.data.val_images or plan.data.images
    with console.status("reading pictures"):
        content = {
            "train": _content(train, plan.data.images),
            "val": _content(val, val_images),
            "weights": weights_sha256(plan.recipe.weights) if plan.recipe.weights else None,
            "versions": {"fine_edge": __version__, **{name: version(name) for name in LIBRARIES}},
        }
    found = []
    for seed in plan.seeds:
        for variant in plan.variants:
            made_from = {"recipe": plan.recipe_of(variant, seed).to_json(), **content}
            found.append(StudyRun(variant, seed, _key(made_from), made_from))
    return found


def _key(made_from: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def _content(data: CocoData, folder: Path) -> dict[str, str]:
    pictures = {name: folder / name for name in data.images.values()}
    missing = [name for name, path in pictures.items() if not path.is_file()]
    if missing:
        what = f"{len(missing)} of {len(pictures)} pictures are missing, such as {printable(missing[0])[:80]}"
        raise DataError(what, where=folder, hint="say in [data] where they are, or give --data DIR")
    return {"sha256": data.sha256, "pictures_sha256": sha256_of_files(pictures)}


def recipe_in(made_from: dict[str, Any]) -> Recipe:
    """Return the recipe of a run."""
    return from_data(Recipe, made_from.get("recipe"))


def write_result(result: RunResult, path: Path) -> None:
    """Write a result, whole or not at all."""
    write_text(path, console.json_text({"format": FORMAT, **to_data(result)}))


def read_result(path: Path) -> RunResult:
    """Read a result.

    Raises:
        DataError: when it is missing, broken, or of another run than its name says.
    """
    data = read_document(path, DataError, title="result of a run", format_=FORMAT, hint=_AGAIN)
    with contents_checked(path, DataError, title="result of a run", hint=_AGAIN):
        return checked_result(data)


def checked_result(data: object) -> RunResult:
    """Return a result from a document, its key compared with what it says that it was made from.

    Raises:
        ValueError: naming the field that is wrong.
    """
    result = from_data(RunResult, data)
    if result.key != _key(result.made_from):
        raise ValueError("its key is not the hash of what it was made from")
    recipe = recipe_in(result.made_from)
    if (recipe.model, recipe.seed) != (result.model, result.seed):
        raise ValueError("its model and seed are not its recipe's")
    return result


def finished(runs: Sequence[StudyRun], out: Path) -> dict[str, RunResult]:
    """Return the results that are there, by key; a broken one is told and made again."""
    found = {}
    for run in runs:
        path = run.result_file(out)
        if not path.exists():
            continue
        try:
            result = read_result(path)
            if result.key != run.key:
                raise DataError("is of another run than its name says", where=path, hint=_AGAIN)
            found[run.key] = result
        except FineEdgeError as error:
            console.warn(f"not used: {error}")
    return found
