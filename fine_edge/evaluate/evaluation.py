"""An evaluation: the figures of an artifact on a data set, bound to the artifact by its sha256."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from fine_edge.contract import Task
from fine_edge.errors import DataError
from fine_edge.evaluate.average_precision import AveragePrecision, average_precision, mask_average_precision
from fine_edge.evaluate.coco_data import CocoData, Found
from fine_edge.evaluate.matching import CONFIDENCE, IOU, ErrorCounts, count, count_by_category, count_by_size, judge
from fine_edge.feed import Way
from fine_edge.fields import Whole, from_data
from fine_edge.files import contents_checked, read_document, sha256_of, sha256_of_hashes
from fine_edge.runners.base import ROUNDED

FORMAT = 1


def now() -> str:
    """Return the time in UTC to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Origin:
    """The origin of detections.

    Attributes:
        model: name in the zoo, or of a results file.
        artifact_sha256: of the ONNX file or engine that was run; ``None`` for a results file, of unknown making.
        onnx_sha256: of the ONNX file that an engine was built from.
        precision: of the artifact.
        backend: name of the runner.
        random_weights: whether the weights are random, so that the figures mean nothing.
        machine: where it ran, see :func:`fine_edge.machine.describe`.
        preprocessed: how pictures became inputs; ``None`` for a results file.
    """

    model: str
    artifact_sha256: str | None = None
    onnx_sha256: str | None = None
    precision: str | None = None
    backend: str | None = None
    random_weights: bool = False
    machine: dict[str, Any] = field(default_factory=dict)
    preprocessed: Way | None = None


@dataclass(frozen=True)
class Evaluation:
    """All figures of one artifact on one data set.

    Attributes:
        data: name of the annotation file, and ``data_sha256`` of it.
        images: how many were looked at, and ``pictures_sha256`` of all their files by name, where a model saw them.
        skipped: file name and reason of those that could not be read; they are in no figure.
        detections_file: what was found, and ``detections_sha256`` of it.
        data_file: the annotations, and ``images_folder`` the pictures, where there were any.
        boxes: COCO's figures by overlap of boxes, and ``masks`` by overlap of masks, where both sides have any.
        errors: at IoU 0.5 and confidence 0.5, in all, by category and by size.
    """

    origin: Origin
    data: str
    data_sha256: str
    images: int
    pictures_sha256: str | None
    skipped: dict[str, str]
    detections_file: Path
    detections_sha256: str
    data_file: Path
    images_folder: Path | None
    boxes: AveragePrecision
    masks: AveragePrecision | None
    errors: ErrorCounts
    errors_by_category: dict[str, ErrorCounts]
    errors_by_size: dict[str, ErrorCounts]

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as it is printed and kept."""
        by_group = {"by_category": self.errors_by_category, "by_size": self.errors_by_size}
        groups = {key: {name: one.to_json() for name, one in found.items()} for key, found in by_group.items()}
        return {
            "format": FORMAT,
            "task": "instance" if self.masks else "detection",
            **asdict(self.origin),
            "data": self.data,
            "data_sha256": self.data_sha256,
            "images": self.images,
            "pictures_sha256": self.pictures_sha256,
            "skipped": self.skipped,
            "detections_file": str(self.detections_file),
            "detections_sha256": self.detections_sha256,
            "data_file": str(self.data_file),
            "images_folder": str(self.images_folder) if self.images_folder else None,
            **asdict(self.boxes),
            "mask": asdict(self.masks) if self.masks else None,
            "errors": {**self.errors.to_json(), "iou": IOU, "confidence": CONFIDENCE, **groups},
            "made_at": now(),
        }


def sha256_of_pictures(names: dict[int, str], pictures: dict[int, str]) -> str:
    """Return one hash of pictures' names and files, both by image id."""
    return sha256_of_hashes({names[number]: sha256 for number, sha256 in pictures.items() if number in names})


