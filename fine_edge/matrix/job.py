"""One model to run through all stages, as it is handed to the process that does."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.contract import Precision
from fine_edge.export.request import ExportRequest


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        model: name in the zoo.
        height, width: of the input, pixels.
        folder: where artifacts are, or are written to.
        photographs: how many take part in parity, besides an input of noise.
        threads: of ONNX Runtime; ``None`` leaves it to ONNX Runtime.
    """

    model: str
    height: int
    width: int
    folder: Path
    photographs: int = 2
    threads: int | None = None

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of the input, pixels."""
        return self.height, self.width

    def request(self, precision: Precision) -> ExportRequest:
        """The export that it needs."""
        return ExportRequest(self.model, precision=precision, height=self.height, width=self.width)

    def options(self) -> dict[str, Any]:
        """What its row depends on besides model and origin."""
        return {"height": self.height, "width": self.width, "photographs": self.photographs}

    def to_json(self) -> dict[str, Any]:
        """As the process gets it."""
        return {"model": self.model, **self.options(), "folder": str(self.folder), "threads": self.threads}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """Read it back."""
        return cls(**{**data, "folder": Path(data["folder"])})
