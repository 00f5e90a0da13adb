"""The platform that builds and runs engines: versions and device. An engine belongs to exactly one platform."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fine_edge.errors import BackendError, FineEdgeError
from fine_edge.jetson.board import Board
from fine_edge.zoo.catalog import is_model

_CUDA_VERSION_FILE = Path("/usr/local/cuda/version.json")


@dataclass(frozen=True)
class Platform:
    """The versions and the device of a machine; ``None`` for what it does not have.

    Attributes:
        tensorrt: version of TensorRT, ``10.7.0``.
        rtx: version of TensorRT-RTX.
        cuda: version of the CUDA toolkit, or else the newest that the driver supports, ``12.6``.
        l4t: release of Jetson Linux, ``36.4.0``.
        gpu: name of the device.
        sm: compute capability times ten, 87 for Orin.
    """

    tensorrt: str | None = None
    rtx: str | None = None
    cuda: str | None = None
    l4t: str | None = None
    gpu: str | None = None
    sm: int | None = None

    def differences(self, here: Platform) -> list[str]:
        """Return why an engine of this platform must not run ``here``, as ``TensorRT 10.3.0, here 10.7.0``.

        TensorRT guarantees nothing across versions, devices and JetPack releases. A field that one side does not know
        (L4T inside a container, for example) is not compared, except TensorRT and the device themselves.
        """
        titles = {"tensorrt": "TensorRT", "gpu": "GPU", "sm": "SM", "l4t": "L4T", "cuda": "CUDA"}
        found = []
        for name, title in titles.items():
            mine, other = getattr(self, name), getattr(here, name)
            needed = name in ("tensorrt", "gpu", "sm")
            if mine != other and (needed or (mine is not None and other is not None)):
                found.append(f"{title} {mine or 'unknown'}, here {other or 'none'}")
        return found


def release_of(version: str) -> tuple[int, ...]:
    """Return major and minor version as numbers, ``(10, 7)`` of ``10.7.0.23``."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def runs_on_orin(tensorrt: str, cuda: str | None) -> bool | None:
    """Return whether a TensorRT has code for Orin (SM87); ``None`` where nobody has told.

    Args:
        tensorrt: version, ``10.16.2``.
        cuda: version of CUDA that it is for, ``13.2``; ``None`` counts as 12.

    Of the builds for CUDA 13, that of 10.13.3 has none and that of 10.16.1 has. NVIDIA's for CUDA 12 on L4T have.
    """
    if cuda is None or release_of(cuda) < (13,):
        return True
    release = release_of(tensorrt)
    return None if (10, 13) < release < (10, 16) else release >= (10, 16)


def is_installed(package: str) -> bool:
    """Return whether a package can be imported; a folder with only its name, such as type stubs, does not count."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _version_of(package: str) -> str | None:
    """Return the version of a TensorRT package; import it, so that libraries that do not load are noticed."""
    if not is_installed(package):
        return None
    try:
        return str(importlib.import_module(package).__version__)
    except (ImportError, OSError, AttributeError) as error:
        raise BackendError(
            f"{package} is installed but does not load ({error})",
            hint="its libraries are missing or of another version: run python -m fine_edge doctor",
        ) from error


def _cuda_toolkit() -> str | None:
    """Return major and minor version of the toolkit; the driver, used in its absence, gives no more."""
    try:
        version = str(json.loads(_CUDA_VERSION_FILE.read_text(encoding="utf-8"))["cuda"]["version"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return ".".join(version.split(".")[:2])


def here() -> Platform:
    """Return the platform of this machine; what is absent is ``None``.

    Raises:
        BackendError: when a TensorRT is installed but does not load.
    """
    tensorrt = _version_of("tensorrt")
    gpu = sm = driver = None
    if tensorrt is not None:  # without TensorRT nothing needs the device, and starting CUDA takes time
        from fine_edge.engine.cuda import gpu_info

        try:
            info = gpu_info()
            gpu, sm, driver = info.name, info.sm, info.driver
        except FineEdgeError:
            gpu = sm = driver = None
    return Platform(tensorrt, _version_of("tensorrt_rtx"), _cuda_toolkit() or driver, Board().l4t, gpu, sm)


def require_tensorrt(platform: Platform, model: str = "MODEL") -> None:
    """Refuse to go on where engines for this machine's own GPU cannot be built or run.

    Raises:
        BackendError: the hint says what to do on an x86 host, with a model of the zoo or with a file, and on a Jetson.
    """
    if platform.tensorrt is None:
        on_jetson = "python -m fine_edge doctor says how this JetPack gets it"
        if model == "MODEL" or is_model(model):
            bring, build = f"make onnx MODEL={model}, copy engines/{model}.*", f"make engine MODEL={model}"
            build_here = f"{build} ARGS='--target rtx-sm86'"
        else:
            bring, build = f"copy {model}.*", "python -m fine_edge engine build FILE.onnx"
            build_here = f"{build} --target rtx-sm86"
        on_host = f"{bring} to the Jetson and run {build} there; to compile it here without a GPU: {build_here}"
        raise BackendError("TensorRT is not on this machine", hint=on_jetson if platform.l4t else on_host)
    if platform.gpu is None:
        raise BackendError(
            f"TensorRT {platform.tensorrt} is installed, but no CUDA device answers",
            hint="run python -m fine_edge doctor for the reason; start a container with --runtime nvidia",
        )
