"""Score the boxes and masks of a detector on a data set with COCO's figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fine_edge.detections import Detections, Floats
from fine_edge.evaluate.class_names import categories_of
from fine_edge.evaluate.coco_data import CocoData, read_results
from fine_edge.evaluate.evaluation import Evaluation, Origin, score
from fine_edge.evaluate.journal import Entry, Line, Outlines, found_of, read_journal
from fine_edge.evaluate.picture_sizes import require_labelled_sizes
from fine_edge.evaluate.run import ImageResult, origin_of, run_images
from fine_edge.runners.opened import Opened
from fine_edge.segments import pasted_masks


def _entry(seen: ImageResult, category_of: dict[int, int]) -> Entry:
    """Keep the detections of the data set's categories, with coordinates rounded to a thousandth of a pixel."""
    found = seen.found
    if not isinstance(found, Detections):
        return Entry(seen.image_id, error=str(seen.error))
    kept = np.flatnonzero(np.isin(found.labels, list(category_of)))
    boxes = found.boxes_xyxy_px[kept].astype(float).round(3)
    corners, sides = boxes[:, :2].tolist(), (boxes[:, 2:] - boxes[:, :2]).round(3).tolist()
    rows: list[Line] = [
        (category_of[label], x, y, width, height, score)
        for label, (x, y), (width, height), score in zip(
            found.labels[kept].tolist(), corners, sides, found.scores[kept].tolist(), strict=True
        )
    ]
    outlines = None
    if found.masks is not None and seen.size is not None:
        outlines = _outlines(found.masks[kept], found.boxes_xyxy_px[kept], seen.size)
    return Entry(seen.image_id, seen.sha256, tuple(rows), outlines=outlines)


def _outlines(masks: Floats, boxes_xyxy_px: Floats, size: tuple[int, int]) -> Outlines:
    """Return masks (N, 28, 28), which lie in boxes, as COCO's compressed run lengths."""
    from faster_coco_eval.core import mask

    canvas = np.zeros(size, dtype=np.uint8, order="F")
    counts = []
    for pasted in pasted_masks(masks, boxes_xyxy_px, *size):
        canvas[pasted.window] = pasted.mask
        runs = mask.encode(canvas)["counts"]
        counts.append(runs.decode() if isinstance(runs, bytes) else str(runs))
        canvas[pasted.window] = 0
    return Outlines(size, tuple(counts))


def evaluate_boxes(
    opened: Opened,
    data: CocoData,
    images: Path,
    folder: Path,
    same: dict[str, str] | None = None,
    *,
    exact: bool = False,
) -> Evaluation:
    """Run a detector on all images that ``folder`` holds no detections of yet, and score the detections.

    Args:
        opened: the detector.
        data: the labelled boxes.
        images: folder of the pictures.
        folder: folder of the detections, which are written image by image.
        same: the model's class name by the data set's category name, where the two differ.
        exact: preprocess by the reference.

    Raises:
        FineEdgeError: when model and data set do not belong together, or a file cannot be read or written.
    """
    category_of = categories_of(opened.contract, data, same)
    run = run_images(opened, data, images, folder, category_of, lambda seen: _entry(seen, category_of), exact=exact)
    found = found_of(read_journal(run.journal, run.pictures), run.journal)
    return score(
        data,
        found,
        origin_of(opened, exact=exact),
        detections=run.journal,
        skipped=run.skipped,
        images=images,
        pictures=run.pictures,
    )


def evaluate_results(path: Path, data: CocoData, images: Path | None = None) -> Evaluation:
    """Score a file of COCO results, which any program may have written.

    Args:
        path: the results file.
        data: the labelled boxes.
        images: folder of the pictures, which only pages of comparisons show.

    Raises:
        DataError: when the results or the pictures do not belong to the data set.
    """
    if images:
        require_labelled_sizes(data, images)
    return score(data, read_results(path, data), Origin(path.stem), detections=path, images=images)
