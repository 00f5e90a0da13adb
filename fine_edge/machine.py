"""Description of the machine that a figure came from. Figures of different machines are never compared."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import fine_edge

MIB = 2**20
GIB = 2**30

# A new version of these libraries can change a latency.
_LIBRARIES = (
    *("fine-edge", "numpy", "onnx", "onnxruntime", "torch", "torchvision", "transformers", "ultralytics"),
    *("tensorrt-rtx-cu12", "tensorrt"),
)
# The source in these folders decides what an exported graph looks like.
_EXPORTING = ("fusion", "lowering", "zoo", "export", "graph")
# Two records are compared only when these fields are equal.
IDENTITY = ("cpu", "cores", "arch", "os", "memory_gib", "gpu")


def _cpu_name() -> str:
    for line in _lines("/proc/cpuinfo"):
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.processor() or platform.machine()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def version(package: str) -> str | None:
    """Return the installed version of a package without importing it; ``None`` when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Return CPU, cores usable by this process, memory, operating system and libraries; on a Jetson also its model."""
    import psutil

    jetson = "".join(_lines("/proc/device-tree/model")).strip("\0 ") or None
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "arch": platform.machine(),
        "os": platform.system(),
        "memory_gib": round(psutil.virtual_memory().total / GIB),
        "gpu": jetson,
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in _LIBRARIES if version(name)},
    }


def unlike(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Return the identifying fields in which two machines differ, as ``field: a / b``."""
    return [f"{key}: {a.get(key)} / {b.get(key)}" for key in IDENTITY if a.get(key) != b.get(key)]


def source_sha256() -> str:
    """Return a hash of the code that makes graphs: after a change of it, models are exported again."""
    root = Path(fine_edge.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(path for folder in _EXPORTING for path in (root / folder).rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
