"""The request of an export. It needs no torch, so that a bench can name the files that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.contract import NmsName, Precision, SamplingName, batches_in_name
from fine_edge.errors import ConfigError
from fine_edge.preprocess import Color
from fine_edge.zoo.catalog import find
from fine_edge.zoo.hf_processor import read_processor
from fine_edge.zoo.weights_file import checkpoint_files

# The folders of ``plugins/`` that an export can put into the graph.
PLUGINS = ("fine_modulate",)

# The deepest map of every backbone here has a stride of 32 pixels.
SIZE_MULTIPLE_PX = 32
MOST_SIDE_PX = 8192


def require_multiples(height: int, width: int) -> None:
    """Check that the sides of an input are multiples of the deepest stride, and at most :data:`MOST_SIDE_PX`.

    Raises:
        ConfigError: naming the nearest size that is.
    """
    for side, value in (("height", height), ("width", width)):
        if value > MOST_SIDE_PX:
            raise ConfigError(f"input {side} {value} is beyond {MOST_SIDE_PX} pixels", hint="use 640")
        if value < SIZE_MULTIPLE_PX or value % SIZE_MULTIPLE_PX:
            near = max(1, round(value / SIZE_MULTIPLE_PX)) * SIZE_MULTIPLE_PX
            raise ConfigError(
                f"input {side} {value} is not a positive multiple of {SIZE_MULTIPLE_PX}", hint=f"use {near}"
            )


def multiples_above(height: int, width: int) -> tuple[int, int]:
    """Return the smallest size of an input, in pixels, that shows all of a size that trainings take."""
    above_height, above_width = (-(-side // SIZE_MULTIPLE_PX) * SIZE_MULTIPLE_PX for side in (height, width))
    return above_height, above_width


@dataclass(frozen=True)
class ExportRequest:
    """One export: a model, its weights and the form of its graph.

    Attributes:
        model: name in the zoo.
        weights: checkpoint; ``None`` for seeded random weights.
        precision: precision of the requested artifact; an FP16 export also writes the FP32 file that it is made of. An
            INT8 file is no export: ``fine-edge quantize`` makes it.
        height: height of the input in pixels, a multiple of 32. 0 takes the one that the weights' folder states, else
            the detector's own, at which the paper counts it.
        width: width of the input, likewise.
        batch: images per inference, static.
        raw: whether to give dense outputs instead of postprocessed ones.
        seed: seed of the random weights.
        plugin: TensorRT plugin that replaces native operators; the files are then ``MODEL.plugin.*``.
        keep_fp32: nodes that stay FP32 in the FP16 file, besides those of every export (a keep-list).
        nms: how detectors suppress overlapping boxes: ``graph`` writes operators that every compiler has, ``onnx``
            a NonMaxSuppression, which TensorRT 10.7 reads as its INMSLayer.
        sampling: how the decoder of RT-DETR reads maps at computed positions: ``rows`` gathers rows of tokens, ``grid``
            is GridSample, as published boards have run it. The files of ``grid`` are ``MODEL.grid.*``.
        frame: height and width of the frames that the graph takes and preprocesses itself, pixels; ``None`` for a graph
            that takes preprocessed pictures. The files are then ``MODEL.frameHxW.*``.
        color: order of a frame's channels.
        batches: the smallest batch, the optimum and the largest of a graph that takes several, ``batch`` then being the
            largest; ``None`` for a graph that takes ``batch`` pictures. The files are then ``MODEL.batchMIN-MAX.*``, or
            ``MODEL.batchMIN-OPTIMUM-MAX.*`` where the optimum is not the largest.
    """

    model: str
    weights: Path | None = None
    precision: Precision = "fp32"
    height: int = 0
    width: int = 0
    batch: int = 1
    raw: bool = False
    seed: int = 0
    plugin: str | None = None
    keep_fp32: tuple[str, ...] = ()
    nms: NmsName = "graph"
    sampling: SamplingName = "rows"
    frame: tuple[int, int] | None = None
    color: Color = "RGB"
    batches: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        own_height, own_width = self._own_hw() if not (self.height and self.width) else (0, 0)
        # A frozen dataclass lets its own fields be filled in no other way.
        object.__setattr__(self, "height", self.height or own_height)
        object.__setattr__(self, "width", self.width or own_width)
        require_multiples(self.height, self.width)
        if self.batch < 1:
            raise ConfigError(f"batch {self.batch} is not positive", hint="use --batch 1")
        if self.plugin is not None and self.plugin not in PLUGINS:
            raise ConfigError(f"no plugin {self.plugin!r}", hint=f"known: {', '.join(PLUGINS)}")
        if self.batches is not None and not 1 <= self.batches[0] <= self.batches[1] <= self.batches[2] == self.batch:
            what = f"batches {':'.join(map(str, self.batches))} do not rise"
            raise ConfigError(what, where="--batch", hint="give MIN:MAX or MIN:OPTIMUM:MAX, such as 1:8")
        if self.sampling != "rows" and not find(self.model).detector.samples:
            what = f"{self.model} reads no map at computed positions"
            raise ConfigError(what, where="--sampling", hint="leave it out: it is for the decoder of RT-DETR")
        if self.nms != "graph" and (self.raw or not find(self.model).detector.suppresses):
            what = "dense outputs are not suppressed" if self.raw else f"{self.model} suppresses no boxes"
            raise ConfigError(what, where="--nms", hint=f"leave out --{'raw or --' if self.raw else ''}nms")
        self._require_frame()

    def _require_frame(self) -> None:
        """Refuse frames of an impossible size, and graphs whose outputs are not pixels of boxes."""
        if self.frame is None:
            return
        if not all(1 <= side <= MOST_SIDE_PX for side in self.frame):
            what = f"a frame of {self.frame[0]}x{self.frame[1]} is beyond {MOST_SIDE_PX} pixels a side"
            raise ConfigError(what, where="--frame", hint="give the size of the camera's frames, such as 1080x1920")
        task = find(self.model).detector.task
        if task in ("semantic", "panoptic"):
            raise ConfigError(
                f"{self.model} gives a class for each pixel of its input, and the frame's pixels are others",
                where="--frame",
                hint="export it without --frame: predict brings the map to the picture's size",
            )
        if self.raw:
            what = "dense outputs are no boxes in pixels, so they cannot be given in those of a frame"
            raise ConfigError(what, where="--frame", hint="leave out --raw")

    def _own_hw(self) -> tuple[int, int]:
        """Return the size that the checkpoint's folder states, else the detector's own."""
        detector = find(self.model).detector
        if self.weights is None or not detector.library.states_input_size:
            return detector.input_hw
        processor = read_processor(checkpoint_files(self.weights))
        if processor is None:
            return detector.input_hw
        height, width = processor.input_hw
        if height % SIZE_MULTIPLE_PX or width % SIZE_MULTIPLE_PX:
            raise ConfigError(
                f"its size of {height}x{width} pixels does not divide by {SIZE_MULTIPLE_PX}",
                where=self.weights,
                hint="choose another with --input-size",
            )
        return height, width

    def options(self) -> dict[str, Any]:
        """Return the options that shape the graph, as a contract records them."""
        plugin = {} if self.plugin is None else {"plugin": self.plugin}
        # Options at their defaults are left out: artifacts made before these options existed keep their identity.
        kept = {"keep_fp32": sorted(self.keep_fp32)} if self.keep_fp32 else {}
        nms = {} if self.nms == "graph" else {"nms": self.nms}
        # Written whatever it is: files made before there was a choice hold GridSample, and say nothing of it.
        sampling = {"sampling": self.sampling} if find(self.model).detector.samples else {}
        shape = {"height": self.height, "width": self.width, "batch": self.batch}
        frame = {} if self.frame is None else {"frame": list(self.frame), "color": self.color}
        batches = {} if self.batches is None else {"batches": list(self.batches)}
        # The attention stood in the model's name alone before there were others.
        changed = {name: value for name, value in find(self.model).options.changed().items() if name != "attention"}
        fine = {"fine": changed} if changed else {}
        return {**shape, "raw": self.raw, **plugin, **kept, **nms, **sampling, **frame, **batches, **fine}

    @property
    def input_hw(self) -> tuple[int, int]:
        """Return height and width of the input in pixels."""
        return self.height, self.width

    def stem(self) -> str:
        """Return the beginning of the names of all files of this export."""
        frame = f".frame{self.frame[0]}x{self.frame[1]}" if self.frame else ""
        batches = batches_in_name(self.batches) if self.batches else ""
        grid = ".grid" if self.sampling == "grid" else ""
        return f"{self.model}{'.plugin' if self.plugin else ''}{grid}{frame}{batches}"

    def onnx_name(self) -> str:
        """Return the file name of the artifact."""
        return f"{self.stem()}.onnx" if self.precision == "fp32" else f"{self.stem()}.{self.precision}.onnx"


def parse_frame(text: str) -> tuple[int, int]:
    """Parse ``1080x1920`` (height x width).

    Raises:
        ConfigError: for any other text.
    """
    if "x" not in text.lower():
        raise ConfigError(f"frame {text!r} is not understood", hint="use HEIGHTxWIDTH, such as 1080x1920")
    return parse_size(text)


def parse_batches(text: str) -> tuple[int, tuple[int, int, int] | None]:
    """Parse ``4``, ``1:8`` or ``1:4:8``: the largest batch, and the smallest, the optimum and the largest of several.

    Without an optimum, it is the largest.

    Raises:
        ConfigError: for any other text.
    """
    parts = text.split(":")
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        what = f"batch {text!r} is not understood"
        raise ConfigError(what, where="--batch", hint="give a number, MIN:MAX or MIN:OPTIMUM:MAX, such as 1:8")
    numbers = [int(part) for part in parts]
    largest = numbers[-1]
    optimum = numbers[1] if len(numbers) == 3 else largest
    return largest, (numbers[0], optimum, largest) if len(numbers) > 1 else None


def parse_size(text: str | None) -> tuple[int, int]:
    """Parse ``640`` or ``480x640`` (height x width); ``None`` gives zeros, which stand for the detector's own size.

    Raises:
        ConfigError: for any other text, and for sides of no pixel or of more than :data:`MOST_SIDE_PX`.
    """
    if text is None:
        return 0, 0
    parts = [part.strip() for part in text.lower().split("x")]
    hint = "use a side such as 640, or HEIGHTxWIDTH"
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"input size {text[:20]!r} is not understood", hint=hint)
    if any(len(part.lstrip("0")) > len(str(MOST_SIDE_PX)) or int(part) > MOST_SIDE_PX for part in parts):
        raise ConfigError(f"input size {text[:20]!r} is beyond {MOST_SIDE_PX} pixels a side", hint=hint)
    height, width = int(parts[0]), int(parts[-1])
    if not height or not width:
        raise ConfigError(f"input size {text!r} has no pixels", hint=hint)
    return height, width
