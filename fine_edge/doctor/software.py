"""Checks of Python and of the packages that backends need, by their metadata; nothing is imported."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fine_edge import machine
from fine_edge.contract import TENSORRT
from fine_edge.engine.platform import is_installed, release_of, runs_on_orin
from fine_edge.jetson.board import Board

# ``fail``: needed on this machine, and missing or broken. ``absent``: not installed, and not needed here.
Status = Literal["ok", "warn", "fail", "absent"]


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


@dataclass(frozen=True)
class JetPack:
    """A JetPack and what its system has.

    Attributes:
        name: as NVIDIA calls it.
        l4t: the first release of Jetson Linux that it counts from, up to the next JetPack's.
        tensorrt: version of TensorRT.
        cuda: version of CUDA.
        python: version of Python, and of the bindings of this TensorRT.
        get_tensorrt: how a board with it gets a TensorRT that fine-edge supports.
        hint: what to do about a JetPack that fine-edge does not support; empty for one that it does.
    """

    name: str
    l4t: tuple[int, int]
    tensorrt: str
    cuda: str
    python: str
    get_tensorrt: str
    hint: str = ""


_BY_ARCHIVE = (
    f"TensorRT {TENSORRT} comes with NVIDIA's L4T archive (Python 3.10) or the 24.12 container (Python 3.12):"
    " docker/README.md"
)
_BY_APT = "sudo apt install nvidia-jetpack brings 10.16 and its Python module; or docker/Dockerfile.jetson-jp72"
_FLASH = "flash JetPack 6.2 or 7.2"
# Facts of NVIDIA's release notes and of boards; nothing of fine-edge has run on 7.2.
JETPACKS = (
    JetPack("5", (34, 0), "8", "11.4", "3.8", _FLASH, _FLASH),
    JetPack("6.0", (36, 0), "8.6", "12.2", "3.10", _FLASH, _FLASH),
    JetPack("6.1 or 6.2", (36, 4), "10.3", "12.6", "3.10", _BY_ARCHIVE),
    JetPack(
        "7.0 or 7.1", (38, 0), "10.13", "13.0", "3.12", _FLASH, f"it is for Thor and has no code for Orin: {_FLASH}"
    ),
    JetPack("7.2", (39, 2), "10.16.2", "13.2", "3.12", _BY_APT),
)


def jetpack_of(board: Board) -> JetPack | None:
    """Return the JetPack of a board's system; ``None`` where L4T is unknown or older than all known ones."""
    l4t = release_of(board.l4t or "")
    return next((jetpack for jetpack in reversed(JETPACKS) if l4t >= jetpack.l4t), None)


def get_tensorrt(board: Board) -> str:
    """Return how this board gets a TensorRT that fine-edge supports; JetPack 6's way where the JetPack is unknown."""
    jetpack = jetpack_of(board)
    return jetpack.get_tensorrt if jetpack else _BY_ARCHIVE


# Names of the wheels: of NVIDIA's archive and containers, and of PyPI.
_TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")


def software(board: Board) -> Iterator[Check]:
    """Yield checks of Python, TensorRT, and the other packages that this kind of machine needs."""
    jetpack = jetpack_of(board)
    if jetpack and board.is_jetson:
        yield _jetpack(jetpack, str(board.l4t))
    yield _python(jetpack)
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


def _jetpack(jetpack: JetPack, l4t: str) -> Check:
    has = f"TensorRT {jetpack.tensorrt}, CUDA {jetpack.cuda}, Python {jetpack.python}"
    return Check("JetPack", "warn" if jetpack.hint else "ok", f"{jetpack.name} (L4T {l4t}): {has}", jetpack.hint)


def _python(jetpack: JetPack | None) -> Check:
    found = f"{platform.python_version()} ({platform.machine()})"
    if (3, 10) <= sys.version_info < (3, 14):
        return Check("Python", "ok", found)
    version = jetpack.python if jetpack and not jetpack.hint else "3.10"
    return Check("Python", "fail", found, f"use Python 3.10 to 3.13: make setup PYTHON=python{version}")


def _package(name: str, module: str, package: str, hint: str) -> Check:
    if not is_installed(module):
        return Check(name, "absent", "not installed", hint)
    return Check(name, "ok", machine.version(package) or "installed, version unknown")


def _tensorrt(board: Board) -> Check:
    get = get_tensorrt(board)
    if not is_installed("tensorrt"):
        if board.is_jetson:
            return Check("TensorRT", "fail", "not installed", get)
        return Check("TensorRT", "absent", "not installed", "nothing to do here: engines are built on the Jetson")
    package = next((name for name in _TENSORRT_PACKAGES if machine.version(name)), None)
    version = machine.version(package) if package else None
    if version is None:
        return Check("TensorRT", "warn", "installed, version unknown", get)
    release = release_of(version)
    if release < release_of(TENSORRT):
        shipped = "; JetPack 6.1 and 6.2 ship 10.3" if release == (10, 3) else ""
        return Check("TensorRT", "warn", f"{version}, older than {TENSORRT}{shipped}", get)
    return _on_orin(board, version, package == "tensorrt-cu13") or _typed(board, version)


def _on_orin(board: Board, version: str, is_for_cuda_13: bool) -> Check | None:
    """Return what is wrong with a TensorRT on an Orin; ``None`` for one that has code for it."""
    if "Orin" not in (board.model or ""):
        return None
    jetpack = jetpack_of(board)
    of_board = jetpack.cuda if jetpack else None
    runs = runs_on_orin(version, "13" if is_for_cuda_13 else of_board)
    if runs is None:
        return Check("TensorRT", "warn", f"{version} for CUDA 13: nobody has told whether it has code for Orin", _16)
    return None if runs else Check("TensorRT", "fail", f"{version} for CUDA 13 has no code for Orin (SM87)", _16)


_16 = "install 10.16.1 or newer, as JetPack 7.2 has it: docker/README.md"


def _typed(board: Board, version: str) -> Check:
    if release_of(version) < (11,):
        return Check("TensorRT", "ok", version)
    found = f"{version}, strongly typed only: no fp16-weak"
    jetpack = jetpack_of(board)
    if jetpack and release_of(jetpack.cuda) < (13,):
        return Check("TensorRT", "warn", found, f"JetPack 6 stays on TensorRT 10. {jetpack.get_tensorrt}")
    return Check("TensorRT", "ok", found)
