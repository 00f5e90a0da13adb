"""Put a comparison's pictures on one sheet, A left and B right, as the paper's Figs. 9, 11 and 12; masks magnified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fine_edge.drawing import PanelRow, panel_sheet
from fine_edge.errors import DataError
from fine_edge.evaluate import masks
from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.image_pairs import (
    MISSED,
    RIGHT,
    WRONG,
    Only,
    alone,
    differing,
    drawings,
    errors_text,
    picture_of,
)
from fine_edge.evaluate.mask_changes import MaskChange

# Draw the objects whose masks differ most between two detectors, magnified, as in the paper's Fig. 12.

SIDE_PX = 300
_COLORS = {"labelled": RIGHT, "a": WRONG, "b": MISSED}
_FRAME = "#ff4d4d"
# What is shown around an object and its masks, as a share of their longer side.
_MARGIN = 0.15
_OPACITY = 0.35
_OUTLINE_PX = 2


@dataclass(frozen=True)
class MaskCrop:
    """One object: the crop of the picture with its labelled mask, A's and B's, magnified to the same size.

    Attributes:
        picture: the whole picture, small, with a frame around what the crops show.
    """

    change: MaskChange
    picture: Image.Image
    labelled: Image.Image
    a: Image.Image
    b: Image.Image

    @property
    def panels(self) -> tuple[Image.Image, ...]:
        """Return the pictures as they stand side by side."""
        return self.picture, self.labelled, self.a, self.b


def crop(comparison: Comparison, change: MaskChange) -> MaskCrop | None:
    """Return the crop of an object; ``None`` where the picture is gone, has changed or is of another size."""
    picture = picture_of(comparison, int(comparison.data.truth.image_ids[change.row]))
    sides = (comparison.data.truth, comparison.a.found, comparison.b.found)
    rows = (change.row, change.a_row, change.b_row)
    outlines = [side.masks[row] for side, row in zip(sides, rows, strict=True) if side.masks is not None]
    if picture is None or any(tuple(one["size"]) != (picture.height, picture.width) for one in outlines):
        return None
    window = _window([masks.bounding_box(one) for one in outlines], picture.size)
    zoom = SIDE_PX / max(window[2] - window[0], window[3] - window[1])
    size = max(1, round((window[2] - window[0]) * zoom)), max(1, round((window[3] - window[1]) * zoom))
    part = picture.crop(window).resize(size, Image.Resampling.LANCZOS)
    left, top, right, bottom = window
    drawn = (
        _tinted(part, masks.pixels(one)[top:bottom, left:right], color)
        for one, color in zip(outlines, _COLORS.values(), strict=True)
    )
    return MaskCrop(change, _framed(picture, window), *drawn)


def _framed(picture: Image.Image, window: tuple[int, int, int, int]) -> Image.Image:
    """Return a picture of at most :data:`SIDE_PX` with a frame around a window of it."""
    scale = SIDE_PX / max(picture.size)
    small = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    left, top, right, bottom = (place * scale for place in window)
    ImageDraw.Draw(small).rectangle((left, top, right, bottom), outline=_FRAME, width=2)
    return small


def crop_title(comparison: Comparison, one: MaskCrop) -> tuple[str, str, str, str]:
    """Return the name of an object's picture, then titles for the labelled mask, and A's and B's with their IoU."""
    data, row = comparison.data, one.change.row
    a, b = comparison.names
    return (
        data.images[int(data.truth.image_ids[row])],
        f"labelled: {data.categories[int(data.truth.category_ids[row])]}",
        f"{a}: IoU {one.change.a_iou:.2f}",
        f"{b}: IoU {one.change.b_iou:.2f}",
    )


def _window(boxes: list[list[float]], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what holds all boxes (x, y, width, height), within a picture."""
    corners = np.array([(x, y, x + width, y + height) for x, y, width, height in boxes])
    low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    margin = max(2.0, _MARGIN * float((high - low).max()))
    left, top = np.maximum(np.floor(low - margin), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(high + margin), size).astype(int).tolist()
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _tinted(part: Image.Image, mask: NDArray[np.bool_], color: str) -> Image.Image:
    """Return a magnified crop with the pixels of a mask in colour and its border drawn."""
    large = np.asarray(Image.fromarray(mask).resize(part.size, Image.Resampling.NEAREST), dtype=np.bool_)
    padded = np.pad(large, _OUTLINE_PX)
    inner = large.copy()
    for axis in (0, 1):
        for step in (-_OUTLINE_PX, _OUTLINE_PX):
            inner &= np.roll(padded, step, axis)[_OUTLINE_PX:-_OUTLINE_PX, _OUTLINE_PX:-_OUTLINE_PX]
    tint = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)])
    pixels = np.asarray(part).astype(np.float64)
    pixels[large] += _OPACITY * (tint - pixels[large])
    pixels[large & ~inner] = tint
    return Image.fromarray(pixels.astype(np.uint8))


# What a sheet shows: false positives, missed objects, or the masks of objects that both find.
Shown = Literal["fp", "fn", "masks"]


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
