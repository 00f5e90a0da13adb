"""What is to be exported. Torch-free, so that a bench can name what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.contract import Precision
from fine_edge.errors import ConfigError
from fine_edge.zoo.catalog import find

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
    """

    model: str
    weights: Path | None = None
    precision: Precision = "fp32"
    height: int = 640
    width: int = 640
    batch: int = 1
    raw: bool = False
    seed: int = 0

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

    def options(self) -> dict[str, Any]:
        """What shapes the graph, as a contract records it."""
        return {"height": self.height, "width": self.width, "batch": self.batch, "raw": self.raw}

    def onnx_name(self) -> str:
        """File name of the artifact."""
        return f"{self.model}.fp16.onnx" if self.precision == "fp16" else f"{self.model}.onnx"


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
