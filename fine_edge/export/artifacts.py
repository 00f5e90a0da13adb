"""Artifacts on disk: reuse those that match a request exactly, and export the others.

This file needs no torch, which is imported only when something must be exported.
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
from dataclasses import replace
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

from fine_edge import command, console, machine
from fine_edge.contract import Contract, bound_contract, contract_path, read_contract
from fine_edge.errors import ArtifactError, BackendError, FineEdgeError, MissingExtraError
from fine_edge.export.request import ExportRequest
from fine_edge.files import sha256_of
from fine_edge.zoo import catalog
from fine_edge.zoo.weights_file import weights_sha256


def can_export() -> bool:
    """Return whether torch and transformers are installed."""
    return all(importlib.util.find_spec(package) for package in ("torch", "transformers"))


def _said(options: object) -> dict[str, Any]:
    """Return options as a person knows them: height and width as one size."""
    if not isinstance(options, dict):
        return {}
    size = f"{options.get('height')}x{options.get('width')}"
    return {"size": size} | {name: value for name, value in options.items() if name not in ("height", "width")}


def _other_options(contract: Contract, request: ExportRequest) -> str:
    before, asked = _said(contract.made_by.get("options")), _said(request.options())
    names = [name for name in (asked | before) if before.get(name) != asked.get(name)]
    return ", ".join(f"{name} {before.get(name, 'none')}, now {asked.get(name, 'none')}" for name in names)


def _other_weights(contract: Contract, request: ExportRequest) -> str | None:
    """Return the weights that existing files hold, where those are not the request's."""
    weights = contract.made_by["weights"]
    if request.weights is None:
        same = weights["source"] == "random" and weights.get("seed") == request.seed
    else:
        same = weights["source"] != "random" and weights.get("sha256") == weights_sha256(request.weights)
        # Weights that fill the whole model are the same whatever the seed, and their contract states none.
        if same and weights.get("seed", request.seed) != request.seed:
            return f"seed {weights['seed']} of what the checkpoint does not fill, now {request.seed}"
    if same:
        return None
    held = f"random weights (seed {weights.get('seed')})" if contract.random_weights else f"weights {_origin(contract)}"
    asked = f"random ones (seed {request.seed})" if request.weights is None else request.weights.name
    return f"{held}, now {asked}"


def _origin(contract: Contract) -> str:
    weights = contract.made_by["weights"]
    return str(weights.get("file", weights["source"]))


def _difference(contract: Contract, request: ExportRequest) -> str | None:
    """Return why existing files do not match a request; ``None`` when they do."""
    made_by = contract.made_by
    if contract.model != request.model or made_by.get("options") != request.options():
        return _other_options(contract, request)
    if other := _other_weights(contract, request):
        return other
    if can_export() and made_by.get("source_sha256") != machine.source_sha256():
        return "made by other code"
    return None


def existing(request: ExportRequest, folder: Path) -> Path | None:
    """Return the path of the artifact if it exists, is complete and matches the request; else ``None``."""
    path = folder / request.onnx_name()
    try:
        contract, artifact = bound_contract(path)
        golden = folder / contract.golden["file"]
        if artifact.precision != request.precision or sha256_of(golden) != contract.golden["sha256"]:
            return None
        return None if _difference(contract, request) else path
    except (ArtifactError, OSError, KeyError):
        return None


def _refuse_to_replace(request: ExportRequest, folder: Path, *, trained: bool) -> None:
    """Refuse to replace what an export cannot make again: a file of somebody's, and by default trained weights."""
    path = folder / request.onnx_name()
    if not contract_path(path).exists():
        _refuse_to_replace_foreign(request, folder)
        return
    try:
        contract = read_contract(contract_path(path))
    except ArtifactError:
        return
    if not trained and request.weights is None and not contract.random_weights:
        raise ArtifactError(
            f"the folder holds this model with trained weights ({_origin(contract)}), which an export with random"
            " ones would replace",
            where=path,
            hint="give --weights, the ONNX file itself, or another folder",
        )
    if difference := _difference(contract, request):
        console.remark(f"{path}: exporting again ({difference})")


