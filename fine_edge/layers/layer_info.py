"""Read the layers of an engine from the engine inspector's JSON, as ``trtexec --exportLayerInfo`` and our builder write
it.

``{"Layers": [...], "Bindings": [...]}``. A layer is an object with ``Name``, ``LayerType``, ``Inputs`` and ``Outputs``
(``Name``, ``Dimensions``, and ``Format/Datatype`` or ``Datatype``), ``Weights`` and ``Bias`` (``Type``, ``Count``) or
``Constants``, and ``Metadata``, where ``[ONNX Layer: name]`` entries stand between separators 0x1E and 0x1F.
Constants of Myelin's kernels stand among ``Inputs``: no layer writes them, and they are no binding.
Only engines built with detailed profiling verbosity have all that; in others the layers are bare names.
Sources: TensorRT's developer guide, "Engine Inspector"; NVIDIA/TensorRT, tools/experimental/trt-engine-explorer/trex
(layer.py, activations.py, parser.py); files of TensorRT 10.1 and 10.16 that others published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.engine.rtx_log import element_bytes, launches_kernel, onnx_nodes, profile_of, without_profile
from fine_edge.errors import ArtifactError
from fine_edge.layers.layer import LayerTime, attribute
from fine_edge.text import printable
from fine_edge.trtexec.exported import read_exported

_HINT = "trtexec --loadEngine=ENGINE --exportLayerInfo=FILE, of an engine built with --profilingVerbosity=detailed"


@dataclass(frozen=True)
class LayerInfo:
    """The layers of one optimisation profile of an engine.

    Attributes:
        layers: in order, without times.
        is_detailed: whether the file tells more than names.
        remarks: what the file does not tell, for people.
    """

    layers: tuple[LayerTime, ...]
    is_detailed: bool
    remarks: tuple[str, ...]


def read_layer_info(path: Path, profile: int = 0) -> LayerInfo:
    """Return the engine's layers in order.

    Args:
        path: the file.
        profile: the optimisation profile whose layers are wanted.

    Raises:
        ArtifactError: when the file is missing, broken or of another kind, or has no layers of ``profile``.
    """
    data = read_exported(path, _HINT)
    if isinstance(data, list) and data and isinstance(data[-1], dict) and "averageMs" in data[-1]:
        what = "holds the times of layers (--exportProfile), no layer information"
        raise ArtifactError(what, where=path, hint="name the layer information first and this file after --profile")
    listed = data.get("Layers") if isinstance(data, dict) else None
    if not isinstance(listed, list) or not listed:
        raise ArtifactError("has no 'Layers': it is no layer information of an engine", where=path, hint=_HINT)
    try:
        names = [layer if isinstance(layer, str) else str(layer["Name"]) for layer in listed]
        profiles = [profile_of(name) for name in names]
        if profile not in profiles:
            what = f"has no layers of optimisation profile {profile}"
            raise ArtifactError(what, where=path, hint="take layers and times from the same engine")
        chosen = [layer for layer, found in zip(listed, profiles, strict=True) if found == profile]
        remarks = _about_profiles(len(set(profiles)), profile)
        if any(isinstance(layer, str) for layer in chosen):
            return LayerInfo(tuple(map(_named, chosen)), False, (*remarks, _NAMES_ONLY))
        given = _given(chosen, data.get("Bindings"))
        seen: set[str] = set()
        layers = tuple(_layer(layer, given, seen) for layer in chosen)
        return LayerInfo(layers, True, (*remarks, *_about_weights(chosen, layers)))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        what = f"has a broken layer ({type(error).__name__}: {error})"
        raise ArtifactError(what, where=path, hint=_HINT) from error


_NAMES_ONLY = "The layer information holds names only: no MiB are known, and what took no time counts as no kernel."


def _about_profiles(number: int, shown: int) -> tuple[str, ...]:
    return (f"The engine has {number} optimisation profiles; profile {shown} is shown.",) if number > 1 else ()


def _named(layer: str | dict[str, Any]) -> LayerTime:
    name = layer if isinstance(layer, str) else str(layer["Name"])
    part, is_mixed = attribute(name, "", ())
    return LayerTime(name, "", (), part, is_mixed=is_mixed)


def _given(layers: list[dict[str, Any]], bindings: object) -> frozenset[str] | None:
    """Return the tensors that layers write or that are inputs of the engine; ``None`` where inputs are not told."""
    if not isinstance(bindings, list) or not bindings:  # old releases list none, and inputs would count as constants
        return None
    written = {str(tensor["Name"]) for layer in layers for tensor in layer.get("Outputs", [])}
    return frozenset(map(without_profile, written.union(map(str, bindings))))


def _layer(layer: dict[str, Any], given: frozenset[str] | None, seen: set[str]) -> LayerTime:
    name, kind = str(layer["Name"]), str(layer.get("LayerType", ""))
    nodes = onnx_nodes(str(layer.get("Metadata") or ""))
    part, is_mixed = attribute(name, kind, nodes)
    written = _sum([_tensor_bytes(tensor) for tensor in layer.get("Outputs", [])])
    return LayerTime(
        name=name,
        kind=kind,
        onnx_nodes=nodes,
        part=part,
        written_bytes=written if launches_kernel(kind) else 0,
        weights_bytes=_weights_bytes(layer, _constants(layer, given), seen),
        is_mixed=is_mixed,
    )


def _constants(layer: dict[str, Any], given: frozenset[str] | None) -> list[dict[str, Any]] | None:
    """Return the constants that a layer lists as tensors; ``None`` where it has none and no list for them."""
    found = list(layer.get("Constants", []))
    if str(layer.get("LayerType")).lower() == "constant":
        found += layer.get("Outputs", [])
    elif given is not None:
        found += [tensor for tensor in layer.get("Inputs", []) if without_profile(str(tensor["Name"])) not in given]
    return found if found or "Constants" in layer else None


# Layer types of products of two operands, in parts: CaskConvolution, CaskGemmConvolution, gemm, MatrixMultiply.
_PRODUCTS = ("conv", "gemm", "matmul", "matrixmultiply")


def _about_weights(listed: list[dict[str, Any]], layers: tuple[LayerTime, ...]) -> tuple[str, ...]:
    """Return a remark on products that list one operand alone: their weights are in the engine, not in the file."""
    without = [
        layer.name
        for layer, entry in zip(layers, listed, strict=True)
        if any(word in layer.kind.lower() for word in _PRODUCTS)
        and layer.weights_bytes is None
        and len(entry.get("Inputs", [])) == 1
    ]
    if not without:
        return ()
    first = printable(without[0][:80])
    others = f" and of {len(without) - 1} others" if without[1:] else ""
    return (f"The weights of {first}{others} are not in the file: constants are more than what is shown.",)


def _sum(sizes: list[int | None]) -> int | None:
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _tensor_bytes(tensor: dict[str, Any]) -> int | None:
    """Return the size of a tensor; ``None`` for dynamic dimensions (-1) and unknown formats."""
    dims = [int(dim) for dim in tensor["Dimensions"]]
    size = element_bytes(str(tensor.get("Datatype") or tensor.get("Format/Datatype") or ""))
    return None if size is None or any(dim < 0 for dim in dims) else math.prod(dims) * size


def _weights_bytes(layer: dict[str, Any], constants: list[dict[str, Any]] | None, seen: set[str]) -> int | None:
    """Return the bytes of a layer's constants; named constants count only for the first layer that has them."""
    new = {str(constant["Name"]): constant for constant in constants or () if str(constant["Name"]) not in seen}
    seen.update(new)
    counted = [layer[key] for key in ("Weights", "Bias") if isinstance(layer.get(key), dict)]
    if not counted and constants is None:
        return None
    sizes = [_tensor_bytes(constant) for constant in new.values()]
    for weights in counted:
        size = element_bytes(str(weights["Type"]))
        sizes.append(None if size is None else int(weights["Count"]) * size)
    return _sum(sizes)
