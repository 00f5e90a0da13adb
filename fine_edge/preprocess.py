"""From a picture to a network input and back, as a contract describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fine_edge.errors import ArtifactError
from fine_edge.fields import Finite, Level, from_data, to_data

_FIXED = {"color": "RGB", "layout": "NCHW", "interpolation": "bilinear"}
"""What descriptions say and this version knows no other value of."""


@dataclass(frozen=True)
class Preprocessing:
    """The way from a picture to an input: RGB, resized to the input size, scaled, then (x - mean) / std per channel.

    ``stretch`` resizes without keeping the aspect ratio, as RT-DETR is trained;
    ``letterbox`` keeps it and pads with ``pad_value``: at the right and bottom (``align`` is ``corner``, as
    torchvision does) or on both sides alike (``center``, as ultralytics does). A ``pad_value`` of ``None`` pads
    with zeros behind the normalisation. Interpolation is bilinear: with ``antialias`` Pillow's filter, as in
    transformers' processor; without, of the four nearest pixels, as in OpenCV and torch, which torchvision's and
    ultralytics' weights were trained with.
    """

    resize: Literal["stretch", "letterbox"] = "stretch"
    scale: Finite = 1 / 255
    mean: tuple[Finite, Finite, Finite] = (0.0, 0.0, 0.0)
    std: tuple[Finite, Finite, Finite] = (1.0, 1.0, 1.0)
    pad_value: Level | None = 114
    align: Literal["corner", "center"] = "corner"
    antialias: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the description as a contract holds it."""
        described = to_data(self)
        return {
            "color": _FIXED["color"],
            "layout": _FIXED["layout"],
            "resize": described.pop("resize"),
            "interpolation": _FIXED["interpolation"],
            **described,
        }

    @classmethod
    def from_json(cls, data: object) -> Preprocessing:
        """Read the description back.

        Raises:
            ArtifactError: for one that this version does not know.
        """
        if not isinstance(data, dict):
            raise ArtifactError(f"preprocessing is {str(data)[:80]!r}, not an object")
        # Contracts from before there was a choice lack align and antialias; their defaults are what was done then.
        for key in (*_FIXED, "resize", "scale", "mean", "std", "pad_value"):
            if key not in data:
                raise ArtifactError(f"preprocessing has no {key!r}")
        for key, value in _FIXED.items():
            if data[key] != value:
                raise ArtifactError(f"preprocessing's {key} is {str(data[key])[:80]!r}, not {value}")
        try:
            found = from_data(cls, data)
        except ValueError as error:
            raise ArtifactError(f"preprocessing's {error}") from error
        if 0 in found.std or found.scale == 0:
            raise ArtifactError("preprocessing divides by zero or loses the picture: a std or the scale is 0")
        return found


@dataclass(frozen=True)
class Placement:
    """The place of a picture in the network input: input pixel = picture pixel * scale + left or top, per axis."""

    scale_x: float
    scale_y: float
    width: int
    height: int
    left: int = 0
    top: int = 0

    def to_picture(self, boxes_xyxy_px: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn boxes (N, 4) in pixels of the input into pixels of the picture, clipped to it."""
        offset = np.array([self.left, self.top] * 2, dtype=np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, dtype=np.float32)
        limit = np.array([self.width, self.height] * 2, dtype=np.float32)
        clipped: NDArray[np.float32] = np.clip((boxes_xyxy_px - offset) / scale, 0, limit).astype(np.float32)
        return clipped


def _resized_hw(source_height: int, source_width: int, height: int, width: int, how: Preprocessing) -> tuple[int, int]:
    """Return the height and width of the picture within the input."""
    if how.resize == "stretch":
        return height, width
    ratio = min(height / source_height, width / source_width)
    # ultralytics rounds to the nearest pixel, torchvision down.
    rounded = round if how.align == "center" else int
    return max(1, rounded(source_height * ratio)), max(1, rounded(source_width * ratio))


def _resized(pixels: NDArray[np.uint8], height: int, width: int, *, antialias: bool) -> NDArray[np.float64]:
    """Return the picture (H, W, 3) resized, its values still 0 to 255."""
    source_height, source_width = pixels.shape[:2]
    if antialias or (source_height, source_width) == (height, width):
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        # In float64, so that scaling rounds once, as transformers' processor does: the same input bit for bit.
        return np.asarray(resized, dtype=np.float64)
    # Pillow's resize always antialiases; its affine transform takes the four nearest pixels, and floats unrounded.
    step = (source_width / width, 0.0, 0.0, 0.0, source_height / height, 0.0)
    channels = [
        Image.fromarray(pixels[..., channel].astype(np.float32)).transform(
            (width, height), Image.Transform.AFFINE, step, Image.Resampling.BILINEAR
        )
        for channel in range(3)
    ]
    return np.stack([np.asarray(channel, dtype=np.float64) for channel in channels], axis=2)


def preprocess(
    pixels: NDArray[np.uint8], height: int, width: int, how: Preprocessing
) -> tuple[NDArray[np.float32], Placement]:
    """Turn a picture (H, W, 3) uint8 RGB into an input (1, 3, height, width) float32, and return its place there."""
    source_height, source_width = pixels.shape[:2]
    new_height, new_width = _resized_hw(source_height, source_width, height, width, how)
    top, left = (height - new_height, width - new_width) if how.align == "center" else (0, 0)
    top, left = top // 2, left // 2
    canvas = _resized(pixels, new_height, new_width, antialias=how.antialias)
    padding = ((top, height - new_height - top), (left, width - new_width - left), (0, 0))
    padded = canvas.shape[:2] != (height, width)
    if padded and how.pad_value is not None:
        canvas = np.pad(canvas, padding, constant_values=float(how.pad_value))
    scaled = (canvas * how.scale).astype(np.float32)
    if how.mean != (0.0, 0.0, 0.0) or how.std != (1.0, 1.0, 1.0):
        mean, std = (np.array(values, dtype=np.float32) for values in (how.mean, how.std))
        scaled = ((scaled - mean) / std).astype(np.float32)
    if padded and how.pad_value is None:
        scaled = np.pad(scaled, padding)
    tensor = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32)
    placement = Placement(new_width / source_width, new_height / source_height, source_width, source_height, left, top)
    return tensor, placement
