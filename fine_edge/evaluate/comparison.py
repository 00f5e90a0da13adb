"""Compare two evaluations on one data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import CocoData, Found, read_results
from fine_edge.evaluate.evaluation import Evaluation, Origin, read_evaluation, score
from fine_edge.evaluate.journal import found_of, read_journal
from fine_edge.evaluate.resampling import RESAMPLES, Difference, difference
from fine_edge.evaluate.segment_data import read_boxes
from fine_edge.files import read_json, sha256_of
from fine_edge.images import is_folder

_HINT = "evaluate again: python -m fine_edge evaluate --json"
_METRICS = ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l", "ar_100")


@dataclass(frozen=True)
class Side:
    """One side of the comparison: its evaluation, recomputed from its detections, and the detections."""

    evaluation: Evaluation
    found: Found

    @property
    def name(self) -> str:
        """Return the model's name, followed by the artifact's precision."""
        origin = self.evaluation.origin
        exact = "exact" if origin.preprocessed == "exact" else ""
        return " ".join(filter(None, (origin.model, origin.precision, exact)))


@dataclass(frozen=True)
class Comparison:
    """Both evaluations, on the images that both could read, and the difference of AP with its interval.

    Attributes:
        images: folder of the pictures, where one of the evaluations names it.
        pictures: sha256 of the picture files by image id, where a model ran on them.
    """

    data: CocoData
    a: Side
    b: Side
    ap: Difference
    images: Path | None
    pictures: dict[int, str]

    @property
    def names(self) -> tuple[str, str]:
        """Return a name for each side; equal names get (A) and (B)."""
        a, b = self.a.name, self.b.name
        return (a, b) if a != b else (f"{a} (A)", f"{b} (B)")

    def figures(self, metric: str) -> tuple[float, float]:
        """Return one COCO figure of both sides as fractions; -1 means that it is not defined."""
        a, b = (getattr(side.evaluation.boxes, metric) for side in (self.a, self.b))
        return float(a), float(b)

    def gain(self, metric: str) -> float | None:
        """Return the relative gain of B over A, as in the paper's Fig. 4; ``None`` where A is undefined or 0."""
        a, b = self.figures(metric)
        return b / a - 1 if a > 0 and b >= 0 else None

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        sides = {key: side.evaluation.to_json() for key, side in (("a", self.a), ("b", self.b))}
        return {
            **sides,
            "images": len(self.data.images),
            "difference": {
                metric: {
                    "value": b - a if min(a, b) >= 0 else None,
                    "relative": self.gain(metric),
                    **({"low": self.ap.low, "high": self.ap.high} if metric == "ap" else {}),
                }
                for metric in _METRICS
                for a, b in [self.figures(metric)]
            },
        }


def _place(path: Path, stored: dict[str, Any], key: str) -> Path:
    """Return the path of a file or folder that an evaluation names: where it was, or beside the evaluation."""
    named = Path(str(stored[key]))
    places = [place for place in (named, path.parent / named.name) if place.exists()]
    if not places:
        raise DataError(f"{named} is gone", where=path, hint=_HINT)
    return places[0]


def _same(place: Path, sha256: str, stored: dict[str, Any], key: str) -> None:
    if sha256 != stored[key]:
        raise DataError("is not what was evaluated any more", where=place, hint=_HINT)


@dataclass(frozen=True)
class _Kept:
    """What an evaluation file and the files that it names hold; ``pictures`` is empty where no model ran."""

    stored: dict[str, Any]
    data: CocoData
    detections: Path
    found: Found
    pictures: dict[int, str]


def _read(path: Path) -> _Kept:
    read_evaluation(path)  # raises with the reason where it is broken
    stored = read_json(path, DataError, hint=_HINT)
    try:
        data = read_boxes(_place(path, stored, "data_file"), pictures=stored.get("images_folder") is not None)
        detections = _place(path, stored, "detections_file")
        _same(data.path, data.sha256, stored, "data_sha256")
        _same(detections, sha256_of(detections), stored, "detections_sha256")
        skipped = set(map(str, stored["skipped"]))
    except (LookupError, TypeError, OSError) as error:
        raise DataError(f"is no evaluation ({type(error).__name__}: {error})", where=path, hint=_HINT) from error
    seen = data.without({number for number, name in data.images.items() if name in skipped})
    if detections.suffix != ".jsonl":
        return _Kept(stored, seen, detections, read_results(detections, data), {})
    entries = read_journal(detections, seen.images)
    pictures = {number: entry.picture for number, entry in entries.items()}
    return _Kept(stored, seen, detections, found_of(entries, detections), pictures)


def _side(kept: _Kept, data: CocoData) -> Side:
    """Return the evaluation of one side on the images of both."""
    stored = kept.stored
    try:
        origin = Origin(
            model=str(stored["model"]),
            artifact_sha256=stored["artifact_sha256"],
            onnx_sha256=stored["onnx_sha256"],
            precision=stored["precision"],
            backend=stored["backend"],
            random_weights=bool(stored["random_weights"]),
            machine=dict(stored["machine"]),
            preprocessed=stored.get("preprocessed"),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"an evaluation does not say what it is of ({error!r})", hint=_HINT) from error
    found = kept.found.taken(np.flatnonzero(np.isin(kept.found.image_ids, list(data.images))))
    return Side(score(data, found, origin, detections=kept.detections, pictures=kept.pictures), found)


def compare(a: Path, b: Path, *, resamples: int = RESAMPLES, advance: Callable[[], None] = lambda: None) -> Comparison:
    """Compare two evaluation files on the images that both could read.

    Args:
        a: the evaluation to compare with.
        b: the evaluation whose gain is shown.
        resamples: number of resampled image sets behind the interval.
        advance: called after each of them.

    Raises:
        DataError: when a file is broken, when a file that it names is missing or has changed, or when the two are of
            different data sets, of different pictures, or have no readable image in common.
    """
    first, second = _read(a), _read(b)
    if first.data.sha256 != second.data.sha256:
        what = f"{a} is of {first.data.path.name}, {b} of {second.data.path.name}"
        raise DataError(f"{what}: these are not the same", hint="evaluate both on the same annotations")
    data = first.data.without(set(first.data.images) - set(second.data.images))
    if not data.images:
        raise DataError(f"{a} and {b} have no image in common that both could read", hint=_HINT)
    pictures = {**first.pictures, **second.pictures}
    other = [
        number for number in data.images if first.pictures.get(number, pictures.get(number)) != pictures.get(number)
    ]
    if other:
        names = ", ".join(data.images[number] for number in other[:3])
        what = f"{a} and {b} are of other pictures under {len(other)} of {len(data.images)} names: {names}"
        raise DataError(what, hint="evaluate both on the same pictures")
    sides = _side(first, data), _side(second, data)
    found = (side.found for side in sides)
    folders = [Path(str(kept.stored["images_folder"])) for kept in (first, second) if kept.stored.get("images_folder")]
    return Comparison(
        data,
        *sides,
        difference(data, *found, resamples=resamples, advance=advance),
        next((folder for folder in folders if is_folder(folder)), None),
        pictures,
    )
