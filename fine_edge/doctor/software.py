"""Checks of Python and of the packages that backends need, by their metadata; nothing is imported."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fine_edge import machine
from fine_edge.contract import TENSORRT
from fine_edge.engine.platform import is_installed
from fine_edge.jetson.board import Board

Status = Literal["ok", "warn", "fail", "absent"]
"""``fail``: needed on this machine, and missing or broken. ``absent``: not installed, and not needed here."""


@dataclass(frozen=True)
class Check:
    """One line of the doctor's page."""

    name: str
    status: Status
    found: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the object that ``--json`` prints."""
        return dict(vars(self))


@dataclass(frozen=True)
class Diagnosis:
    """The doctor's page."""

    machine: dict[str, Any]
    checks: tuple[Check, ...]
    backends: tuple[Check, ...]

    @property
    def is_fit(self) -> bool:
        """Whether a backend works and nothing that is needed on this machine is missing or broken."""
        broken = any(check.status == "fail" for check in (*self.checks, *self.backends))
        return not broken and any(backend.status == "ok" for backend in self.backends)

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints: ``machine``, ``checks``, and ``backends`` by name."""
        return {
            "machine": self.machine,
            "checks": [check.to_json() for check in self.checks],
            "backends": {
                backend.name: {"status": backend.status, "found": backend.found, "hint": backend.hint}
                for backend in self.backends
            },
        }


GET_TENSORRT = (
    f"TensorRT {TENSORRT} comes with NVIDIA's L4T archive (Python 3.10) or the 24.12 container (Python 3.12):"
    " docker/README.md"
)
# Names of the wheels: of NVIDIA's archive and containers, and of PyPI.
_TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")


def software(board: Board) -> Iterator[Check]:
    """Yield checks of Python, TensorRT, and the other packages that this kind of machine needs."""
    yield _python()
    yield _tensorrt(board)
    yield _package("ONNX Runtime", "onnxruntime", "onnxruntime", "pip install onnxruntime")
    if board.is_jetson:
        yield _package("pycuda", "pycuda", "pycuda", "pip install 'fine-edge[device]', with nvcc on PATH")
        yield _package("Polygraphy", "polygraphy", "polygraphy", "pip install 'fine-edge[device]'")
        return
    on_x86 = platform.machine() in ("x86_64", "AMD64")
    rtx = "pip install 'fine-edge[rtx]'" if on_x86 else "there is none for this processor: use an x86-64 machine"
    yield _package("TensorRT-RTX", "tensorrt_rtx", "tensorrt-rtx-cu12", rtx)
    yield _package("Polygraphy", "polygraphy", "polygraphy", "pip install 'fine-edge[rtx]'")
    yield _package("PyTorch", "torch", "torch", "pip install 'fine-edge[export]'")


def _python() -> Check:
    found = f"{platform.python_version()} ({platform.machine()})"
    if (3, 10) <= sys.version_info < (3, 14):
        return Check("Python", "ok", found)
    return Check("Python", "fail", found, "use Python 3.10 to 3.13: make setup PYTHON=python3.10")


def _package(name: str, module: str, package: str, hint: str) -> Check:
    if not is_installed(module):
        return Check(name, "absent", "not installed", hint)
    return Check(name, "ok", machine.version(package) or "installed, version unknown")


def _tensorrt(board: Board) -> Check:
    if not is_installed("tensorrt"):
        if board.is_jetson:
            return Check("TensorRT", "fail", "not installed", GET_TENSORRT)
        return Check("TensorRT", "absent", "not installed", "nothing to do here: engines are built on the Jetson")
    version = next((found for package in _TENSORRT_PACKAGES if (found := machine.version(package))), None)
    if version is None:
        return Check("TensorRT", "warn", "installed, version unknown", GET_TENSORRT)
    if _release(version) < _release(TENSORRT):
        shipped = "; JetPack 6.1 and 6.2 ship 10.3" if _release(version) == (10, 3) else ""
        return Check("TensorRT", "warn", f"{version}, older than {TENSORRT}{shipped}", GET_TENSORRT)
    return Check("TensorRT", "ok", version)


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
