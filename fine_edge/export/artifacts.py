"""Artifacts on disk: use what is there if it is exactly what was asked for, export it otherwise.

Torch-free: torch is imported only when something must be exported.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import fine_edge
from fine_edge import console
from fine_edge.contract import Contract, bound_contract, contract_path, read_contract
from fine_edge.errors import ArtifactError
from fine_edge.export.request import ExportRequest
from fine_edge.files import sha256_of
from fine_edge.zoo.weights_file import weights_sha256

# Folders whose source decides what an exported graph looks like.
_SOURCES = ("fusion", "postprocess", "zoo", "export", "graph")


def source_sha256() -> str:
    """Hash of the code that makes graphs, so that a changed lowering re-exports instead of reusing old files."""
    root = Path(fine_edge.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(path for folder in _SOURCES for path in (root / folder).rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def can_export() -> bool:
    """Whether torch and transformers are installed."""
    return all(importlib.util.find_spec(package) for package in ("torch", "transformers"))


def _difference(contract: Contract, request: ExportRequest) -> str | None:
    """Why existing files are not what the request asks for; ``None`` when they are."""
    made_by = contract.made_by
    if contract.model != request.model or made_by.get("options") != request.options():
        return "other options"
    weights = made_by["weights"]
    if request.weights is None:
        if weights["source"] != "random" or weights.get("seed") != request.seed:
            return "other weights"
    elif weights["source"] == "random" or weights.get("sha256") != weights_sha256(request.weights):
        return "other weights"
    if can_export() and made_by.get("source_sha256") != source_sha256():
        return "made by other code"
    return None


def existing(request: ExportRequest, folder: Path) -> Path | None:
    """The artifact if it is there, whole, and what the request asks for."""
    path = folder / request.onnx_name()
    try:
        contract, artifact = bound_contract(path)
        golden = folder / contract.golden["file"]
        if artifact.precision != request.precision or sha256_of(golden) != contract.golden["sha256"]:
            return None
        return None if _difference(contract, request) else path
    except (ArtifactError, OSError, KeyError):
        return None


def _refuse_to_replace_trained(request: ExportRequest, folder: Path) -> None:
    """Random weights, which nobody asked for by name, must not push trained ones out of their folder."""
    path = folder / request.onnx_name()
    try:
        weights = read_contract(contract_path(path)).made_by["weights"]
    except ArtifactError:
        return
    if request.weights is None and weights["source"] != "random":
        raise ArtifactError(
            f"the folder holds this model with trained weights ({weights.get('file', weights['source'])}), which an"
            " export with random ones would replace",
            where=path,
            mend="give --weights, the ONNX file itself, or another folder",
        )


def ensure_exported(request: ExportRequest, folder: Path, *, replace_trained: bool = False) -> Path:
    """Path of the requested ONNX, exported now if it is missing, broken or not what was asked for.

    Args:
        request: what is wanted.
        folder: where it is, or is written to.
        replace_trained: export with random weights even where that replaces trained ones.

    Raises:
        ArtifactError: when it would have to be exported on a machine without torch, or would replace trained weights.
    """
    found = existing(request, folder)
    if found:
        return found
    if not replace_trained:
        _refuse_to_replace_trained(request, folder)
    if not can_export():
        raise ArtifactError(
            "this ONNX is not here, or is another, and there is no torch here to export it",
            where=folder / request.onnx_name(),
            mend=f"on a host with torch: make onnx MODEL={request.model}, and copy its engines/{request.stem()}.* here;"
            " or pip install 'fine-edge[export]'",
        )
    from fine_edge.export.exporter import export

    with console.status(f"exporting {request.model} {request.precision}"):
        return export(request, folder)
