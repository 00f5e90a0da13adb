"""Draw boxes, masks and segments on a picture, and a caption that says what produced them."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from fine_edge.decode import Prediction, label_name
from fine_edge.detections import Detections
from fine_edge.files import write_bytes
from fine_edge.images import DRAWN_BY
from fine_edge.segments import Panoptic, pasted_masks
from fine_edge.text import printable

Pixels = NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Color = tuple[int, int, int]

# Opacity of masks and segments.
_OPACITY = 0.5
_GAP_PX, _LINE_PX = 8, 18


def color_of(index: int) -> Color:
    """Return a colour for an index; neighbouring indices get distant hues."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618 % 1, 0.75, 1.0)
    return int(red * 255), int(green * 255), int(blue * 255)


def _wrapped(text: str, font: Font, width_px: int) -> list[str]:
    """Split a text between words into lines that fit the width."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def draw(pixels: Pixels, found: Prediction, labels: tuple[str, ...], caption: str) -> Image.Image:
    """Return the picture (H, W, 3) with everything that was found, and the caption below it."""
    height, width = pixels.shape[:2]
    size = max(12, min(height, width) // 40)
    font = ImageFont.load_default(size)
    lines = _wrapped(printable(caption), font, width - size)
    canvas = Image.new("RGB", (width, height + (len(lines) + 1) * size * 5 // 4), "black")
    canvas.paste(Image.fromarray(tinted(pixels, found)), (0, 0))
    pen = ImageDraw.Draw(canvas)
    if isinstance(found, Detections):
        _draw_boxes(pen, found, labels, font, size, width)
    else:
        _draw_names(pen, found, labels, font, size)
    pen.multiline_text((size // 2, height + size // 2), "\n".join(lines), fill="white", font=font)
    return canvas


@dataclass(frozen=True)
class PanelRow:
    """Pictures of one size class side by side, each with a title above it."""

    title: str
    panels: tuple[tuple[str, Image.Image], ...]


def _draw_key(pen: ImageDraw.ImageDraw, key: Sequence[tuple[str, Color]], top: int, width_px: int, font: Font) -> int:
    """Draw names, each with a square of its colour, in as many lines as they need; return the row below them."""
    left = _GAP_PX
    for text, color in ((printable(name), color) for name, color in key):
        needed = 16 + int(font.getlength(text)) + 2 * _GAP_PX
        if left > _GAP_PX and left + needed > width_px:
            left, top = _GAP_PX, top + _LINE_PX
        pen.rectangle((left, top + 2, left + 11, top + 13), fill=color)
        pen.text((left + 16, top), text, fill="black", font=font)
        left += needed
    return top + _LINE_PX + _GAP_PX


def panel_sheet(title: str, rows: Sequence[PanelRow], key: Sequence[tuple[str, Color]] = ()) -> Image.Image:
    """Return all rows below each other on white, under a title; text of others is made printable and may wrap.

    Args:
        title: above all.
        rows: of panels.
        key: names of colours, below the title.
    """
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    across = max(sum(picture.width + _GAP_PX for _, picture in row.panels) for row in rows)
    heads = [_wrapped(printable(row.title), small, across) for row in rows]
    names = [[_wrapped(printable(name), small, picture.width) for name, picture in row.panels] for row in rows]
    lines = _wrapped(printable(title), font, across)
    above = [(len(head) + max(map(len, below))) * _LINE_PX for head, below in zip(heads, names, strict=True)]
    tall = [max(picture.height for _, picture in row.panels) + 2 * _GAP_PX for row in rows]
    top = _GAP_PX + len(lines) * (_LINE_PX + 4)
    blank = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    head_px = _draw_key(blank, key, top, across, small) if key else top
    sheet = Image.new("RGB", (across + _GAP_PX, head_px + sum(above) + sum(tall)), "white")
    pen = ImageDraw.Draw(sheet)
    if key:
        top = _draw_key(pen, key, top, across, small)
    pen.multiline_text((_GAP_PX, _GAP_PX // 2), "\n".join(lines), fill="black", font=font)
    for row, head, below, text_px, picture_px in zip(rows, heads, names, above, tall, strict=True):
        pen.multiline_text((_GAP_PX, top), "\n".join(head), fill="#5b6770", font=small, spacing=2)
        left = _GAP_PX
        for (_, picture), name in zip(row.panels, below, strict=True):
            place = left, top + len(head) * _LINE_PX
            pen.multiline_text(place, "\n".join(name), fill="black", font=small, spacing=2)
            sheet.paste(picture, (left, top + text_px))
            left += picture.width + _GAP_PX
        top += text_px + picture_px
    return sheet


def write_drawing(image: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all, that says it is a drawing: folders of pictures are read without it."""
    buffer, info = BytesIO(), PngInfo()
    info.add_text("Software", DRAWN_BY)
    # Three times as fast as Pillow's default, with a quarter more bytes.
    image.save(buffer, format="PNG", pnginfo=info, compress_level=1)
    write_bytes(path, buffer.getvalue())


def _tint(picture: Pixels, where: NDArray[np.bool_], color: Color) -> None:
    picture[where] = (1 - _OPACITY) * picture[where] + _OPACITY * np.array(color)


def tinted(pixels: Pixels, found: Prediction) -> Pixels:
    """Return the picture (H, W, 3) with its masks or segments in colour; the same array where there are none."""
    return _with_masks(pixels, found) if isinstance(found, Detections) else _with_segments(pixels, found)


def _with_masks(pixels: Pixels, found: Detections) -> Pixels:
    if found.masks is None:
        return pixels
    picture: Pixels = pixels.copy()
    pasted = list(pasted_masks(found.masks, found.boxes_xyxy_px, *pixels.shape[:2]))
    for index, instance in reversed(list(enumerate(pasted))):
        _tint(picture[instance.window], instance.mask, color_of(index))
    return picture


def _with_segments(pixels: Pixels, panoptic: Panoptic) -> Pixels:
    picture: Pixels = pixels.copy()
    for segment in panoptic.segments:
        # Each thing has its own colour; stuff has the colour of its class.
        color = color_of(segment.label if segment.score is None else 100 + segment.number)
        _tint(picture, panoptic.numbers == segment.number, color)
    return picture


def _draw_boxes(
    pen: ImageDraw.ImageDraw, found: Detections, labels: tuple[str, ...], font: Font, size: int, width: int
) -> None:
    for label, box, score in reversed(list(zip(found.labels, found.boxes_xyxy_px, found.scores, strict=True))):
        color = color_of(int(label))
        x0, y0, x1, y1 = (float(v) for v in box)
        pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=color, width=max(2, size // 8))
        text = f"{printable(label_name(int(label), labels))} {score:.2f}"
        top = max(0.0, y0 - size - 4)
        left = min(x0, max(0.0, width - pen.textlength(text, font=font) - 4))
        pen.rectangle((left, top, left + pen.textlength(text, font=font) + 4, top + size + 4), fill=color)
        pen.text((left + 2, top), text, fill="black", font=font)


def _draw_names(pen: ImageDraw.ImageDraw, panoptic: Panoptic, labels: tuple[str, ...], font: Font, size: int) -> None:
    """Write the name of each segment on the pixel of the segment that is nearest to its centre."""
    for segment in panoptic.segments:
        rows, columns = np.nonzero(panoptic.numbers == segment.number)
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        text = printable(label_name(segment.label, labels))
        half = pen.textlength(text, font=font) / 2
        place = (float(columns[nearest]) - half, float(rows[nearest]) - size / 2)
        pen.text(place, text, fill="white", font=font, stroke_width=max(1, size // 10), stroke_fill="black")
