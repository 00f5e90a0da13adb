"""Evaluate segmenters: mean IoU of a class for each pixel, panoptic quality of segments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.errors import DataError
from fine_edge.evaluate import panoptic, segment_maps, semantic
from fine_edge.evaluate.class_names import categories_of
from fine_edge.evaluate.detect import ImageResult
from fine_edge.evaluate.evaluation import FORMAT, Origin, now, sha256_of_pictures
from fine_edge.evaluate.journal import Entry, read_journal, table_of
from fine_edge.evaluate.panoptic import PanopticFigures
from fine_edge.evaluate.run import origin_of, run_images, stem
from fine_edge.evaluate.segment_data import SegmentData
from fine_edge.evaluate.semantic import SemanticFigures
from fine_edge.files import sha256_of
from fine_edge.runners.opened import Opened
from fine_edge.segments import Panoptic


def columns_of(data: SegmentData) -> int:
    """Return how many numbers a row of counts has."""
    return semantic.COLUMNS if data.segments is None else panoptic.COLUMNS


@dataclass(frozen=True)
class SegmentEvaluation:
    """All figures of one segmenter on one data set.

    Attributes:
        data: file name of the annotations; ``data_sha256`` is their hash.
        images: number of images evaluated; ``pictures_sha256`` is the hash of all their files by name.
        skipped: why images could not be read, by file name; no figure counts them.
        counts_file: file of the counts of each image; ``counts_sha256`` is its hash.
        data_file: the annotations; ``images_folder`` holds the pictures.
    """

    origin: Origin
    data: str
    data_sha256: str
    images: int
    pictures_sha256: str
    skipped: dict[str, str]
    counts_file: Path
    counts_sha256: str
    data_file: Path
    images_folder: Path
    figures: SemanticFigures | PanopticFigures

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        return {
            "format": FORMAT,
            "task": "semantic" if isinstance(self.figures, SemanticFigures) else "panoptic",
            **asdict(self.origin),
            "data": self.data,
            "data_sha256": self.data_sha256,
            "images": self.images,
            "pictures_sha256": self.pictures_sha256,
            "skipped": self.skipped,
            "counts_file": str(self.counts_file),
            "counts_sha256": self.counts_sha256,
            "data_file": str(self.data_file),
            "images_folder": str(self.images_folder),
            **asdict(self.figures),
            "made_at": now(),
        }


def evaluate_segments(
    opened: Opened,
    data: SegmentData,
    images: Path,
    folder: Path,
    same: dict[str, str] | None = None,
    *,
    exact: bool = False,
) -> SegmentEvaluation:
    """Run a segmenter on all images that ``folder`` holds no counts of yet, and score the counts.

    Args:
        opened: the model; panoptic where the data has segments, semantic where it has classes of pixels.
        data: the labelled pixels.
        images: folder of the pictures.
        folder: folder of the counts, which are written image by image.
        same: the model's class name by the data set's category name, where the two differ.
        exact: preprocess by the reference.

    Raises:
        FineEdgeError: when model and data set do not belong together, or a file cannot be read or written.
    """
    category_of = categories_of(opened.contract, data, same)
    journal = folder / f"{stem(opened, data, exact=exact)}.jsonl"
    entry = _entries(data, category_of, journal)

    def has_map(number: int) -> bool:
        return segment_maps.path_of(journal, number).is_file()

    run = run_images(opened, data, images, folder, category_of, entry, exact=exact, usable=has_map)
    if not run.pictures:
        raise DataError("none of the images can be read", where=data.path, hint="check --images")
    _, table = table_of(read_journal(run.journal, run.pictures), columns_of(data), run.journal)
    return SegmentEvaluation(
        origin=origin_of(opened, exact=exact),
        data=data.path.name,
        data_sha256=data.sha256,
        images=len(run.pictures),
        pictures_sha256=sha256_of_pictures(data.images, run.pictures),
        skipped={data.images[number]: reason for number, reason in run.skipped.items()},
        counts_file=run.journal.absolute(),
        counts_sha256=sha256_of(run.journal),
        data_file=data.path.absolute(),
        images_folder=images.absolute(),
        figures=figures_of(table, data),
    )


def figures_of(table: NDArray[np.float64], data: SegmentData) -> SemanticFigures | PanopticFigures:
    """Return the figures of all images from their rows of counts (N, columns)."""
    return (semantic.figures if data.segments is None else panoptic.figures)(table, data.categories)


def _entries(data: SegmentData, category_of: dict[int, int], journal: Path) -> Callable[[ImageResult], Entry]:
    """Return what makes the journal's entry of an image, and keeps its map beside the journal."""

    def entry(seen: ImageResult) -> Entry:
        if not isinstance(seen.found, Panoptic):
            return Entry(seen.image_id, error=str(seen.error))
        found = segment_maps.found_map(seen.found, category_of)
        counted = segment_maps.rows(found, data, seen.image_id)
        segment_maps.write_map(found, segment_maps.path_of(journal, seen.image_id))
        return Entry(seen.image_id, seen.sha256, tuple(counted))

    return entry