def score(
    data: CocoData,
    found: Found,
    origin: Origin,
    *,
    detections: Path,
    skipped: dict[int, str] | None = None,
    images: Path | None = None,
    pictures: dict[int, str] | None = None,
) -> Evaluation:
    """Compute all figures of what was found.

    Args:
        data: the whole data set.
        found: all detections.
        origin: what made them.
        detections: the file that holds them.
        skipped: reason, by image id, why an image is in no figure.
        images: folder of the pictures.
        pictures: sha256 of their files by image id.
    """
    skipped = skipped or {}
    seen = data.without(skipped)
    if not seen.images:
        raise DataError("none of the images can be read", where=data.path, hint="check --images")
    verdicts = judge(seen, found)
    return Evaluation(
        origin=origin,
        data=data.path.name,
        data_sha256=data.sha256,
        images=len(seen.images),
        pictures_sha256=sha256_of_pictures(seen.images, pictures) if pictures else None,
        skipped={data.images[number]: reason for number, reason in skipped.items()},
        detections_file=detections.absolute(),
        detections_sha256=sha256_of(detections),
        data_file=data.path.absolute(),
        images_folder=images.absolute() if images else None,
        boxes=average_precision(seen, found),
        masks=mask_average_precision(seen, found),
        errors=count(verdicts),
        errors_by_category=count_by_category(verdicts, seen),
        errors_by_size=count_by_size(verdicts, seen),
    )


_HINT = "evaluate again: python -m fine_edge evaluate"


@dataclass(frozen=True)
class PastEvaluation:
    """A past evaluation: its artifact, its data and its figures in per cent; figures of nothing are left out."""

    artifact_sha256: str
    backend: str | None
    data: str
    data_sha256: str
    images: int
    figures: dict[str, float]
    pictures_sha256: str | None = None


def read_evaluation(path: Path) -> PastEvaluation:
    """Read what ``python -m fine_edge evaluate`` wrote.

    Raises:
        DataError: when it is missing, broken or of another format.
    """
    data = read_document(path, DataError, title="evaluation", format_=FORMAT, hint=_HINT)
    with contents_checked(path, DataError, title="evaluation", hint=_HINT):
        document = from_data(_Document, data)
        figures: dict[str, float] = dict(vars(from_data(_FIGURES[document.task], data)))
        if document.task == "instance":
            figures["mask_ap"] = from_data(_Masks, data).mask.ap
        between = [name for name, value in figures.items() if -1 < value < 0]
        if between:
            raise ValueError(f"{between[0]}: expected -1 or a share of 0 to 1")
        return PastEvaluation(
            artifact_sha256=str(document.artifact_sha256),
            backend=document.backend,
            data=document.data,
            data_sha256=document.data_sha256,
            images=document.images,
            figures={name: 100 * value for name, value in figures.items() if value >= 0},
            pictures_sha256=document.pictures_sha256,
        )


# -1 is the figure of nothing, such as the AP of small objects where there are none.
_Share = Annotated[float, Meta(ge=-1, le=1)]


@dataclass(frozen=True)
class _Document:
    """The fields of an evaluation that are read again, but for its figures."""

    task: Task
    artifact_sha256: str | None
    data: str
    data_sha256: str
    images: Whole
    backend: str | None = None
    pictures_sha256: str | None = None


@dataclass(frozen=True)
class _Boxes:
    ap: _Share
    ap50: _Share
    ap75: _Share
    ap_s: _Share
    ap_m: _Share
    ap_l: _Share


@dataclass(frozen=True)
class _Mask:
    ap: _Share


@dataclass(frozen=True)
class _Masks:
    mask: _Mask


@dataclass(frozen=True)
class _Semantic:
    miou: _Share


@dataclass(frozen=True)
class _Panoptic:
    pq: _Share
    sq: _Share
    rq: _Share


_FIGURES: dict[Task, type[_Boxes] | type[_Semantic] | type[_Panoptic]] = {
    "detection": _Boxes,
    "instance": _Boxes,
    "semantic": _Semantic,
    "panoptic": _Panoptic,
}


def read_evaluations(folder: Path) -> list[PastEvaluation]:
    """Return a folder's evaluations of the arithmetic that the bench times, by name; none where there is no folder."""
    found = [read_evaluation(path) for path in sorted(folder.glob("*.json"))]
    return [past for past in found if past.backend != ROUNDED]


def of_one_data_set(evaluations: Iterable[PastEvaluation], artifacts: set[str]) -> dict[str, PastEvaluation]:
    """Return evaluations of these artifacts by sha256, all on one data set, since one column shows one data set.

    Other pictures under the same names are another data set. It is the one that the most of them were evaluated on,
    and of those the one with the most images.
    """
    by_data: dict[tuple[str, str, int], dict[str, PastEvaluation]] = {}
    for past in evaluations:
        if past.artifact_sha256 in artifacts:
            key = past.data_sha256, str(past.pictures_sha256), past.images
            by_data.setdefault(key, {})[past.artifact_sha256] = past
    if not by_data:
        return {}
    return by_data[max(by_data, key=lambda key: (len(by_data[key]), key[2], key[:2]))]
