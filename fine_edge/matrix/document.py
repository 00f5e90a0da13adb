"""The matrix as a file and as a table. Every model of the catalogue has a row in the file from the start."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fine_edge
from fine_edge import console, files, machine
from fine_edge.contract import contract_path, read_contract
from fine_edge.errors import ArtifactError
from fine_edge.export.artifacts import existing
from fine_edge.files import read_json
from fine_edge.matrix.row import NOT_RUN, MatrixJob, MatrixRow
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
    "int8": Column("INT8", numeric=False),
}
_MOST_FAILURES = 3
LEGEND = (
    "Parity: against PyTorch, of the output nearest to its tolerance the difference and the tolerance, and how many"
    " detections were matched; FP16 is rounded after every operator.",
    "RTX: the FP16 file, compiled ahead of time for SM86 by TensorRT-RTX on this machine's CPU. Nothing ran on a GPU.",
    "INT8: the file that fine-edge quantize made, against FP32 on its golden pictures, and its kernels; - without one.",
)


@dataclass
class Matrix:
    """The rows by model, in the order of the catalogue, and their origin.

    Attributes:
        rows: by model.
        origin: see :func:`fine_edge.matrix.document.origin`.
        photographs: that took part in parity.
    """

    rows: dict[str, MatrixRow]
    origin: dict[str, Any]
    photographs: int

    @property
    def complete(self) -> bool:
        """Return whether every model was run."""
        return all(row.complete for row in self.rows.values())

    def to_json(self) -> dict[str, Any]:
        """Return the matrix as ``--json`` writes it."""
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
        files.write_text(path, json.dumps(self.to_json(), indent=1) + "\n")

    def table(self, models: list[str]) -> Table:
        """Return the table of some models; the whole reasons stand below it."""
        rows = [self.rows[model] for model in models]
        inputs = f"{self.photographs} photograph{'s' if self.photographs > 1 else ''} and noise"
        view = Table(
            f"{len(rows)} of the zoo's models, random weights, compared on {inputs}",
            [Column("model", numeric=False), Column("input"), *_TITLES.values()],
        )
        for row in rows:
            view.add(row.model, "x".join(map(str, row.input_hw)), *(row.cells[name] for name in _TITLES))
        view.notes = [*LEGEND, *(f"{row.model}: {row.note}" for row in rows if row.note), _summary(rows)]
        view.brief = _brief(rows)
        if any(row.source_sha256 not in ("", self.origin["source_sha256"]) for row in rows):
            changed = "The code was changed while this ran: its rows are not of one source."
            view.notes.append(changed)
            view.brief.append(changed)
        return view


def _brief(rows: list[MatrixRow]) -> list[str]:
    """Return why models fail, of many only the first, and how many others have remarks."""
    failures = [f"{row.model}: {row.note}" for row in rows if row.failed and row.note]
    remarks = sum(bool(row.note) and not row.failed for row in rows)
    more = len(failures) - _MOST_FAILURES
    return [
        *failures[:_MOST_FAILURES],
        *([f"{more} more failures: --explain."] if more > 0 else []),
        *([f"{remarks} models have remarks: --explain."] if remarks else []),
        _summary(rows),
    ]


def _summary(rows: list[MatrixRow]) -> str:
    failed = [row.model for row in rows if row.failed]
    left = [row.model for row in rows if not row.complete]
    text = f"{len(rows) - len(failed) - len(left)} of {len(rows)} models pass"
    text += f"; {len(failed)} fail: {', '.join(failed)}" if failed else ""
    return text + (f"; {len(left)} {NOT_RUN}: {', '.join(left)}" if left else "") + "."


_LIBRARIES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "scipy",
    "scikit-image",
    "torch",
    "torchvision",
    "transformers",
    "ultralytics",
    "tensorrt-rtx-cu12",
    "polygraphy",
)
# Folders whose source judges what an export made; what makes it has a hash of its own.
_JUDGES = ("engine", "matrix", "parity", "runners")


def source_sha256() -> str:
    """Return the hash of the code that makes graphs and of the code that judges them."""
    root = Path(fine_edge.__file__).parent
    digest = hashlib.sha256(machine.source_sha256().encode())
    for file in sorted(path for folder in _JUDGES for path in (root / folder).rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def libraries() -> dict[str, str]:
    """Return the installed versions of all libraries that take part, by distribution."""
    return {name: version for name in _LIBRARIES if (version := machine.version(name))}


def origin() -> dict[str, Any]:
    """Return the source, the libraries and the machine as they are now."""
    described = machine.describe()
    return {
        "source_sha256": source_sha256(),
        "libraries": libraries(),
        "machine": {key: described[key] for key in (*machine.IDENTITY, "python")},
    }


CACHE_FORMAT = 1


class Cache:
    """The rows that passed, by model, in ``OUT/matrix.cache``; a model that failed is always run again.

    A row depends on code, libraries, machine and options, and on the artifacts by what they hold: the two ONNX files,
    the golden file and the weights that they were exported from.

    Args:
        folder: of the artifacts.
        origin: of this run, see :func:`fine_edge.matrix.document.origin`.
    """

    def __init__(self, folder: Path, origin: dict[str, Any]) -> None:
        self._path = folder / "matrix.cache"
        self._folder = folder
        self._origin = origin
        self._entries = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        if not os.path.lexists(self._path):
            return {}
        try:
            data = read_json(self._path, ArtifactError)
            if data["format"] != CACHE_FORMAT:
                return {}
            return {str(model): dict(entry) for model, entry in data["rows"].items()}
        except (ArtifactError, ValueError, LookupError, TypeError, AttributeError) as error:
            console.warn(f"{self._path}: not readable ({type(error).__name__}), all rows are run anew")
            return {}

    def find(self, job: MatrixJob) -> MatrixRow | None:
        """Return a model's row if it passed with the same code, libraries, machine, options and artifacts."""
        entry = self._entries.get(job.model, {})
        with contextlib.suppress(ValueError, KeyError):
            row = MatrixRow.from_json(entry["row"])
            made_of = (entry["origin"], entry["options"], row.model, row.source_sha256)
            now = (self._origin, job.options(), job.model, self._origin["source_sha256"])
            if made_of == now and self._has_artifacts(job, row):
                return row
        return None

    def _has_artifacts(self, job: MatrixJob, row: MatrixRow) -> bool:
        """Return whether the files that the row was made from are there, whole."""
        paths = [existing(job.request(precision), self._folder) for precision in ("fp32", "fp16")]
        if paths[0] is None or paths[1] is None:
            return False
        try:
            artifacts = read_contract(contract_path(paths[0])).artifacts
        except ArtifactError:  # it was there a moment ago
            return False
        return {artifact.precision: artifact.sha256 for artifact in artifacts} == row.artifacts

    def keep(self, job: MatrixJob, row: MatrixRow) -> None:
        """Write a finished row, or forget what was known of a model that now fails.

        Raises:
            OutputError: when the folder cannot be written.
        """
        self._entries.pop(job.model, None)
        if not row.failed:
            self._entries[job.model] = {"origin": self._origin, "options": job.options(), "row": row.to_json()}
        files.write_text(self._path, json.dumps({"format": CACHE_FORMAT, "rows": self._entries}, indent=1) + "\n")
