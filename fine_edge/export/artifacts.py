"""Artifacts on disk: use what is there if it is exactly what was asked for, export it otherwise.

Torch-free: torch is imported only when something must be exported.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

from fine_edge import command, console, machine
from fine_edge.contract import Contract, bound_contract, contract_path, read_contract
from fine_edge.errors import ArtifactError, BackendError, FineEdgeError, MissingExtraError
from fine_edge.export.request import ExportRequest
from fine_edge.files import sha256_of
from fine_edge.zoo import catalog
from fine_edge.zoo.weights_file import weights_sha256


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
    if can_export() and made_by.get("source_sha256") != machine.source_sha256():
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
            hint="give --weights, the ONNX file itself, or another folder",
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
            hint=f"on a host with torch: make onnx MODEL={request.model}, and copy its engines/{request.stem()}.* here;"
            " or pip install 'fine-edge[export]'",
        )
    from fine_edge.export.exporter import export

    with console.status(f"exporting {request.model} {request.precision}"):
        return export(request, folder)


# Time for removing what is half-written once the parent has gone.
_GRACE_S = 10.0
# What a family's exports need besides torch, and the extra that brings it.
_LIBRARIES: dict[catalog.FamilyName, tuple[str, str]] = {
    "rtdetr": ("transformers", "export"),
    "torchvision": ("torchvision", "export"),
    "segmentation": ("torchvision", "export"),
    "yolo": ("ultralytics", "yolo"),
}


def exported(request: ExportRequest, folder: Path) -> Path:
    """Path of the requested ONNX below ``folder``, exported now unless it is there; raises as ``ensure_exported``."""
    return existing(request, folder) or _apart(ensure_exported, request, folder)


def exported_plainly(request: ExportRequest, folder: Path) -> Path:
    """The model as its library exports it, always made anew: without a contract nothing says what a file holds."""
    return _apart(_ensure_plain, request, folder)


def require_library(request: ExportRequest, folder: Path, *, plain: bool) -> None:
    """Find out early whether what must be exported can be.

    Raises:
        MissingExtraError: when the library of the model is not installed.
    """
    package, extra = _LIBRARIES.get(catalog.find(request.model).family, ("torch", "export"))
    if plain and not can_export():
        raise MissingExtraError("torch", "export")
    # A machine without torch is content with the files that were brought, and says itself which are missing.
    if can_export() and not importlib.util.find_spec(package) and (plain or not existing(request, folder)):
        raise MissingExtraError(package, extra)


def _ensure_plain(request: ExportRequest, folder: Path) -> Path:
    from fine_edge.export.exporter import ensure_plain  # imports torch

    return ensure_plain(request, folder)


def _apart(export: Callable[[ExportRequest, Path], Path], request: ExportRequest, folder: Path) -> Path:
    # Spawned, not forked: a copy of this process would hold its memory as well.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_stay_with_parent) as pool:
        try:
            return pool.submit(_sent_home, export, request, folder).result()
        except (KeyboardInterrupt, command.Terminated):
            for child in active_children():  # the pool would wait for it to finish
                child.terminate()
            raise
        except BrokenProcessPool as error:
            hint = "it may have taken more memory than this machine has: close other programs, or add swap"
            raise BackendError("the process that exported it was killed", where=request.model, hint=hint) from error


def _stay_with_parent() -> None:
    """End this process when it is told to or its parent has gone, and remove what is half-written."""
    command.raise_on_signals()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # it was spawned
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(143)


def _sent_home(export: Callable[[ExportRequest, Path], Path], request: ExportRequest, folder: Path) -> Path:
    try:
        return export(request, folder)
    except FineEdgeError as error:
        # Errors of other kinds need not survive pickling; this one does, and reads the same.
        raise FineEdgeError(error.what, where=error.where, hint=error.hint) from None
