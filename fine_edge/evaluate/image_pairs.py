"""Draw the images on which two detectors differ most, side by side, as in the paper's Figs. 9 and 11."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fine_edge.errors import ImageError
from fine_edge.evaluate.coco_data import CocoData, Found, Truth
from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.matching import LEFT_OUT, TRUE_POSITIVE, Verdicts
from fine_edge.evaluate.segment_comparison import SegmentComparison
from fine_edge.images import read_image
from fine_edge.text import printable

RIGHT, WRONG, MISSED = "#3fa7ff", "#ff4d4d", "#ffb000"
LABELLED = "#f2f2f2"
WIDTH_PX = 460
# Whether false positives or missed objects alone are drawn.
Only = Literal["fp", "fn"]


@dataclass(frozen=True)
class Judged:
    """The right and wrong detections and the missed objects of one image.

    Attributes:
        labelled: objects that are drawn thin, below all others.
    """

    right: Found
    wrong: Found
    missed: Truth
    labelled: Truth | None = None

    def errors(self, only: Only | None = None) -> int:
        """Return the number of false positives, of missed objects, or of both."""
        return (only != "fn") * len(self.wrong) + (only != "fp") * len(self.missed)

    def only(self, which: Only, labelled: Truth) -> Judged:
        """Return the false positives or the missed objects alone, over the labelled objects."""
        none = np.array([], dtype=np.int64)
        kept = replace(self, right=self.right.taken(none), labelled=labelled)
        return replace(kept, missed=self.missed.taken(none)) if which == "fp" else replace(kept, wrong=kept.right)


@dataclass(frozen=True)
class ImagePair:
    """An image on which the two detectors differ."""

    image_id: int
    a: Judged
    b: Judged

    def fewer(self, only: Only | None = None) -> int:
        """Return how many errors fewer B makes than A; negative where A is better."""
        return self.a.errors(only) - self.b.errors(only)


def _judged(verdicts: Verdicts, data: CocoData, image_id: int) -> Judged:
    here = verdicts.found.image_ids == image_id
    kinds = verdicts.kinds
    missed = verdicts.missed[data.truth.image_ids[verdicts.missed] == image_id]
    return Judged(
        verdicts.found.taken(np.flatnonzero(here & (kinds == TRUE_POSITIVE))),
        verdicts.found.taken(np.flatnonzero(here & (kinds != TRUE_POSITIVE) & (kinds != LEFT_OUT))),
        data.truth.taken(missed),
    )


def differing(comparison: Comparison, only: Only | None = None) -> list[ImagePair]:
    """Return the images on which the numbers of errors differ by boxes, those that differ most first."""
    data = comparison.data
    a, b = (side.verdicts["bbox"] for side in (comparison.a, comparison.b))
    pairs = [ImagePair(image, _judged(a, data, image), _judged(b, data, image)) for image in data.images]
    changed = [one for one in pairs if one.fewer(only)]
    # Among images with the same difference, those with fewer errors in all show it best.
    changed.sort(key=lambda one: (-abs(one.fewer(only)), one.a.errors(only) + one.b.errors(only), one.image_id))
    return changed


def most_different(comparison: Comparison, number: int) -> tuple[list[ImagePair], list[ImagePair]]:
    """Return at most ``number`` images on which B makes fewer errors than A, and as many on which it makes more."""
    changed = differing(comparison)
    better, worse = ([one for one in changed if one.fewer() * sign > 0] for sign in (1, -1))
    return better[:number], worse[:number]


def alone(comparison: Comparison, one: ImagePair, only: Only) -> tuple[Judged, Judged]:
    """Return both sides of an image with false positives or missed objects alone, over the labelled objects."""
    truth = comparison.data.truth
    labelled = truth.taken(np.flatnonzero((truth.image_ids == one.image_id) & ~truth.crowd))
    return one.a.only(only, labelled), one.b.only(only, labelled)


def errors_text(only: Only, number: int) -> str:
    """Return a number of errors in words."""
    if only == "fp":
        return f"{number} false positive{'' if number == 1 else 's'}"
    return f"{number} missed"


def _boxes(judged: Judged, categories: dict[int, str]) -> Iterator[tuple[tuple[float, ...], str, str]]:
    """Yield box (x, y, w, h), colour and text; wrong detections come last and are drawn on top."""
    parts = ((judged.labelled, LABELLED), (judged.right, RIGHT), (judged.missed, MISSED), (judged.wrong, WRONG))
    for objects, color in parts:
        if objects is None:
            continue
        scores = objects.scores.tolist() if isinstance(objects, Found) else [None] * len(objects)
        for box, category, score in zip(
            objects.boxes_xywh.tolist(), objects.category_ids.tolist(), scores, strict=True
        ):
            text = printable(categories[category]) + (f" {score:.2f}" if score is not None else " missed")
            yield tuple(box), color, text


def _draw(picture: Image.Image, scale: float, judged: Judged, categories: dict[int, str]) -> Image.Image:
    drawn = picture.copy()
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(11)
    for (x, y, width, height), color, text in _boxes(judged, categories):
        left, top = x * scale, y * scale
        box = (left, top, left + width * scale, top + height * scale)
        pen.rectangle(box, outline=color, width=1 if color == LABELLED else 2)
        if color in (MISSED, WRONG):
            length = pen.textlength(text, font=font)
            left, top = min(left, max(0.0, drawn.width - length - 3)), max(0.0, top - 13)
            pen.rectangle((left, top, left + length + 3, top + 13), fill=color)
            pen.text((left + 1, top), text, fill="black", font=font)
    return drawn


def picture_of(comparison: Comparison | SegmentComparison, image_id: int) -> Image.Image | None:
    """Return the picture of an image; ``None`` where it is gone or has changed."""
    if comparison.images is None:
        return None
    try:
        picture = read_image(comparison.images / comparison.data.images[image_id])
    except ImageError:
        return None
    if comparison.pictures.get(image_id, picture.sha256) != picture.sha256:
        return None
    return Image.fromarray(picture.pixels)


def drawings(comparison: Comparison, image_id: int, a: Judged, b: Judged) -> tuple[Image.Image, Image.Image] | None:
    """Return small pictures of both sides of an image; ``None`` where the picture is gone or has changed."""
    picture = picture_of(comparison, image_id)
    if picture is None:
        return None
    scale = min(1.0, WIDTH_PX / picture.width)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    small = picture.resize(size, Image.Resampling.LANCZOS)
    first, second = (_draw(small, scale, judged, comparison.data.categories) for judged in (a, b))
    return first, second
