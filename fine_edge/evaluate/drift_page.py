"""Show drift as tables and as one HTML page: figures, and the images that changed most."""

from __future__ import annotations

from html import escape

import numpy as np

from fine_edge import __version__
from fine_edge.evaluate.comparison_page import (
    NO_PICTURES,
    frame,
    key,
    origins,
    pair,
    table,
)
from fine_edge.evaluate.drift import CONFIDENCE, DetectionDrift, ImageDrift
from fine_edge.evaluate.image_pairs import (
    Judged,
)
from fine_edge.evaluate.tables import drop_note, precision_change_table
from fine_edge.table import Column, Table

PICTURES = 8


# Smaller moves of boxes, and changes of masks as 1 - IoU, are no change of a picture.
_LEAST_PX, _LEAST_GAP = 1.0, 0.1


def drift_table(drift: DetectionDrift, most_ap_drop: float | None) -> Table:
    """Return how far detections moved, with AP's drop and its limit in the notes."""
    notes = [
        f"Detections with a score of {CONFIDENCE:g} or more on either side, paired by class, place and score; flipped:"
        " one side has it alone."
    ]
    view = Table("Drift", [Column("", numeric=False), Column("median"), Column("99 %"), Column("largest")], notes=notes)
    measures = [("box (px)", "distances_px", 2), ("score", "score_gaps", 4)]
    if "segm" in drift.comparison.kinds:
        measures.append(("mask (1 - IoU)", "mask_gaps", 4))
    for title, measure, digits in measures:
        values = drift.quantiles(measure)
        view.add(title, *(f"{value:.{digits}f}" for value in values) if values else (None,) * 3)
    view.notes.append(f"{drift.matched} matched, {drift.flipped} flipped ({drift.flipped_share:.2%} of all).")
    for kind, drop in drift.drops.items():
        view.notes.append(drop_note("AP" if kind == "bbox" else "mask AP", drop, most_ap_drop))
    return view


def most_changed(drift: DetectionDrift, number: int) -> list[ImageDrift]:
    """Return at most so many images: those with the most flipped detections first, then with the largest moves."""
    changed = [
        image
        for image in drift.images
        if image.flipped or image.worst_box_px >= _LEAST_PX or image.worst_mask_gap >= _LEAST_GAP
    ]
    changed.sort(key=lambda image: (-image.flipped, -image.worst_box_px, -image.worst_mask_gap))
    return changed[:number]


def _sides(drift: DetectionDrift, image: ImageDrift) -> tuple[Judged, Judged]:
    truth = drift.comparison.data.truth.taken(np.array([], dtype=np.int64))
    first, second = drift.comparison.a.found, drift.comparison.b.found
    return (
        Judged(first.taken(image.kept), first.taken(image.lost), truth),
        Judged(second.taken(image.kept_other), second.taken(image.new), truth),
    )


def _captions(drift: DetectionDrift, image: ImageDrift) -> tuple[str, str]:
    reference, other = drift.comparison.names
    moved = f"boxes moved up to {image.worst_box_px:.1f} px"
    if len(image.mask_gaps):
        moved += f", masks changed up to {image.worst_mask_gap:.2f} (1 - IoU)"
    return f"{reference}: {len(image.lost)} alone", f"{other}: {len(image.new)} alone; {moved}"


def _pictures(drift: DetectionDrift) -> str:
    changed = most_changed(drift, PICTURES)
    pairs = "".join(
        pair(
            drift.comparison,
            image.image_id,
            _sides(drift, image),
            _captions(drift, image),
        )
        for image in changed
    )
    if not pairs:
        masks = f", no mask by {_LEAST_GAP:g} (1 - IoU)" if "segm" in drift.comparison.kinds else ""
        nothing = f'<p class="soft">No picture changed by a pixel{masks}.</p>'
        return NO_PICTURES if changed else nothing
    legend = key(right="found by both", wrong="found by this one alone")
    return f"<section><h2>What changed most</h2>{legend}{pairs}</section>"


def to_html(drift: DetectionDrift, most_ap_drop: float | None) -> str:
    """Return the page."""
    comparison = drift.comparison
    return frame(
        f"Drift of {comparison.names[1]} from {comparison.names[0]}",
        [
            f'<p class="soft">{len(comparison.data.images)} images of {escape(comparison.data.path.name)}, by fine_edge'
            f" {__version__}.</p>",
            table(drift_table(drift, most_ap_drop), "drift"),
            table(precision_change_table(comparison), "ap"),
            _pictures(drift),
            origins(comparison),
        ],
    )
