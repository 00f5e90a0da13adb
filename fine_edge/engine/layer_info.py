"""Kernels from the JSON that TensorRT's engine inspector gives, with the ONNX nodes they came from."""

from __future__ import annotations

import json
from typing import Any

from fine_edge.engine.rtx_log import Kernel, onnx_nodes


def kernels_in(text: str) -> tuple[Kernel, ...] | None:
    """The engine's layers in order; ``None`` where it was built to tell no more than names, or nothing.

    ``Layers`` holds objects with ``Name``, ``LayerType`` and ``Metadata`` for engines with detailed profiling
    verbosity, and plain names otherwise.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, LookupError, TypeError):
        return None
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, dict) for layer in layers):
        return None
    return tuple(kernel for kernel in map(_kernel, layers) if not kernel.is_synchronisation)


def _kernel(layer: dict[str, Any]) -> Kernel:
    return Kernel(str(layer.get("Name")), str(layer.get("LayerType")), onnx_nodes(str(layer.get("Metadata", ""))))