def _refuse_to_replace_foreign(request: ExportRequest, folder: Path) -> None:
    """Refuse to replace an ONNX file that stands alone: an export writes contract and golden file with it."""
    if (folder / f"{request.stem()}.golden.npz").exists():
        return
    for precision in {"fp32", request.precision}:
        path = folder / replace(request, precision=precision).onnx_name()
        if path.exists():
            raise ArtifactError(
                "no contract and no golden file stand beside it, and an export would replace this file of somebody's",
                where=path,
                hint=f"name the file itself ({path}), move it, or give another --artifacts DIR",
            )


def _refuse_int8(request: ExportRequest, folder: Path) -> None:
    """Say what makes an INT8 file, which no export does."""
    if request.precision == "int8":
        raise ArtifactError(
            "there is no INT8 file of this model and these options, and an export makes none",
            where=folder / request.onnx_name(),
            hint=f"python -m fine_edge quantize {request.model} --images FOLDER --out {folder}",
        )


def ensure_exported(request: ExportRequest, folder: Path, *, replace_trained: bool = False) -> Path:
    """Return the path of the requested ONNX file; export it if it is missing, damaged or another one.

    Args:
        request: the export.
        folder: folder of the artifacts.
        replace_trained: whether random weights may replace trained ones.

    Raises:
        ArtifactError: when an export is needed and there is no torch, or when it would replace trained weights.
    """
    found = existing(request, folder)
    if found:
        return found
    _refuse_int8(request, folder)
    _refuse_to_replace(request, folder, trained=replace_trained)
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


# Time for removing half-written files after the parent process has ended.
_GRACE_S = 10.0


def exported(request: ExportRequest, folder: Path) -> Path:
    """Return the path of the requested ONNX file, as ``ensure_exported``; an export runs in a process of its own."""
    found = existing(request, folder)
    if found is None:
        _refuse_int8(request, folder)
    return found or _in_child(ensure_exported, request, folder)


def exported_plainly(request: ExportRequest, folder: Path) -> Path:
    """Export the model by its library's own exporter; always anew, as no contract says what an older file holds."""
    return _in_child(_ensure_plain, request, folder)


def require_library(request: ExportRequest, folder: Path, *, plain: bool) -> None:
    """Check early that the library for a necessary export is installed.

    Raises:
        MissingExtraError: when it is not.
    """
    library = catalog.find(request.model).detector.library
    if plain and not can_export():
        raise MissingExtraError("torch", "export")
    # A machine without torch uses the files that were copied to it; ensure_exported() names the missing ones.
    if can_export() and not importlib.util.find_spec(library.package) and (plain or not existing(request, folder)):
        raise MissingExtraError(library.package, library.extra)


def _ensure_plain(request: ExportRequest, folder: Path) -> Path:
    from fine_edge.export.exporter import ensure_plain  # imports torch

    return ensure_plain(request, folder)


def _in_child(export: Callable[[ExportRequest, Path], Path], request: ExportRequest, folder: Path) -> Path:
    """Run an export in a child process, so that its memory is free again afterwards."""
    # Spawned instead of forked: a copy of this process would hold its memory as well.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_start_child) as pool:
        try:
            return pool.submit(_with_plain_error, export, request, folder).result()
        except (KeyboardInterrupt, command.Terminated):
            for child in active_children():  # the pool would wait for it to finish
                child.terminate()
            raise
        except BrokenProcessPool as error:
            hint = "it may have taken more memory than this machine has: close other programs, or add swap"
            raise BackendError("the process that exported it was killed", where=request.model, hint=hint) from error


def _start_child() -> None:
    """Make this process end with SIGTERM or with its parent, and remove half-written files then."""
    command.raise_on_signals()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None  # it was spawned
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(143)


def _with_plain_error(export: Callable[[ExportRequest, Path], Path], request: ExportRequest, folder: Path) -> Path:
    try:
        return export(request, folder)
    except FineEdgeError as error:
        # Subclasses with arguments of their own may not survive pickling; this one does, and prints the same.
        raise FineEdgeError(error.what, where=error.where, hint=error.hint) from None
