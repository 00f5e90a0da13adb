"""The identity of an ONNX model: one hash of its file and of every file that it keeps weights in.

Contracts, manifests, records and evaluations name a model by this hash only, and it decides whether an artifact that
exists can be used again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from fine_edge.errors import NO_ONNX, ArtifactError
from fine_edge.files import file_size, sha256_of_files

# The key under which a tensor names its weight file. A model without these bytes keeps all weights inside.
_MARK = b"location"


def identity_of(path: Path) -> str:
    """Return the hash that identifies an ONNX model.

    It is the sha256 of the file when all weights are inside, and a hash of all files otherwise. Only a file that may
    name others is parsed.

    Raises:
        ArtifactError: when the file is missing or no regular file, or a file that it names cannot be read.
    """
    file_size(path, ArtifactError, hint=NO_ONNX)
    digest, may_name_others = _scanned(path)
    if not may_name_others:
        return digest
    # Imported here, because a device hashes many models and parses few: onnx takes a while to import.
    from fine_edge.graph.model_file import read_model, weight_files

    others = weight_files(read_model(path, weights=False), path)
    return sha256_of_files({"": path, **others}) if others else digest


def _scanned(path: Path) -> tuple[str, bool]:
    """Return the sha256 of a file, and whether the mark is in it."""
    digest, tail, found = hashlib.sha256(), b"", False
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
            found = found or _MARK in tail + block[: len(_MARK)] or _MARK in block
            tail = block[-len(_MARK) :]
    return digest.hexdigest(), found
