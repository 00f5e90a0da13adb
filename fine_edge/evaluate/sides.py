"""Read the two evaluations of a comparison with all files that they name, on the images that both could read."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import CocoData, Doubles, Found, Ints, read_results
from fine_edge.evaluate.evaluation import Origin, read_evaluation
from fine_edge.evaluate.journal import found_of, read_journal, table_of
from fine_edge.evaluate.segment_data import Data, SegmentData, read_data
from fine_edge.evaluate.segments import columns_of
from fine_edge.files import read_json, sha256_of
from fine_edge.images import is_folder
from fine_edge.text import printable

_HINT = "evaluate again: python -m fine_edge evaluate --json"


@dataclass(frozen=True)
class Counts:
    """What the journal of a segmenter holds: image ids (N,) and rows (N, columns) of counts."""

    image_ids: Ints
    rows: Doubles

    def taken(self, rows: Ints) -> Counts:
        """Return the rows at these indices."""
        return Counts(self.image_ids[rows], self.rows[rows])


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation file and what the files that it names hold.

    Attributes:
        origin: what was evaluated.
        data: the data set, with the images that this evaluation could read.
        kept: file of the detections or counts; ``found`` is what it holds.
        pictures: sha256 of the picture files by image id; empty where no model ran.
        folder: folder of the pictures, where it is on this machine.
    """

    path: Path
    origin: Origin
    data: Data
    kept: Path
    found: Found | Counts
    pictures: dict[int, str]
    folder: Path | None

    def on(self, data: Data) -> StoredEvaluation:
        """Return it with some of its images alone."""
        rows = np.flatnonzero(np.isin(self.found.image_ids, list(data.images)))
        return replace(self, data=data, found=self.found.taken(rows))


def names_of(a: Origin, b: Origin) -> tuple[str, str]:
    """Return a name for each side: model, precision and other preprocessing; equal names get (A) and (B)."""
    first, second = (
        " ".join(filter(None, (one.model, one.precision, "exact" if one.preprocessed == "exact" else "")))
        for one in (a, b)
    )
    return (first, second) if first != second else (f"{first} (A)", f"{second} (B)")


def require_one_model(a: Origin, b: Origin) -> None:
    """Refuse the evaluations of two models: drift is what another artifact of one model changes."""
    if a.model != b.model:
        hint = "python -m fine_edge evaluate compare A.json B.json"
        raise DataError(f"{printable(a.model)} and {printable(b.model)} are two models", hint=hint)


def read_sides(a: Path, b: Path) -> tuple[StoredEvaluation, StoredEvaluation]:
    """Return two evaluations on the images that both could read.

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
    other = [
        number
        for number in data.images
        if number in first.pictures and number in second.pictures and first.pictures[number] != second.pictures[number]
    ]
    if other:
        names = ", ".join(data.images[number] for number in other[:3])
        what = f"{a} and {b} are of other pictures under {len(other)} of {len(data.images)} names: {names}"
        raise DataError(what, hint="evaluate both on the same pictures")
    return first.on(data), second.on(data)


def _read(path: Path) -> StoredEvaluation:
    read_evaluation(path)  # raises with the reason where it is broken
    stored = read_json(path, DataError, hint=_HINT)
    try:
        what = "detections" if stored["task"] in ("detection", "instance") else "counts"
        data = read_data(_place(path, stored, "data_file"), pictures=stored.get("images_folder") is not None)
        kept = _place(path, stored, f"{what}_file")
        _require_same(data.path, data.sha256, stored, "data_sha256")
        _require_same(kept, sha256_of(kept), stored, f"{what}_sha256")
        skipped = set(map(str, stored["skipped"]))
        folder = Path(str(stored["images_folder"])) if stored.get("images_folder") else None
        origin = _origin(stored)
    except (LookupError, TypeError, ValueError, OSError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise DataError(f"is no evaluation that can be compared ({lacks})", where=path, hint=_HINT) from error
    if isinstance(data, SegmentData) != (what == "counts"):
        raise DataError(f"is of {what}, which {data.path.name} is no data set for", where=path, hint=_HINT)
    seen = data.without({number for number, name in data.images.items() if name in skipped})
    found, pictures = _found(kept, data, seen.images)
    return StoredEvaluation(path, origin, seen, kept, found, pictures, folder if folder and is_folder(folder) else None)


def _place(path: Path, stored: dict[str, Any], key: str) -> Path:
    """Return the path of a file or folder that an evaluation names: where it was, or beside the evaluation."""
    named = Path(str(stored[key]))
    places = [place for place in (named, path.parent / named.name) if place.exists()]
    if not places:
        raise DataError(f"{named} is gone", where=path, hint=_HINT)
    return places[0]


def _require_same(place: Path, sha256: str, stored: dict[str, Any], key: str) -> None:
    if sha256 != stored[key]:
        raise DataError("is not what was evaluated any more", where=place, hint=_HINT)


def _origin(stored: dict[str, Any]) -> Origin:
    return Origin(
        model=str(stored["model"]),
        artifact_sha256=stored["artifact_sha256"],
        onnx_sha256=stored["onnx_sha256"],
        precision=stored["precision"],
        backend=stored["backend"],
        random_weights=bool(stored["random_weights"]),
        machine=dict(stored["machine"]),
        preprocessed=stored.get("preprocessed"),
    )


def _found(kept: Path, data: Data, images: Collection[int]) -> tuple[Found | Counts, dict[int, str]]:
    """Return detections or counts of these images, and the sha256 of the picture files."""
    if isinstance(data, CocoData) and kept.suffix != ".jsonl":
        return read_results(kept, data), {}
    entries = read_journal(kept, images)
    pictures = {number: entry.picture for number, entry in entries.items()}
    if isinstance(data, CocoData):
        found = found_of(entries, kept)
        if not np.isin(found.category_ids, list(data.categories)).all():
            what = f"has detections of categories that {data.path.name} does not list"
            raise DataError(what, where=kept, hint=_HINT)
        return found, pictures
    counts = Counts(*table_of(entries, columns_of(data), kept))
    first = 2 if data.segments is None else 1  # behind the categories
    if (counts.rows[:, first:] < 0).any():
        raise DataError("has counts below zero", where=kept, hint=_HINT)
    return counts, pictures
