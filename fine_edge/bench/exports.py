"""Artifacts to be measured, exported where they are missing: each in a process of its own.

torch and what tracing leaves behind would otherwise stay in the process that measures, some GiB of it.
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

from fine_edge import command
from fine_edge.errors import BackendError, FineEdgeError, MissingExtraError
from fine_edge.export.artifacts import can_export, ensure_exported, existing
from fine_edge.export.request import ExportRequest
from fine_edge.zoo import catalog

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
    from fine_edge.export.plain import ensure_plain  # imports torch

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
            mend = "it may have taken more memory than this machine has: close other programs, or add swap"
            raise BackendError("the process that exported it was killed", where=request.model, mend=mend) from error


def _stay_with_parent() -> None:
    """End this process when it is told to or its parent has gone, and remove what is half-written."""
    command.end_tidily()
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
        raise FineEdgeError(error.what, where=error.where, mend=error.mend) from None
