"""What is to be exported. Torch-free, so that a bench can name what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.contract import Precision
from fine_edge.errors import ConfigError
from fine_edge.zoo.catalog import find

PLUGINS = ("fine_modulate",)
"""Folders of ``plugins/`` that an export can put into the graph."""

# RT-DETR's deepest map has a stride of 32 pixels.
SIZE_MULTIPLE_PX = 32


@dataclass(frozen=True)
class ExportRequest:
    """One export: which model, which weights, which graph.

    Attributes:
        model: name in the zoo.
        weights: checkpoint; ``None`` for seeded random weights.
        precision: of the artifact asked for; an FP16 export writes the FP32 file it comes from as well.
        height: of the input, pixels, a multiple of 32.
        width: of the input, pixels, a multiple of 32.
        batch: images per inference, static.
        raw: logits and normalised boxes instead of labels, boxes in pixels and scores.
        seed: of the random weights.
        plugin: TensorRT plugin in the place of native operators; the files are then ``MODEL.plugin.*``.
        keep_fp32: nodes that stay FP32 in the FP16 file, besides those of every export (a keep-list).
    """

    model: str
    weights: Path | None = None
    precision: Precision = "fp32"
    height: int = 640
    width: int = 640
    batch: int = 1
    raw: bool = False
    seed: int = 0
    plugin: str | None = None
    keep_fp32: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        find(self.model)
        for side, value in (("height", self.height), ("width", self.width)):
            if value < SIZE_MULTIPLE_PX or value % SIZE_MULTIPLE_PX:
                near = max(1, round(value / SIZE_MULTIPLE_PX)) * SIZE_MULTIPLE_PX
                raise ConfigError(
                    f"input {side} {value} is not a positive multiple of {SIZE_MULTIPLE_PX}", mend=f"use {near}"
                )
        if self.batch < 1:
            raise ConfigError(f"batch {self.batch} is not positive", mend="use --batch 1")
        if self.plugin is not None and self.plugin not in PLUGINS:
            raise ConfigError(f"no plugin {self.plugin!r}", mend=f"known: {', '.join(PLUGINS)}")

    def options(self) -> dict[str, Any]:
        """What shapes the graph, as a contract records it."""
        plugin = {} if self.plugin is None else {"plugin": self.plugin}
        # Only where given: artifacts made before these options existed keep their identity.
        kept = {"keep_fp32": sorted(self.keep_fp32)} if self.keep_fp32 else {}
        return {"height": self.height, "width": self.width, "batch": self.batch, "raw": self.raw, **plugin, **kept}

    def stem(self) -> str:
        """What the names of all files of this export begin with."""
        return self.model if self.plugin is None else f"{self.model}.plugin"

    def onnx_name(self) -> str:
        """File name of the artifact."""
        return f"{self.stem()}.fp16.onnx" if self.precision == "fp16" else f"{self.stem()}.onnx"


def parse_size(text: str) -> tuple[int, int]:
    """``640`` or ``480x640`` (height x width) to (height, width).

    Raises:
        ConfigError: when it is neither.
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.strip().isdigit() for part in parts):
        raise ConfigError(f"input size {text!r} is not understood", mend="use a side such as 640, or HEIGHTxWIDTH")
    height, width = int(parts[0]), int(parts[-1])
    return height, width
