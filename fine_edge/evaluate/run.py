"""A subject on all images of a data set: resumable, with progress, and bound to the artifact that ran.

What was found is used again only where all that it depends on is the same: the picture's file, by its sha256 beside
each image's entry, and everything else, as :func:`_identity` states it in the journal's first line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fine_edge import console, machine
from fine_edge.contract import Contract
from fine_edge.errors import DataError, ImageError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.data import Data
from fine_edge.evaluate.evaluation import Origin
from fine_edge.evaluate.journal import Entry, Journal
from fine_edge.evaluate.label_map import map_labels
from fine_edge.evaluate.picture_sizes import require_labelled_sizes
from fine_edge.evaluate.pipeline import READERS, Seen, detect
from fine_edge.files import file_size, sha256_of
from fine_edge.images import is_folder
from fine_edge.runners.base import ROUNDED
from fine_edge.subject import Subject
from fine_edge.text import file_stem


@dataclass(frozen=True)
class Looked:
    """What is left behind.

    Attributes:
        journal: the file.
        skipped: why images could not be read, by id.
        pictures: sha256 of the pictures' files, by id of the images that were looked at.
    """

    journal: Path
    skipped: dict[int, str]
    pictures: dict[int, str]


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
    name = file_stem(data.path.stem)
    return f"{subject.contract.model}.{subject.precision}{rounded}.{name}.{subject.artifact_sha256[:12]}"


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


def _identity(subject: Subject, data: Data, categories: dict[int, int]) -> dict[str, Any]:
    """State all that decides what is kept of a picture, but the picture: artifact, contract, data and libraries."""
    contract = subject.contract
    return {
        **{key: value for key, value in asdict(origin_of(subject)).items() if key != "machine"},
        "preprocessing": contract.preprocessing.to_json(),
        "task": contract.task,
        "postprocessed": contract.postprocessed,
        "labels": list(contract.labels),
        "data_sha256": data.sha256,
        "categories": sorted(categories.items()),
        # Decoders, resizing and kernels change between releases.
        "libraries": {name: machine.version(name) for name in ("pillow", "onnxruntime", "tensorrt")},
    }


def _unchanged(journal: Journal, data: Data, images: Path) -> set[int]:
    """Ids of the images whose pictures are still those that the journal's entries were made from."""
    known = [(number, images / data.images[number]) for number in journal.pictures if number in data.images]

    def same(entry: tuple[int, Path]) -> bool:
        number, path = entry
        try:
            file_size(path, ImageError)
            return sha256_of(path) == journal.pictures[number]
        except (ImageError, OSError):  # which is told when it is looked at
            return False

    with ThreadPoolExecutor(READERS) as pool, console.status("comparing pictures"):
        return {number for (number, _), found in zip(known, pool.map(same, known), strict=True) if found}


def look(
    subject: Subject,
    data: Data,
    images: Path,
    folder: Path,
    categories: dict[int, int],
    entry: Callable[[Seen], Entry],
) -> Looked:
    """Run the subject on all images that ``folder`` holds no rows of yet, or rows of other pictures.

    Args:
        subject: what is run.
        data: the data set.
        images: folder of its pictures.
        folder: of the journal.
        categories: as :func:`categories_of` gives them.
        entry: what is kept of an image.

    Raises:
        FineEdgeError: when a file cannot be read or written, holds something else, or contradicts the labels.
    """
    if not is_folder(images):
        raise DataError("no such folder of images", where=images, mend="give it with --images")
    require_labelled_sizes(data, images)
    path = folder / f"{stem(subject, data)}.jsonl"
    skipped: dict[int, str] = {}
    with Journal(path, _identity(subject, data, categories)) as journal:
        done = _unchanged(journal, data, images)
        left = [(number, name) for number, name in data.images.items() if number not in done]
        if changed := len(journal.pictures) - len(done):
            console.remark(f"{changed} pictures are not those that were looked at before, and are looked at again")
        if done and left:
            console.remark(f"{len(done)} of {len(data.images)} images were looked at before: {path}")
        with console.progress() as bar:
            task = bar.add_task("images", total=len(data.images), completed=len(done))
            start_s, inference_s = time.perf_counter(), 0.0
            for seen in detect(left, images, subject.contract, subject.runner):
                journal.add(entry(seen))
                if seen.error:
                    skipped[seen.image_id] = str(seen.error)
                inference_s += seen.inference_s
                bar.advance(task)
            wall_s = time.perf_counter() - start_s
        if inference_s:
            console.remark(
                f"{len(left)} images in {wall_s:.1f} s, {wall_s / inference_s:.2f} times what the network alone took"
            )
        pictures = {number: journal.pictures[number] for number in data.images if number not in skipped}
        return Looked(path, skipped, pictures)
