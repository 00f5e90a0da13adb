"""One row of the matrix: a model, what each stage found, and why one failed.

A cell is a figure or a text: ``ok`` and what was found, ``fails: REASON``, :data:`UNREACHED` behind a stage that
failed, :data:`NOT_RUN` before anything was tried, :data:`ABSENT` where this machine lacks the compiler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fine_edge.contract import Precision
from fine_edge.export.request import ExportRequest
from fine_edge.fields import Amount, Count, from_data

MatrixCell = str | int | float

NOT_RUN = "not run yet"
UNREACHED = "-"
ABSENT = "no compiler here"
OK = "ok"
_FAILS = "fails: "
# What a table can hold in a cell and below itself; libraries write pages.
_LONGEST_REASON, _LONGEST_NOTE = 56, 600

# Stages in the order that they are run in, and the cells that each fills; the first says whether it passed.
STAGES: dict[str, tuple[str, ...]] = {
    "export": ("export",),
    "rules": ("rules",),
    "parity_fp32": ("parity_fp32",),
    "parity_fp16": ("parity_fp16",),
    "rtx": ("rtx_kernels", "fused_attention", "activation_mib"),
    "int8": ("int8",),
}
CELLS = tuple(cell for cells in STAGES.values() for cell in cells)


def fails(reason: str) -> str:
    """Return a failing cell, with its reason in short."""
    return _FAILS + _one_line(reason, _LONGEST_REASON)


def _one_line(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


@dataclass(frozen=True)
class MatrixRow:
    """The row of one model: a cell for each stage, and what the cells come from.

    Attributes:
        model: name in the zoo.
        input_hw: height and width of the input, pixels.
        export: whether both ONNX files could be written.
        rules: errors and warnings of the graph rules in both.
        parity_fp32, parity_fp16: against PyTorch: the output nearest to its tolerance, or beyond it.
        rtx_kernels: of the FP16 file, compiled by TensorRT-RTX for SM86.
        fused_attention: attentions that became one kernel.
        activation_mib: memory for activations, MiB.
        int8: of the INT8 file in the folder, against FP32 on its own golden pictures, and its kernels;
            :data:`UNREACHED` where nobody has quantised the model.
        note: the whole reason of each failing cell, and what else there is to say.
        artifacts: sha256 of the ONNX files by precision.
        source_sha256: of the code that made and judged them, see :func:`fine_edge.matrix.document.source_sha256`.
        seconds: of each stage.
        finished_at: UTC, ISO 8601; empty while stages are missing.
    """

    model: str
    input_hw: tuple[Count, Count]
    export: MatrixCell = NOT_RUN
    rules: MatrixCell = NOT_RUN
    parity_fp32: MatrixCell = NOT_RUN
    parity_fp16: MatrixCell = NOT_RUN
    rtx_kernels: MatrixCell = NOT_RUN
    fused_attention: MatrixCell = NOT_RUN
    activation_mib: MatrixCell = NOT_RUN
    int8: MatrixCell = NOT_RUN
    note: str = ""
    artifacts: Mapping[str, str] = field(default_factory=dict)
    source_sha256: str = ""
    seconds: Mapping[str, Amount] = field(default_factory=dict)
    finished_at: str = ""

    @property
    def cells(self) -> dict[str, MatrixCell]:
        """Return the cells by name, in the order of the stages."""
        return {name: getattr(self, name) for name in CELLS}

    @property
    def failed(self) -> bool:
        """Return whether a stage failed."""
        return any(str(cell).startswith(_FAILS) for cell in self.cells.values())

    @property
    def complete(self) -> bool:
        """Return whether nothing is left to run."""
        return NOT_RUN not in self.cells.values()

    @property
    def lacks_compiler(self) -> bool:
        """Return whether the compiler's cells are empty because it is not installed."""
        return self.rtx_kernels == ABSENT

    def with_note(self, note: str) -> MatrixRow:
        """Return the row with one more remark."""
        return replace(self, note="; ".join(filter(None, (self.note, note))))

    def filled(self, stage: str, *values: MatrixCell, note: str = "") -> MatrixRow:
        """Return the row with a stage's cells; cells without a value are unreached."""
        names = STAGES[stage]
        padded = (*values, *[UNREACHED] * (len(names) - len(values)))
        cells = dict(zip(names, padded, strict=True))
        return replace(self, **cells).with_note(note)  # type: ignore[arg-type]  # names of cells, checked by a test

    def failing(self, stage: str, reason: str, details: str = "") -> MatrixRow:
        """Return the row with a stage that failed."""
        return self.filled(stage, fails(reason), note=f"{stage}: {_one_line(details or reason, _LONGEST_NOTE)}")

    def given_up(self) -> MatrixRow:
        """Return the row with all stages that were not run marked as unreached."""
        unreached = {name: UNREACHED for name, cell in self.cells.items() if cell == NOT_RUN}
        return replace(self, **unreached)  # type: ignore[arg-type]  # as in filled()

    def to_json(self) -> dict[str, Any]:
        """Return the row as the matrix holds it."""
        return {
            "model": self.model,
            **self.cells,
            "note": self.note,
            "input_size": list(self.input_hw),
            "artifacts": dict(self.artifacts),
            "source_sha256": self.source_sha256,
            "seconds": dict(self.seconds),
            "finished_at": self.finished_at,
        }

    @classmethod
    def from_json(cls, data: Any) -> MatrixRow:
        """Read the row back.

        Raises:
            ValueError: when it is not a row.
        """
        sized = {**data, "input_hw": data.get("input_size")} if isinstance(data, dict) else data
        return from_data(cls, sized, complete=True)


@dataclass(frozen=True)
class MatrixJob:
    """The order to run one model's stages.

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
        """Return the height and width of the input in pixels."""
        return self.height, self.width

    def request(self, precision: Precision) -> ExportRequest:
        """Return the request of the export that the stages need."""
        return ExportRequest(self.model, precision=precision, height=self.height, width=self.width)

    def options(self) -> dict[str, Any]:
        """Return what the row depends on besides model and origin."""
        return {"height": self.height, "width": self.width, "photographs": self.photographs}
