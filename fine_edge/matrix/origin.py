"""What a row depends on: code, libraries, machine. A row of another origin is not taken over."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import fine_edge
from fine_edge import machine
from fine_edge.export import artifacts

_LIBRARIES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "scipy",
    "scikit-image",
    "torch",
    "torchvision",
    "transformers",
    "ultralytics",
    "tensorrt-rtx-cu12",
    "polygraphy",
)
# Folders whose source judges what an export made; what makes it has a hash of its own.
_JUDGES = ("engine", "matrix", "parity", "runners")


def source_sha256() -> str:
    """Hash of the code that makes graphs and of the code that judges them."""
    root = Path(fine_edge.__file__).parent
    digest = hashlib.sha256(artifacts.source_sha256().encode())
    for file in sorted(path for folder in _JUDGES for path in (root / folder).rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def libraries() -> dict[str, str]:
    """Installed versions of all that takes part, by distribution."""
    return {name: version for name in _LIBRARIES if (version := machine.version(name))}


def origin() -> dict[str, Any]:
    """Source, libraries and machine as they are now."""
    described = machine.describe()
    return {
        "source_sha256": source_sha256(),
        "libraries": libraries(),
        "machine": {key: described[key] for key in (*machine.IDENTITY, "python")},
    }
