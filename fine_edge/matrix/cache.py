"""Rows that are done, kept beside the artifacts they speak of, so that a second run goes on where one stopped."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from fine_edge import atomic, console
from fine_edge.contract import contract_path, read_contract
from fine_edge.errors import ArtifactError
from fine_edge.export.artifacts import existing
from fine_edge.files import read_json
from fine_edge.matrix.job import Job
from fine_edge.matrix.row import Row

FORMAT = 1


class Cache:
    """Passed rows by model, in ``OUT/matrix.cache``; what failed is always tried again.

    A row depends on code, libraries, machine and options, and on the artifacts by what they hold: the two ONNX files,
    the golden file and the weights that they were exported from.

    Args:
        folder: of the artifacts.
        origin: of this run, see :func:`fine_edge.matrix.origin.origin`.
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
            if data["format"] != FORMAT:
                return {}
            return {str(model): dict(entry) for model, entry in data["rows"].items()}
        except (ArtifactError, ValueError, LookupError, TypeError, AttributeError) as error:
            console.warn(f"{self._path}: not readable ({type(error).__name__}), all rows are run anew")
            return {}

    def find(self, job: Job) -> Row | None:
        """The row of a model if it passed with the same code, libraries, machine, options and artifacts."""
        entry = self._entries.get(job.model, {})
        with contextlib.suppress(ValueError, KeyError, TypeError):
            row = Row.from_json(entry["row"])
            made_of = (entry["origin"], entry["options"], row.model, row.source_sha256)
            now = (self._origin, job.options(), job.model, self._origin["source_sha256"])
            if made_of == now and self._has_artifacts(job, row):
                return row
        return None

    def _has_artifacts(self, job: Job, row: Row) -> bool:
        """Whether the very files that the row speaks of are there, whole."""
        paths = [existing(job.request(precision), self._folder) for precision in ("fp32", "fp16")]
        if paths[0] is None or paths[1] is None:
            return False
        try:
            artifacts = read_contract(contract_path(paths[0])).artifacts
        except ArtifactError:  # it was there a moment ago
            return False
        return {artifact.precision: artifact.sha256 for artifact in artifacts} == row.artifacts

    def keep(self, job: Job, row: Row) -> None:
        """Write a finished row, or forget what was known of a model that now fails.

        Raises:
            OutputError: when the folder cannot be written.
        """
        self._entries.pop(job.model, None)
        if not row.failed:
            self._entries[job.model] = {"origin": self._origin, "options": job.options(), "row": row.to_json()}
        atomic.write_text(self._path, json.dumps({"format": FORMAT, "rows": self._entries}, indent=1) + "\n")
