"""The matrix as a file and as a table. Every model of the catalogue has a row in the file from the start."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fine_edge import atomic, machine
from fine_edge.matrix.row import NOT_RUN, Row
from fine_edge.table import Column, Table

FORMAT = 1
_TITLES = {
    "export": Column("export", numeric=False),
    "rules": Column("rules", numeric=False),
    "parity_fp32": Column("parity FP32", numeric=False),
    "parity_fp16": Column("parity FP16", numeric=False),
    "rtx_kernels": Column("RTX kernels"),
    "fused_attention": Column("fused attentions"),
    "activation_mib": Column("activation (MiB)"),
}
LEGEND = (
    "Parity: against PyTorch, of the output nearest to its tolerance the difference and the tolerance, and how many"
    " detections were matched; FP16 is rounded after every operator.",
    "RTX: the FP16 file, compiled ahead of time for SM86 by TensorRT-RTX on this machine's CPU. Nothing ran on a GPU.",
)


@dataclass
class Matrix:
    """Rows by model, in the order of the catalogue, and what they come from.

    Attributes:
        rows: by model.
        origin: see :func:`fine_edge.matrix.origin.origin`.
        photographs: that took part in parity.
    """

    rows: dict[str, Row]
    origin: dict[str, Any]
    photographs: int

    @property
    def complete(self) -> bool:
        """Whether every model was run."""
        return all(row.complete for row in self.rows.values())

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` writes it."""
        return {
            "format": FORMAT,
            "complete": self.complete,
            "not_run": [model for model, row in self.rows.items() if not row.complete],
            "written_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine.describe(),
            "libraries": self.origin["libraries"],
            "source_sha256": self.origin["source_sha256"],
            "photographs": self.photographs,
            "weights": "random, seed 0",
            "rtx_target": "sm86",
            "rows": [row.to_json() for row in self.rows.values()],
        }

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        atomic.write_text(path, json.dumps(self.to_json(), indent=1) + "\n")

    def table(self, models: list[str]) -> Table:
        """The rows of some models; the whole reasons stand below."""
        rows = [self.rows[model] for model in models]
        inputs = f"{self.photographs} photograph{'s' if self.photographs > 1 else ''} and noise"
        view = Table(
            f"{len(rows)} of the zoo's models, random weights, compared on {inputs}",
            [Column("model", numeric=False), Column("input"), *_TITLES.values()],
        )
        for row in rows:
            view.add(row.model, "x".join(map(str, row.input_hw)), *(row.cells[name] for name in _TITLES))
        view.notes = [*LEGEND, *(f"{row.model}: {row.note}" for row in rows if row.note), _summary(rows)]
        if any(row.source_sha256 not in ("", self.origin["source_sha256"]) for row in rows):
            view.notes.append("The code was changed while this ran: its rows are not of one source.")
        return view


def _summary(rows: list[Row]) -> str:
    failed = [row.model for row in rows if row.failed]
    left = [row.model for row in rows if not row.complete]
    text = f"{len(rows) - len(failed) - len(left)} of {len(rows)} models pass"
    text += f"; {len(failed)} fail: {', '.join(failed)}" if failed else ""
    return text + (f"; {len(left)} {NOT_RUN}: {', '.join(left)}" if left else "") + "."
