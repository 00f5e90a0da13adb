"""Preprocessing with OpenCV: what :func:`fine_edge.preprocess.preprocess` gives, within one level of 255, sooner.

Of the reference's time nine tenths go into Pillow's resize, into floats of double precision and into their transpose.
Here a picture stays uint8 until it has its final size:

- Without antialiasing, ``cv2.resize`` reads the same four pixels, with weights of 11 bits.
- With it, OpenCV has no such filter (INTER_AREA is a box, Pillow's a triangle). PyTorch has it in vector instructions
  of x86 (:func:`vector_resize`). Elsewhere the triangle is applied to columns, then to rows, each rounded to uint8 as
  Pillow does; a pass combines whole rows of pixels by products of small matrices, so the picture is transposed for the
  first, in bands. What else was tried: docs/FIGURES.md.
- A table of 256 values by channel replaces scaling and normalisation: to a level, the reference's own float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from fine_edge.errors import MissingExtraError
from fine_edge.libraries import opencv
from fine_edge.preprocess import Placement, Preprocessing, normalised, placed

Pixels = NDArray[np.uint8]
# Resizes a picture (H, W, 3) to a height and a width, with Pillow's bilinear filter.
Resize = Callable[[Pixels, int, int], Pixels]

# Targets that one product of matrices gives: fewer cost calls, more cost products with weights of zero.
_BLOCK_TARGETS = 8
# Rows that are turned at a time: columns are written to memory that stays in the cache.
_BAND_ROWS = 360
# Pillow's weights are integers of this unit, which decides how sums near a half are rounded.
_UNIT = 2.0**-22


@dataclass(frozen=True)
class Tap:
    """The source pixels ``begin`` to ``end`` (exclusive) of one target pixel along an axis, and their weights."""

    begin: int
    end: int
    weights: NDArray[np.float32] | NDArray[np.float64]


@lru_cache(maxsize=64)
def triangle(source: int, target: int) -> tuple[Tap, ...]:
    """Return the weights of Pillow's bilinear filter for an axis: a triangle, as wide as two target pixels.

    Source: Pillow, ``precompute_coeffs`` in src/libImaging/Resample.c.
    """
    # Enlarging meets halves often (every tenth sum of 4 pixels to 5), which single precision would round by chance.
    kind = np.float32 if source > target else np.float64
    scale = source / target
    support = max(scale, 1.0)
    taps = []
    for pixel in range(target):
        centre = (pixel + 0.5) * scale
        begin, end = max(0, int(centre - support + 0.5)), min(source, int(centre + support + 0.5))
        weights = np.maximum(0, 1 - np.abs(np.arange(begin, end) - centre + 0.5) / support)
        used = np.flatnonzero(weights)  # a tap on the triangle's foot weighs nothing
        first, last = int(used[0]), int(used[-1]) + 1
        share = np.floor(weights[first:last] / weights.sum() / _UNIT + 0.5) * _UNIT
        taps.append(Tap(begin + first, begin + last, share.astype(kind)))
    return tuple(taps)


@dataclass(frozen=True)
class _Block:
    """Neighbouring targets: their weights (targets, ``end - begin``) of the source pixels from ``begin`` to ``end``."""

    first: int
    begin: int
    end: int
    weights: NDArray[np.float32] | NDArray[np.float64]


@lru_cache(maxsize=64)
def _blocks(source: int, target: int) -> tuple[_Block, ...]:
    taps = triangle(source, target)
    blocks = []
    for first in range(0, target, _BLOCK_TARGETS):
        inside = taps[first : first + _BLOCK_TARGETS]
        begin, end = inside[0].begin, inside[-1].end
        weights = np.zeros((len(inside), end - begin), taps[0].weights.dtype)
        for row, tap in zip(weights, inside, strict=True):
            row[tap.begin - begin : tap.end - begin] = tap.weights
        blocks.append(_Block(first, begin, end, weights))
    return tuple(blocks)


def _combined(rows: Pixels, target: int) -> Pixels:
    """Return rows (N, L) resized to (target, L) by the triangle, rounded."""
    cv2 = opencv()

    blocks = _blocks(len(rows), target)
    kind, length = blocks[0].weights.dtype, rows.shape[1]
    resized = np.empty((target, length), np.uint8)
    floats = np.zeros((max(block.end - block.begin for block in blocks), length), kind)
    sums = np.empty((_BLOCK_TARGETS, length), kind)
    for block in blocks:
        window, exact = floats[: block.end - block.begin], sums[: len(block.weights)]
        # What was there counts nothing at a weight of one: levels become floats in two thirds of numpy's time.
        cv2.accumulateWeighted(rows[block.begin : block.end], window, 1.0)
        np.matmul(block.weights, window, out=exact)
        exact += 0.5  # halves up, as Pillow; numpy and OpenCV would round them to even
        np.copyto(resized[block.first : block.first + len(exact)], exact, casting="unsafe")
    return resized


def _narrowed(pixels: Pixels, width: int) -> Pixels:
    """Return (H, W, 3) resized to (H, width, 3): columns are turned into rows, combined, and turned back."""
    cv2 = opencv()

    narrowed = np.empty((len(pixels), width, 3), np.uint8)
    for top in range(0, len(pixels), _BAND_ROWS):
        band = pixels[top : top + _BAND_ROWS]
        turned = cv2.transpose(band).reshape(pixels.shape[1], len(band) * 3)  # in a tenth of numpy's time
        cv2.transpose(_combined(turned, width).reshape(width, len(band), 3), narrowed[top : top + _BAND_ROWS])
    return narrowed


def product_resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize a picture (H, W, 3) with Pillow's bilinear filter by products of matrices, to a level."""
    if pixels.shape[1] != width:  # first, as in Pillow, because each pass rounds
        pixels = _narrowed(pixels, width)
    if len(pixels) != height:
        pixels = _combined(pixels.reshape(len(pixels), width * 3), height).reshape(height, width, 3)
    return pixels


