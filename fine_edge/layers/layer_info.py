"""Read the layers of an engine from the engine inspector's JSON, as ``trtexec --exportLayerInfo`` and our builder write
it.

``{"Layers": [...], "Bindings": [...]}``. A layer is an object with ``Name``, ``LayerType``, ``Inputs`` and ``Outputs``
(``Name``, ``Dimensions``, and ``Format/Datatype`` or ``Datatype``), ``Weights`` and ``Bias`` (``Type``, ``Count``) or
``Constants``, and ``Metadata``, where ``[ONNX Layer: name]`` entries stand between separators 0x1E and 0x1F.
Only engines built with detailed profiling verbosity have all that; in others the layers are bare names.
Sources: TensorRT's developer guide, "Engine Inspector"; NVIDIA/TensorRT, tools/experimental/trt-engine-explorer/trex
(layer.py, activations.py).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from fine_edge.engine.rtx_log import element_bytes, onnx_nodes
from fine_edge.errors import ArtifactError
from fine_edge.files import file_size
from fine_edge.layers.by_part import attribute
from fine_edge.layers.layer import LayerTime

_HINT = "trtexec --loadEngine=ENGINE --exportLayerInfo=FILE, of an engine built with --profilingVerbosity=detailed"


MOST_BYTES = 256 * 2**20
"""Largest file; it holds the times of a million inferences."""


def read_json(path: Path, hint: str) -> Any:
    """Read the JSON of an untrusted file.

    trtexec does not escape names, so strings may contain control characters.

    Raises:
        ArtifactError: when the file is missing or no JSON.
    """
    file_size(path, ArtifactError, hint=hint, limit=MOST_BYTES)
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="replace"), strict=False)
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror})", where=path, hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"is no JSON ({type(error).__name__}: {error})", where=path, hint=hint) from error


def read_layer_info(path: Path) -> tuple[LayerTime, ...]:
    """Return the engine's layers in order, without times.

    Raises:
        ArtifactError: when the file is missing, broken or of another kind, or holds only the names of layers.
    """
    data = read_json(path, _HINT)
    layers = data.get("Layers") if isinstance(data, dict) else None
    if not isinstance(layers, list) or not layers:
        raise ArtifactError("has no 'Layers': it is no layer information of an engine", where=path, hint=_HINT)
    if any(isinstance(layer, str) for layer in layers):
        raise ArtifactError(
            "holds names only, the engine was built without details",
            where=path,
            hint="build it with --profilingVerbosity=detailed",
        )
    seen: set[str] = set()
    try:
        return tuple(_layer(layer, seen) for layer in layers)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"has a broken layer ({type(error).__name__}: {error})"
        raise ArtifactError(what, where=path, hint=_HINT) from error


def _layer(layer: dict[str, Any], seen: set[str]) -> LayerTime:
    name, kind = str(layer["Name"]), str(layer.get("LayerType", ""))
    nodes = onnx_nodes(str(layer.get("Metadata") or ""))
    part, is_mixed = attribute(name, kind, nodes)
    return LayerTime(
        name=name,
        kind=kind,
        onnx_nodes=nodes,
        part=part,
        written_bytes=_sum([_tensor_bytes(tensor) for tensor in layer.get("Outputs", [])]),
        weights_bytes=_weights_bytes(layer, seen),
        is_mixed=is_mixed,
    )


def _sum(sizes: list[int | None]) -> int | None:
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _tensor_bytes(tensor: dict[str, Any]) -> int | None:
    """Return the size of a tensor; ``None`` for dynamic dimensions (-1) and unknown formats."""
    dims = [int(dim) for dim in tensor["Dimensions"]]
    size = element_bytes(str(tensor.get("Datatype") or tensor.get("Format/Datatype") or ""))
    return None if size is None or any(dim < 0 for dim in dims) else math.prod(dims) * size


def _weights_bytes(layer: dict[str, Any], seen: set[str]) -> int | None:
    """Return the bytes of a layer's constants; named constants count only for the first layer that has them."""
    new = [c for c in layer.get("Constants", []) if str(c["Name"]) not in seen]
    seen.update(str(constant["Name"]) for constant in new)
    counted = [layer[key] for key in ("Weights", "Bias") if isinstance(layer.get(key), dict)]
    if not counted and "Constants" not in layer:
        return None
    sizes = [_tensor_bytes(constant) for constant in new]
    for weights in counted:
        size = element_bytes(str(weights["Type"]))
        sizes.append(None if size is None else int(weights["Count"]) * size)
    return _sum(sizes)
