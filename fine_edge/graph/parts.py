"""The part of a detector that a node belongs to, read from the node's name.

Exported nodes are named after the module they came from (``/detector/encoder/fine.0/query/MatMul``). TensorRT keeps
these names for every layer, so the same functions serve ONNX nodes, compiled kernels and profiled layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Module = Literal["preprocess", "backbone", "encoder", "fine", "decoder", "postprocess", "other"]
MODULES: tuple[Module, ...] = ("preprocess", "backbone", "encoder", "fine", "decoder", "postprocess", "other")

# The scope in front of a detector that takes frames, and those below /detector of a lowered one.
_SCOPES: dict[str, Module] = {
    "preprocess": "preprocess",
    "backbone": "backbone",
    "encoder": "encoder",
    "selection": "decoder",
    "position": "decoder",
    "decoder": "decoder",
    "refine": "decoder",
    "proposals": "decoder",
    "boxes": "decoder",
    "classes": "decoder",
    "postprocess": "postprocess",
}


@dataclass(frozen=True)
class Part:
    """A module of the detector and, inside FINE, the step of the block: ``attention``, ``projections`` and so on."""

    module: Module
    detail: str = ""


OTHER = Part("other")

# Child modules of a FINE block.
_FINE_DETAILS = {
    "unify": "projections",
    "down_low": "pooling",
    "down_high": "pooling",
    "query": "projections",
    "key": "projections",
    "value": "projections",
    "project": "projections",
    "norm": "normalisation",
    "attention": "attention",
    "ffn_up": "feed-forward",
    "ffn_down": "feed-forward",
    "activation": "feed-forward",
    "modulate": "modulation",
}


def _plain(component: str) -> str:
    """Return a component without its index: ``fine.0`` becomes ``fine``."""
    return component.partition(".")[0]


def part_of(node_name: str) -> Part:
    """Return the part of a node by the scopes in its name; ``other`` when no scope is known."""
    scopes = [_plain(component) for component in node_name.split("/")[:-1] if component]
    if "fine" in scopes:
        inner = scopes[scopes.index("fine") + 1 :]
        return Part("fine", _FINE_DETAILS.get(inner[0], "glue") if inner else "glue")
    for scope in scopes:
        if scope in _SCOPES:
            return Part(_SCOPES[scope])
    return OTHER


def part_of_all(node_names: Iterable[str]) -> Part:
    """Return the part that most nodes of a fused kernel belong to.

    Nodes that only prepare data (``glue`` of FINE, ``other``) count only when the kernel has no others.
    """
    counts = Counter(part_of(name) for name in node_names)
    main = {part: n for part, n in counts.items() if part.module != "other" and part.detail != "glue"}
    candidates = main or {part: n for part, n in counts.items() if part.module != "other"}
    return max(candidates, key=lambda part: candidates[part]) if candidates else OTHER