@cache
def vector_resize() -> Resize | None:
    """Return PyTorch's resize if this machine's PyTorch has it in vector instructions, which only x86 does.

    It takes two fifths of the time of :func:`product_resize`. Importing PyTorch takes a second and 200 MiB, so this is
    for many pictures, and a device without PyTorch gives ``None``.
    """
    try:
        import torch
    except (ImportError, OSError):  # OSError: a library of the system that it lacks
        return None
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None

    def resized(pixels: Pixels, height: int, width: int) -> Pixels:
        writable = np.require(pixels, requirements=["C", "W"])  # PyTorch warns of memory that is read only
        planes = torch.from_numpy(writable).permute(2, 0, 1)[None]
        small = torch.nn.functional.interpolate(planes, (height, width), mode="bilinear", antialias=True)
        found: Pixels = small[0].permute(1, 2, 0).numpy()
        return found

    return resized


def _is_turned(pixels: Pixels) -> bool:
    """Return whether channels are read backwards, as in OpenCV's BGR seen as RGB."""
    return pixels.strides[2] < 0


def in_one_piece(pixels: Pixels) -> Pixels:
    """Return a picture (H, W, 3) contiguous in memory.

    OpenCV, where it is installed, turns channels that are read backwards, in a tenth of numpy's time.
    """
    if not _is_turned(pixels):
        return np.ascontiguousarray(pixels)
    try:
        cv2 = opencv()
    except MissingExtraError:
        return np.ascontiguousarray(pixels)
    turned: Pixels = cv2.cvtColor(np.ascontiguousarray(pixels[..., ::-1]), cv2.COLOR_BGR2RGB)
    return turned


def _resized(pixels: Pixels, height: int, width: int, how: Preprocessing, antialiased: Resize) -> Pixels:
    cv2 = opencv()

    if pixels.shape[:2] == (height, width):
        return pixels
    whole = np.ascontiguousarray(pixels)
    if how.antialias:
        return antialiased(whole, height, width)
    small: NDArray[np.uint8] = cv2.resize(whole, (width, height), interpolation=cv2.INTER_LINEAR)
    return small


def _planes(pixels: Pixels) -> Sequence[Pixels]:
    """Return the channels of a picture (H, W, 3), without a copy where each lies in one piece already."""
    planes = pixels.transpose(2, 0, 1)
    if planes.flags.c_contiguous:  # as PyTorch leaves them
        return list(planes)
    split: Sequence[Pixels] = opencv().split(pixels)
    return split


@lru_cache(maxsize=16)
def _tables(how: Preprocessing) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the float32 of each level by channel (3, 256), and of the padding (3,)."""
    table = normalised(np.repeat(np.arange(256.0)[:, None], 3, axis=1), how)
    padding = np.zeros(3, np.float32) if how.pad_value is None else table[how.pad_value]
    return np.ascontiguousarray(table.T), padding


def fast_preprocess(
    pixels: Pixels, height: int, width: int, how: Preprocessing, antialiased: Resize = product_resize
) -> tuple[NDArray[np.float32], Placement]:
    """Do what :func:`fine_edge.preprocess.preprocess` does; every value is within ``scale / std`` of its.

    Args:
        pixels: the picture (H, W, 3) uint8 RGB.
        height: of the network's input, pixels.
        width: of the network's input, pixels.
        how: the preprocessing.
        antialiased: resizes where the preprocessing asks for antialiasing.

    Raises:
        ImportError: when OpenCV is not installed.
    """
    cv2 = opencv()

    placement, new_height, new_width = placed((pixels.shape[0], pixels.shape[1]), height, width, how)
    # Channels are resized as they lie in memory, and put in order when they are small.
    is_turned = _is_turned(pixels)
    resized = _resized(pixels[..., ::-1] if is_turned else pixels, new_height, new_width, how, antialiased)
    planes = _planes(resized)[:: -1 if is_turned else 1]
    table, padding = _tables(how)
    tensor = np.empty((1, 3, height, width), np.float32)
    bottom, right = placement.top + new_height, placement.left + new_width
    for channel, plane, levels, pad in zip(planes, tensor[0], table, padding, strict=True):
        for border in (plane[: placement.top], plane[bottom:], plane[:, : placement.left], plane[:, right:]):
            border.fill(pad)
        cv2.LUT(channel, levels, plane[placement.top : bottom, placement.left : right])
    return tensor, placement
