"""A subject on a whole data set: resumable, with progress, and bound to the artifact that ran."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fine_edge import console, machine
from fine_edge.contract import Contract
from fine_edge.detections import Detections
from fine_edge.errors import ArtifactError, DataError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.coco_results import read_results
from fine_edge.evaluate.evaluation import Evaluation, Origin, score
from fine_edge.evaluate.journal import Entry, Journal, Row
from fine_edge.evaluate.label_map import map_labels
from fine_edge.evaluate.pipeline import Seen, detect
from fine_edge.subject import Subject

_WITH_BOXES = ("detection", "instance")


def _rows(found: Detections, category_of: dict[int, int]) -> tuple[Row, ...]:
    """Detections of the data set's categories; a thousandth of a pixel is less than any network means."""
    rows = []
    for label, place, confidence in zip(
        found.labels.tolist(), found.boxes_xyxy_px.astype(float).round(3).tolist(), found.scores.tolist(), strict=True
    ):
        category = category_of.get(label)
        if category is not None:
            x0, y0, x1, y1 = place
            rows.append((category, x0, y0, round(x1 - x0, 3), round(y1 - y0, 3), confidence))
    return tuple(rows)


def _entry(seen: Seen, category_of: dict[int, int]) -> Entry:
    if seen.detections is None:
        return Entry(seen.image_id, error=str(seen.error))
    return Entry(seen.image_id, _rows(seen.detections, category_of))


def _check(contract: Contract, folder: Path) -> None:
    if contract.task not in _WITH_BOXES:
        raise ArtifactError(
            f"finds {contract.task} segments", where=contract.model, mend="give a detector: boxes are evaluated"
        )
    if not folder.is_dir():
        raise DataError("no such folder of images", where=folder, mend="give it with --images")


def _origin(subject: Subject) -> Origin:
    return Origin(
        model=subject.contract.model,
        artifact_sha256=subject.artifact_sha256,
        onnx_sha256=subject.onnx_sha256,
        precision=subject.precision,
        backend=subject.runner.name,
        random_weights=subject.contract.random_weights,
        machine=machine.describe(),
    )


def stem(subject: Subject, data: CocoData) -> str:
    """Name of an evaluation's files, without what they hold: model, precision, data set and artifact."""
    return f"{subject.contract.model}.{subject.precision}.{data.path.stem}.{subject.artifact_sha256[:12]}"


def run(subject: Subject, data: CocoData, images: Path, folder: Path, same: dict[str, str] | None = None) -> Evaluation:
    """Look at all images that ``folder`` holds no detections of yet, and score them.

    Args:
        subject: a detector.
        data: what is to be found.
        images: folder of the pictures.
        folder: of the detections, which are kept image by image.
        same: the model's name of a category, by the data set's, where they differ.

    Raises:
        FineEdgeError: when model and data set do not belong together, or a file cannot be read or written.
    """
    _check(subject.contract, images)
    category_of = map_labels(subject.contract.labels, data.categories, same)
    _remark_unused(subject.contract, category_of)
    origin = _origin(subject)
    path = folder / f"{stem(subject, data)}.detections.jsonl"
    identity = {key: value for key, value in asdict(origin).items() if key != "machine"}
    with Journal(path, {**identity, "data_sha256": data.sha256, "categories": sorted(category_of.items())}) as journal:
        left = [(number, name) for number, name in data.images.items() if number not in journal.done]
        if journal.done and left:
            console.remark(f"{len(journal.done)} of {len(data.images)} images were looked at before: {path}")
        with console.progress() as bar:
            task = bar.add_task("images", total=len(data.images), completed=len(data.images) - len(left))
            for seen in detect(left, images, subject.contract, subject.runner):
                journal.add(_entry(seen, category_of))
                bar.advance(task)
        found, skipped = journal.found(), dict(journal.errors)
    with console.status("scoring"):
        return score(data, found, origin, detections=path, skipped=skipped, images=images)


def _remark_unused(contract: Contract, category_of: dict[int, int]) -> None:
    unused = [label for index, label in enumerate(contract.labels) if index not in category_of]
    if unused:
        console.remark(f"what it finds of {len(unused)} other classes ({', '.join(unused[:4])}, ...) is not counted")


def run_results(path: Path, data: CocoData, images: Path | None = None) -> Evaluation:
    """Score a results file, whatever made it; pictures are needed for comparisons to show them alone.

    Raises:
        DataError: when it does not belong to the data set.
    """
    return score(data, read_results(path, data), Origin(path.stem), detections=path, images=images)
