"""A subject on all images of a data set: resumable, with progress, and bound to the artifact that ran."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fine_edge import console, machine
from fine_edge.contract import Contract
from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.data import Data
from fine_edge.evaluate.evaluation import Origin
from fine_edge.evaluate.journal import Entry, Journal
from fine_edge.evaluate.label_map import map_labels
from fine_edge.evaluate.pipeline import Seen, detect
from fine_edge.runners.base import ROUNDED
from fine_edge.subject import Subject


@dataclass(frozen=True)
class Looked:
    """What is left behind: the journal's file, and why images could not be read, by id."""

    journal: Path
    skipped: dict[int, str]


def origin_of(subject: Subject) -> Origin:
    """Where what it finds comes from."""
    return Origin(
        model=subject.contract.model,
        artifact_sha256=subject.artifact_sha256,
        onnx_sha256=subject.onnx_sha256,
        precision=subject.precision,
        backend=subject.runner.name,
        random_weights=subject.contract.random_weights,
        machine=machine.describe(),
    )


def stem(subject: Subject, data: Data) -> str:
    """Name of an evaluation's files, without what they hold: model, precision, data set and artifact."""
    rounded = "-rounded" if subject.runner.name == ROUNDED else ""
    return f"{subject.contract.model}.{subject.precision}{rounded}.{data.path.stem}.{subject.artifact_sha256[:12]}"


def categories_of(contract: Contract, data: Data, same: dict[str, str] | None) -> dict[int, int]:
    """Class index of the model to category id of the data set; says what is not counted.

    Raises:
        DataError: when the model has no class for a category.
    """
    used = set(data.truth.category_ids.tolist()) if isinstance(data, CocoData) else None
    category_of = map_labels(contract.labels, data.categories, same, used=used)
    unused = [label for index, label in enumerate(contract.labels) if index not in category_of]
    if unused:
        more = ", ..." if len(unused) > 4 else ""
        console.remark(f"not counted, since the data does not label them: {', '.join(unused[:4])}{more}")
    return category_of


def look(
    subject: Subject,
    data: Data,
    images: Path,
    folder: Path,
    categories: dict[int, int],
    entry: Callable[[Seen], Entry],
) -> Looked:
    """Run the subject on all images that ``folder`` holds no rows of yet.

    Args:
        subject: what is run.
        data: the data set.
        images: folder of its pictures.
        folder: of the journal.
        categories: as :func:`categories_of` gives them.
        entry: what is kept of an image.

    Raises:
        FineEdgeError: when a file cannot be read or written, or holds something else.
    """
    if not images.is_dir():
        raise DataError("no such folder of images", where=images, mend="give it with --images")
    path = folder / f"{stem(subject, data)}.jsonl"
    identity = {
        **{key: value for key, value in asdict(origin_of(subject)).items() if key != "machine"},
        # Of what is not in the artifact, but decides what it finds.
        "preprocessing": subject.contract.preprocessing.to_json(),
        "data_sha256": data.sha256,
        "categories": sorted(categories.items()),
    }
    with Journal(path, identity) as journal:
        left = [(number, name) for number, name in data.images.items() if number not in journal.done]
        if journal.done and left:
            console.remark(f"{len(journal.done)} of {len(data.images)} images were looked at before: {path}")
        with console.progress() as bar:
            task = bar.add_task("images", total=len(data.images), completed=len(data.images) - len(left))
            start_s, inference_s = time.perf_counter(), 0.0
            for seen in detect(left, images, subject.contract, subject.runner):
                journal.add(entry(seen))
                inference_s += seen.inference_s
                bar.advance(task)
            wall_s = time.perf_counter() - start_s
        if inference_s:
            console.remark(
                f"{len(left)} images in {wall_s:.1f} s, {wall_s / inference_s:.2f} times what the network alone took"
            )
        return Looked(path, dict(journal.errors))
