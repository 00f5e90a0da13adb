"""Evaluate segmenters by mean IoU or panoptic quality, and keep the map of segments that was found in each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fine_edge.errors import DataError
from fine_edge.evaluate import panoptic, semantic
from fine_edge.evaluate.class_names import categories_of
from fine_edge.evaluate.evaluation import FORMAT, Origin, now, sha256_of_pictures
from fine_edge.evaluate.journal import Entry, Line, read_journal, table_of
from fine_edge.evaluate.panoptic import PanopticFigures
from fine_edge.evaluate.run import ImageResult, origin_of, run_images, stem
from fine_edge.evaluate.segment_data import IGNORED, SegmentData
from fine_edge.evaluate.semantic import SemanticFigures
from fine_edge.files import file_size, parse_json, sha256_of, write_bytes
from fine_edge.images import DRAWN_BY
from fine_edge.runners.opened import Opened
from fine_edge.segments import Panoptic

# The map of segments that a model found in each image, kept beside the counts so that it can be drawn.
#
# A map is a PNG of segment numbers, 0 where there is none, in a folder named after the journal. Its text says the
# category of each number. Counts come from the map alone, so a map that gives other counts than the journal is refused.

_KEY = "fine_edge segments"
_MOST_BYTES = 256 * 2**20
_AGAIN = "evaluate again, the maps are kept beside the counts"


@dataclass(frozen=True)
class SegmentMap:
    """Segments of one image.

    Attributes:
        numbers: (H, W) number of each pixel's segment, 0 where there is none.
        categories: category by number; numbers without one are of classes that the data set lacks.
    """

    numbers: NDArray[np.int64]
    categories: dict[int, int]

    @property
    def classes(self) -> NDArray[np.int64]:
        """Return the category of each pixel (H, W), :data:`IGNORED` where there is none."""
        numbers, places = np.unique(self.numbers, return_inverse=True)
        categories = np.array([self.categories.get(number, IGNORED) for number in numbers.tolist()], dtype=np.int64)
        classes: NDArray[np.int64] = categories[places].reshape(self.numbers.shape)
        return classes


def found_map(found: Panoptic, category_of: dict[int, int]) -> SegmentMap:
    """Return the map of what a model found, its classes as categories of the data set."""
    categories = {one.number: category_of[one.label] for one in found.segments if one.label in category_of}
    return SegmentMap(found.numbers.astype(np.int64), categories)


def true_map(data: SegmentData, image_id: int) -> SegmentMap:
    """Return the labelled map of an image; its crowds are left out.

    Raises:
        DataError: when the annotation cannot be read.
    """
    numbers = data.numbers(image_id)
    if data.segments is not None:
        return SegmentMap(numbers, {one.number: one.category for one in data.segments[image_id] if not one.crowd})
    present = np.unique(numbers[numbers != IGNORED]).tolist()
    # A category may have the id 0, which as a number would be no segment.
    return SegmentMap(numbers + 1, {category + 1: category for category in present})


def rows(found: SegmentMap, data: SegmentData, image_id: int) -> list[Line]:
    """Return the journal's counts of an image: confusions of pixels, or matches of segments by category.

    Raises:
        DataError: when the annotation cannot be read or is of another size.
    """
    truth = data.numbers(image_id)
    if truth.shape != found.numbers.shape:
        sizes = " and ".join("x".join(map(str, shape[::-1])) for shape in (found.numbers.shape, truth.shape))
        what = f"picture and annotation are of {sizes} pixels"
        raise DataError(what, where=data.truths[image_id], hint="give the pictures of it")
    if data.segments is None:
        return [*semantic.rows(truth, found.classes)]
    return [*panoptic.rows(truth, data.segments[image_id], found.numbers, found.categories)]


def folder_of(journal: Path) -> Path:
    """Return the folder of the maps beside a journal of counts."""
    return journal.with_suffix(".maps")


def path_of(journal: Path, image_id: int) -> Path:
    """Return the file of an image's map."""
    return folder_of(journal) / f"{image_id}.png"


def write_map(found: SegmentMap, path: Path) -> None:
    """Write a map, whole or not at all."""
    info, buffer = PngInfo(), BytesIO()
    info.add_text("Software", DRAWN_BY)  # folders of pictures are read without it
    info.add_text(_KEY, json.dumps(sorted(found.categories.items())))
    kind = np.uint8 if int(found.numbers.max(initial=0)) < 256 else np.uint16
    Image.fromarray(found.numbers.astype(kind)).save(buffer, format="PNG", pnginfo=info)
    write_bytes(path, buffer.getvalue())


def read_map(path: Path, data: SegmentData, image_id: int, counts: NDArray[np.float64]) -> SegmentMap:
    """Read the map that the counts (N, columns) of an image were made from.

    Raises:
        DataError: when it is missing or damaged, or gives other counts.
    """
    file_size(path, DataError, hint=_AGAIN, limit=_MOST_BYTES)
    try:
        with Image.open(path, formats=("PNG",)) as image:
            numbers = np.asarray(image).astype(np.int64)
            categories = _categories(parse_json(str(image.info[_KEY])), data.categories)
        if numbers.ndim != 2 or numbers.min(initial=0) < 0:
            raise ValueError("it has colours")
    except Exception as error:  # Pillow's decoders raise errors of any kind
        what = f"is no map of segments ({type(error).__name__}: {error})"
        raise DataError(what, where=path, hint=_AGAIN) from error
    found = SegmentMap(numbers, categories)
    made = rows(found, data, image_id)
    if len(made) != len(counts) or not np.allclose(np.array(made).reshape(counts.shape), counts):
        raise DataError("gives other counts than those that were kept", where=path, hint=_AGAIN)
    return found


def _categories(pairs: Any, known: Collection[int]) -> dict[int, int]:
    found: dict[int, int] = dict(pairs)
    if not set(found.values()) <= set(known):
        raise ValueError("it has categories that the data set lacks")
    return found


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

    # Counts without their map can neither be drawn nor checked, so that such an image is run again.
    def has_map(number: int) -> bool:
        return path_of(journal, number).is_file()

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
        found = found_map(seen.found, category_of)
        counted = rows(found, data, seen.image_id)
        write_map(found, path_of(journal, seen.image_id))
        return Entry(seen.image_id, seen.sha256, tuple(counted))

    return entry
