"""The input of a network from a decoded picture, by the way that its contract and its user choose."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fine_edge import console
from fine_edge.errors import ConfigError, MissingExtraError
from fine_edge.fast_preprocess import fast_preprocess, in_one_piece, product_resize, vector_resize
from fine_edge.libraries import opencv
from fine_edge.preprocess import Placement, Preprocessing, preprocess

Input = NDArray[np.float32] | NDArray[np.uint8]
# How a picture becomes an input: by the reference, by OpenCV, or as it is, by the graph itself.
Way = Literal["exact", "fast", "graph"]


@cache
def has_opencv() -> bool:
    """Return whether OpenCV imports; one remark says what is done without it."""
    try:
        opencv()
    except MissingExtraError as error:
        why = error.__cause__
        reason = "" if isinstance(why, ModuleNotFoundError) else f" ({' '.join(str(why).split())[:80]})"
        console.remark(
            f"OpenCV is not here{reason}: pictures are preprocessed by the reference, which takes ten times as long ->"
            " pip install 'fine-edge[fast]'"
        )
        return False
    return True


class Feed:
    """Makes inputs for one network.

    Args:
        input_hw: height and width of the network's input, or of the frames that a graph takes, pixels.
        how: the preprocessing.
        exact: use the reference even where OpenCV is installed. Frames that a graph takes are always as they are.
        many: thousands of pictures follow: load what takes long to load and then resizes faster.

    Attributes:
        way: how it makes them.
    """

    def __init__(
        self, input_hw: tuple[int, int], how: Preprocessing, *, exact: bool = False, many: bool = False
    ) -> None:
        self._height, self._width = input_hw
        self._how = how
        self.way: Way = "graph" if how.in_graph else "exact" if exact or not has_opencv() else "fast"
        vectors = vector_resize() if many and self.way == "fast" and how.antialias else None
        self._antialiased = vectors or product_resize

    def __call__(self, pixels: NDArray[np.uint8], name: str = "") -> tuple[Input, Placement]:
        """Turn a picture (H, W, 3) uint8 RGB into an input of batch 1, and return its place there.

        Args:
            pixels: the picture.
            name: of the picture, for messages.

        Returns:
            (1, 3, H, W) float32; for a graph that takes frames, (1, H, W, 3) uint8 in the graph's order of channels.

        Raises:
            ConfigError: when a graph takes frames of another size.
        """
        if self._how.in_graph:
            return self._frame(pixels, name)
        if self.way == "exact":
            return preprocess(pixels, self._height, self._width, self._how)
        return fast_preprocess(pixels, self._height, self._width, self._how, self._antialiased)

    def _frame(self, pixels: NDArray[np.uint8], name: str) -> tuple[NDArray[np.uint8], Placement]:
        height, width = pixels.shape[:2]
        if (height, width) != (self._height, self._width):
            raise ConfigError(
                f"the picture is {height}x{width}, the model takes frames of {self._height}x{self._width}",
                where=name or None,
                hint=f"export it with --frame {height}x{width}, or without --frame for pictures of any size",
            )
        inside = self._how.in_graph
        ordered = pixels[..., ::-1] if inside and inside.color == "BGR" else pixels
        return in_one_piece(ordered)[None], Placement(1.0, 1.0, width, height)


def as_frame(pixels: NDArray[np.uint8], frame_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Stretch a picture to the size of a frame, for inputs whose proportions do not matter: of parity and of timing."""
    height, width = frame_hw
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR), dtype=np.uint8)


def noise(shape: tuple[int, ...], dtype: np.dtype[np.generic], seed: int) -> Input:
    """Return uniform noise in place of images, in [0, 1), or of frames, in levels."""
    random = np.random.default_rng(seed)
    if dtype == np.uint8:
        return random.integers(0, 256, shape, dtype=np.uint8)
    return random.random(shape, dtype=np.float32)
