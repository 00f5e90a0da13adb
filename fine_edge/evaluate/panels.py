"""Put the pictures of a comparison on one sheet, A left and B right, as the paper's Figs. 9, 11 and 12 do."""

from __future__ import annotations

from typing import Literal

from PIL import Image

from fine_edge.drawing import PanelRow, panel_sheet
from fine_edge.errors import DataError
from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.image_pairs import Only, alone, differing, drawings, errors_text
from fine_edge.evaluate.mask_crops import crop, crop_title

Shown = Literal["fp", "fn", "masks"]
"""What a sheet shows: false positives, missed objects, or the masks of objects that both find."""


def sheet(comparison: Comparison, shown: Shown, number: int) -> Image.Image:
    """Return the images or objects that change most, at most ``number`` of them, one a row.

    Raises:
        DataError: when nothing changes, when masks are asked for and not compared, or when no picture is there.
    """
    where = comparison.data.path
    if shown == "masks" and comparison.mask_changes is None:
        hint = "evaluate instance segmentation on labels with segmentation"
        raise DataError("the evaluations have no masks that can be compared", where=where, hint=hint)
    rows = _mask_rows(comparison, number) if shown == "masks" else _error_rows(comparison, shown, number)
    if not rows:
        what = "nothing to draw: no image differs, or the pictures are not on this machine or have changed"
        raise DataError(what, where=where, hint="evaluate with --images, or choose another --threshold")
    title = {"fp": "False positives", "fn": "Missed objects", "masks": "Masks of objects that both find"}[shown]
    a, b = comparison.names
    return panel_sheet(f"{title} at a score of {comparison.threshold:g} or more: {a} and {b}", rows)


def _error_rows(comparison: Comparison, only: Only, number: int) -> list[PanelRow]:
    rows = []
    for one in differing(comparison, only)[:number]:
        sides = alone(comparison, one, only)
        drawn = drawings(comparison, one.image_id, *sides)
        if drawn:
            named = zip(comparison.names, sides, drawn, strict=True)
            panels = tuple((f"{name}: {errors_text(only, side.errors())}", picture) for name, side, picture in named)
            rows.append(PanelRow(comparison.data.images[one.image_id], panels))
    return rows


def _mask_rows(comparison: Comparison, number: int) -> list[PanelRow]:
    changes = comparison.mask_changes
    crops = [crop(comparison, one) for one in changes.objects[:number]] if changes else []
    rows = []
    for found in crops:
        if found:
            title, *names = crop_title(comparison, found)
            rows.append(PanelRow(title, tuple(zip(("whole", *names), found.panels, strict=True))))
    return rows
