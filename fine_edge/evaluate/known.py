"""Evaluations that were made before, found again by the sha256 of what was evaluated."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fine_edge.errors import DataError
from fine_edge.evaluate.evaluation import FORMAT
from fine_edge.files import read_json
from fine_edge.runners.base import ROUNDED

_BOXES = ("ap", "ap50", "ap75", "ap_s", "ap_m", "ap_l")
_FIGURES = {"detection": _BOXES, "instance": _BOXES, "semantic": ("miou",), "panoptic": ("pq", "sq", "rq")}
_MEND = "evaluate again: python -m fine_edge.evaluate"


@dataclass(frozen=True)
class Known:
    """One evaluation: of what, on what, and its figures by name in per cent, without those that are of nothing."""

    artifact_sha256: str
    backend: str | None
    data: str
    data_sha256: str
    images: int
    figures: dict[str, float]
    pictures_sha256: str | None = None


def read_evaluation(path: Path) -> Known:
    """Read what ``python -m fine_edge.evaluate`` wrote.

    Raises:
        DataError: when it is missing, broken or of another format.
    """
    data = read_json(path, DataError, mend=_MEND)
    try:
        if data["format"] != FORMAT:
            raise DataError(f"evaluation format {data['format']}, this version reads {FORMAT}", where=path, mend=_MEND)
        figures = {name: float(data[name]) for name in _FIGURES[data["task"]]}
        if data["task"] == "instance":
            figures["mask_ap"] = float(data["mask"]["ap"])
        if not all(value == -1 or 0 <= value <= 1 for value in figures.values()):
            raise ValueError("a figure is not between 0 and 1")
        return Known(
            artifact_sha256=str(data["artifact_sha256"]),
            backend=data.get("backend"),
            data=str(data["data"]),
            data_sha256=str(data["data_sha256"]),
            images=int(data["images"]),
            figures={name: 100 * value for name, value in figures.items() if value >= 0},
            pictures_sha256=data.get("pictures_sha256"),
        )
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"is no evaluation ({type(error).__name__}: {error})", where=path, mend=_MEND) from error


def read_evaluations(folder: Path) -> list[Known]:
    """All in a folder, in order of name, that were computed as the bench times it; none where there is no folder."""
    found = [read_evaluation(path) for path in sorted(folder.glob("*.json"))]
    return [known for known in found if known.backend != ROUNDED]


def of_one_data_set(evaluations: Iterable[Known], artifacts: set[str]) -> dict[str, Known]:
    """Evaluations of these artifacts by sha256, all on one data set: figures of two cannot stand in one column.

    Other pictures under the same names are another data set. It is the one that the most of them were evaluated on,
    and of those the one with the most images.
    """
    by_data: dict[tuple[str, str, int], dict[str, Known]] = {}
    for known in evaluations:
        if known.artifact_sha256 in artifacts:
            key = known.data_sha256, str(known.pictures_sha256), known.images
            by_data.setdefault(key, {})[known.artifact_sha256] = known
    if not by_data:
        return {}
    return by_data[max(by_data, key=lambda key: (len(by_data[key]), key[2], key[:2]))]
