"""From a picture to a network input and back, as a contract describes it.

:func:`preprocess` is the reference, to which parity and golden files are held. What a detector runs on in the field is
:mod:`fine_edge.fast_preprocess`; :mod:`fine_edge.feed` chooses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from PIL import Image

from fine_edge.errors import ArtifactError
from fine_edge.fields import Finite, Level, from_data, to_data

Color = Literal["RGB", "BGR"]
Side = Annotated[int, Meta(ge=1, le=2**16)]


@dataclass(frozen=True)
class InGraph:
    """Preprocessing that stands in the graph itself, which takes frames of one size: uint8 (B, H, W, 3).

    Attributes:
        color: order of a frame's channels.
        height, width: size of the network's input behind the preprocessing, pixels.
    """

    color: Color
    height: Side
    width: Side


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
    in_graph: InGraph | None = None

    def _fixed(self) -> dict[str, str]:
        """Return what a description says and this version knows no other value of."""
        color, layout = (self.in_graph.color, "NHWC") if self.in_graph else ("RGB", "NCHW")
        return {"color": color, "layout": layout, "interpolation": "bilinear"}

    def to_json(self) -> dict[str, Any]:
        """Return the description as a contract holds it."""
        described = to_data(self)
        if self.in_graph is None:  # contracts from before there was a choice say nothing of it
            del described["in_graph"]
        return {**self._fixed(), **described}

    @classmethod
    def from_json(cls, data: object) -> Preprocessing:
        """Read the description back.

        Raises:
            ArtifactError: for one that this version does not know.
        """
        if not isinstance(data, dict):
            raise ArtifactError(f"preprocessing is {str(data)[:80]!r}, not an object")
        # Contracts from before there was a choice lack align and antialias; their defaults are what was done then.
        for key in ("color", "layout", "interpolation", "resize", "scale", "mean", "std", "pad_value"):
            if key not in data:
                raise ArtifactError(f"preprocessing has no {key!r}")
        try:
            found = from_data(cls, data)
        except ValueError as error:
            raise ArtifactError(f"preprocessing's {error}") from error
        for key, value in found._fixed().items():
            if data[key] != value:
                raise ArtifactError(f"preprocessing's {key} is {str(data[key])[:80]!r}, not {value}")
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


def placed(source_hw: tuple[int, int], height: int, width: int, how: Preprocessing) -> tuple[Placement, int, int]:
    """Return the place of a picture in a height x width input, and its height and width there, all in pixels."""
    source_height, source_width = source_hw
    new_height, new_width = height, width
    if how.resize == "letterbox":
        ratio = min(height / source_height, width / source_width)
        # ultralytics rounds to the nearest pixel, torchvision down.
        rounded = round if how.align == "center" else int
        new_height, new_width = max(1, rounded(source_height * ratio)), max(1, rounded(source_width * ratio))
    top, left = (height - new_height, width - new_width) if how.align == "center" else (0, 0)
    scales = new_width / source_width, new_height / source_height
    return Placement(*scales, source_width, source_height, left // 2, top // 2), new_height, new_width


def normalised(levels: NDArray[np.float64], how: Preprocessing) -> NDArray[np.float32]:
    """Return levels (..., 3) of 0 to 255 scaled and normalised by channel, rounded to float32 at each step."""
    scaled = (levels * how.scale).astype(np.float32)
    if how.mean == (0.0, 0.0, 0.0) and how.std == (1.0, 1.0, 1.0):
        return scaled
    mean, std = (np.array(values, dtype=np.float32) for values in (how.mean, how.std))
    return ((scaled - mean) / std).astype(np.float32)


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
    placement, new_height, new_width = placed((pixels.shape[0], pixels.shape[1]), height, width, how)
    top, left = placement.top, placement.left
    canvas = _resized(pixels, new_height, new_width, antialias=how.antialias)
    padding = ((top, height - new_height - top), (left, width - new_width - left), (0, 0))
    padded = canvas.shape[:2] != (height, width)
    if padded and how.pad_value is not None:
        canvas = np.pad(canvas, padding, constant_values=float(how.pad_value))
    scaled = normalised(canvas, how)
    if padded and how.pad_value is None:
        scaled = np.pad(scaled, padding)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], dtype=np.float32), placement


def preprocess_frames(frames: NDArray[np.uint8], how: Preprocessing) -> tuple[NDArray[np.float32], Placement]:
    """Do on the host what a graph with its preprocessing inside does: the reference of such graphs.

    Args:
        frames: (B, H, W, 3) uint8, channels in the order of ``how.in_graph``.
        how: describes a preprocessing inside a graph.

    Returns:
        The network's input (B, 3, height, width) and the place of every frame in it.
    """
    inside = how.in_graph
    assert inside is not None
    rgb = frames[..., ::-1] if inside.color == "BGR" else frames
    made = [preprocess(np.ascontiguousarray(frame), inside.height, inside.width, how) for frame in rgb]
    return np.concatenate([tensor for tensor, _ in made]), made[0][1]
