"""Turn a segmenter's outputs into masks and segments of a picture, in numpy.

Nothing here draws: masks are booleans, segments are numbers with a label each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fine_edge.detections import Detections, Floats
from fine_edge.preprocess import Placement

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# Probability above which a pixel belongs to an object.
MASK_THRESHOLD = 0.5

# torchvision pads a mask by one cell before it resizes it, so that an object can reach the border of its box.
_PADDING = 1


@dataclass(frozen=True)
class PastedMask:
    """The visible part of one object: ``mask`` (h, w) lies with its upper left corner at ``top``, ``left``, pixels."""

    top: int
    left: int
    mask: Bools

    @property
    def window(self) -> tuple[slice, slice]:
        """Return the slices of the picture that the mask covers."""
        rows, columns = self.mask.shape
        return slice(self.top, self.top + rows), slice(self.left, self.left + columns)


def paste_masks(
    masks: Floats, boxes_xyxy_px: Floats, height: int, width: int, threshold: float = MASK_THRESHOLD
) -> Bools:
    """Resize masks from their boxes to the picture, as torchvision's ``paste_masks_in_image`` does.

    Args:
        masks: (N, 28, 28), or any other side, probabilities over each box.
        boxes_xyxy_px: (N, 4), pixels of the picture.
        height: of the picture, pixels.
        width: of the picture, pixels.
        threshold: pixels above it belong to the object.

    Returns:
        (N, height, width) booleans.
    """
    canvas = np.zeros((len(masks), height, width), dtype=np.bool_)
    for i, pasted in enumerate(pasted_masks(masks, boxes_xyxy_px, height, width, threshold)):
        canvas[i][pasted.window] = pasted.mask
    return canvas


def pasted_masks(
    masks: Floats, boxes_xyxy_px: Floats, height: int, width: int, threshold: float = MASK_THRESHOLD
) -> Iterator[PastedMask]:
    """Yield the masks of :func:`paste_masks` one by one, each no larger than its visible part."""
    for mask, (x0, y0, x1, y1) in zip(masks, _cells(boxes_xyxy_px, masks.shape[-1]), strict=True):
        padded = np.pad(mask.astype(np.float32), _PADDING)
        rows, top = _interpolation(int(y0), int(y1), height, len(padded))
        columns, left = _interpolation(int(x0), int(x1), width, len(padded))
        # Bilinear interpolation treats rows and columns separately, so it is two matrix products.
        yield PastedMask(top, left, rows @ padded @ columns.T > threshold)


def _cells(boxes_xyxy_px: Floats, side: int) -> Ints:
    """Return first and last pixels (N, 4) of the boxes, widened by the padding of the masks; truncated, not rounded.

    A box with NaN, as broken networks give, becomes a box outside of every picture.
    """
    boxes = boxes_xyxy_px.astype(np.float32).reshape(-1, 4)
    scale = np.float32((side + 2 * _PADDING) / side)
    low, high = boxes[:, :2], boxes[:, 2:]
    with np.errstate(invalid="ignore", over="ignore"):
        half, centre = (high - low) * np.float32(0.5) * scale, (high + low) * np.float32(0.5)
        cells = np.concatenate([centre - half, centre + half], axis=1)
    outside = ~(np.abs(cells) < 2**30).all(axis=1)
    cells[outside] = -1.0
    return cells.astype(np.int64)


def _interpolation(first: int, last: int, limit: int, cells: int) -> tuple[Floats, int]:
    """Return weights (pixels, cells) of the pixels ``first`` to ``last`` within [0, limit), and the first of them."""
    size = max(last - first + 1, 1)
    begin, end = min(max(first, 0), limit), min(max(last + 1, 0), limit)
    pixels = np.arange(begin, max(begin, end)) - first
    # Centres of pixels in units of cells, clamped at the border.
    at = np.clip((pixels + 0.5) * (cells / size) - 0.5, 0, cells - 1)
    distance = np.abs(at[:, None] - np.arange(cells))
    return np.maximum(0, 1 - distance).astype(np.float32), begin


@dataclass(frozen=True)
class Segment:
    """One segment of a picture.

    Attributes:
        number: value of its pixels in :attr:`Panoptic.numbers`, from 1.
        label: class index.
        area_px: number of pixels.
        score: score of a thing; ``None`` for stuff, of which all pixels of one class are one segment.
    """

    number: int
    label: int
    area_px: int
    score: float | None = None


@dataclass(frozen=True)
class Panoptic:
    """A picture cut into segments, things best first, then stuff.

    Attributes:
        numbers: (H, W) number of each pixel's segment, 0 where there is none.
        segments: by number.
    """

    numbers: NDArray[np.int32]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class MergeConfig:
    """Thresholds for merging instances and stuff; the defaults are those of the public implementations of Panoptic FPN.

    Attributes:
        score: lowest score of an instance.
        overlap: an instance is dropped if better ones cover a larger share of it than this.
        stuff_area_px: stuff with fewer pixels is dropped.
    """

    score: float = 0.5
    overlap: float = 0.5
    stuff_area_px: int = 64 * 64


def merge(
    detections: Detections, masks: Floats, stuff: Ints, things_label: int, config: MergeConfig | None = None
) -> Panoptic:
    """Merge instances and stuff into segments that do not overlap, as Panoptic FPN does (Kirillov et al., 2019, Sec.
    3).

    Instances are placed best first, each on the pixels that are still free; stuff fills the rest.

    Args:
        detections: N, best first, boxes in pixels of ``stuff``.
        masks: (N, 28, 28) masks of the detections.
        stuff: (H, W) label of the stuff at each pixel.
        things_label: label in ``stuff`` of the pixels that belong to instances.
        config: thresholds.
    """
    config = config or MergeConfig()
    numbers = np.zeros(stuff.shape, dtype=np.int32)
    segments: list[Segment] = []
    keep = detections.scores >= config.score
    kept = detections.above(config.score)
    pasted = pasted_masks(masks[keep], kept.boxes_xyxy_px, *stuff.shape)
    for label, score, instance in zip(kept.labels, kept.scores, pasted, strict=True):
        below = numbers[instance.window]
        free = instance.mask & (below == 0)
        area, visible = int(instance.mask.sum()), int(free.sum())
        if not visible or area - visible > config.overlap * area:
            continue
        below[free] = len(segments) + 1
        segments.append(Segment(len(segments) + 1, int(label), visible, float(score)))
    # Instances have their pixels by now; a stuff whose visible rest is small is dropped.
    for label in np.unique(stuff):
        free = (stuff == label) & (numbers == 0)
        area = int(free.sum())
        if label == things_label or not area or area < config.stuff_area_px:
            continue
        numbers[free] = len(segments) + 1
        segments.append(Segment(len(segments) + 1, int(label), area))
    return Panoptic(numbers, tuple(segments))


def to_picture(classes: NDArray[np.generic], placement: Placement) -> NDArray[np.generic]:
    """Resize a map (H, W) of the network's input to the picture that was placed there, by the nearest pixel."""
    height, width = classes.shape
    y = (np.arange(placement.height) + 0.5) * placement.scale_y + placement.top
    x = (np.arange(placement.width) + 0.5) * placement.scale_x + placement.left
    rows, columns = np.clip(y.astype(np.int64), 0, height - 1), np.clip(x.astype(np.int64), 0, width - 1)
    picture: NDArray[np.generic] = classes[rows[:, None], columns]
    return picture
