"""Draw the images on which two detectors differ most, side by side."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fine_edge.errors import ImageError
from fine_edge.evaluate.coco_data import CocoData, Found, Truth
from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.matching import LEFT_OUT, TRUE_POSITIVE, Verdicts, judge
from fine_edge.images import read_image

RIGHT, WRONG, MISSED = "#3fa7ff", "#ff4d4d", "#ffb000"
_WIDTH_PX = 460
_QUALITY = 72


@dataclass(frozen=True)
class Judged:
    """The right and wrong detections and the missed objects of one image."""

    right: Found
    wrong: Found
    missed: Truth

    @property
    def errors(self) -> int:
        """Return the number of false positives and false negatives."""
        return len(self.wrong) + len(self.missed)


@dataclass(frozen=True)
class ImagePair:
    """An image on which the two detectors differ."""

    image_id: int
    a: Judged
    b: Judged

    @property
    def fewer(self) -> int:
        """Return how many errors fewer B makes than A; negative where A is better."""
        return self.a.errors - self.b.errors


def _judged(verdicts: Verdicts, data: CocoData, image_id: int) -> Judged:
    here = verdicts.found.image_ids == image_id
    kinds = verdicts.kinds
    missed = verdicts.missed[data.truth.image_ids[verdicts.missed] == image_id]
    return Judged(
        verdicts.found.taken(np.flatnonzero(here & (kinds == TRUE_POSITIVE))),
        verdicts.found.taken(np.flatnonzero(here & (kinds != TRUE_POSITIVE) & (kinds != LEFT_OUT))),
        data.truth.taken(missed),
    )


def most_different(comparison: Comparison, number: int) -> tuple[list[ImagePair], list[ImagePair]]:
    """Return at most ``number`` images on which B makes fewer errors than A, and as many on which it makes more."""
    data = comparison.data
    a, b = judge(data, comparison.a.found), judge(data, comparison.b.found)
    pairs = [ImagePair(image, _judged(a, data, image), _judged(b, data, image)) for image in data.images]
    # Among images with the same difference, those with fewer errors in all show it best.
    pairs.sort(key=lambda one: (one.a.errors + one.b.errors, one.image_id))
    better = sorted((one for one in pairs if one.fewer > 0), key=lambda one: -one.fewer)
    worse = sorted((one for one in pairs if one.fewer < 0), key=lambda one: one.fewer)
    return better[:number], worse[:number]


def _boxes(judged: Judged, categories: dict[int, str]) -> Iterator[tuple[tuple[float, ...], str, str]]:
    """Yield box (x, y, w, h), colour and text; wrong detections come last and are drawn on top."""
    for objects, color in ((judged.right, RIGHT), (judged.missed, MISSED), (judged.wrong, WRONG)):
        scores = objects.scores.tolist() if isinstance(objects, Found) else [None] * len(objects)
        for box, category, score in zip(
            objects.boxes_xywh.tolist(), objects.category_ids.tolist(), scores, strict=True
        ):
            yield tuple(box), color, categories[category] + (f" {score:.2f}" if score is not None else " missed")


def _draw(picture: Image.Image, scale: float, judged: Judged, categories: dict[int, str]) -> Image.Image:
    drawn = picture.copy()
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(11)
    for (x, y, width, height), color, text in _boxes(judged, categories):
        left, top = x * scale, y * scale
        pen.rectangle((left, top, left + width * scale, top + height * scale), outline=color, width=2)
        if color != RIGHT:
            length = pen.textlength(text, font=font)
            left, top = min(left, max(0.0, drawn.width - length - 3)), max(0.0, top - 13)
            pen.rectangle((left, top, left + length + 3, top + 13), fill=color)
            pen.text((left + 1, top), text, fill="black", font=font)
    return drawn


def _data_url(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def drawings(comparison: Comparison, image_id: int, a: Judged, b: Judged) -> tuple[str, str] | None:
    """Return both sides of an image as data URLs of small JPEGs; ``None`` where the picture is gone or has changed."""
    if comparison.images is None:
        return None
    data = comparison.data
    try:
        picture = read_image(comparison.images / data.images[image_id])
    except ImageError:
        return None
    if comparison.pictures.get(image_id, picture.sha256) != picture.sha256:
        return None
    pixels = picture.pixels
    scale = min(1.0, _WIDTH_PX / pixels.shape[1])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    first, second = (_data_url(_draw(small, scale, judged, data.categories)) for judged in (a, b))
    return first, second
