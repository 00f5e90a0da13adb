"""Which part of a detector a node belongs to, read from its name.

Exported nodes are named after the module they came from (``/detector/encoder/fine.0/query/MatMul``), and TensorRT
keeps these names for every layer, so the same reading serves ONNX nodes, compiled kernels and profiled layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Module = Literal["backbone", "encoder", "fine", "decoder", "postprocess", "other"]
MODULES: tuple[Module, ...] = ("backbone", "encoder", "fine", "decoder", "postprocess", "other")

# Scopes below /detector of a lowered detector.
_SCOPES: dict[str, Module] = {
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
    """A module of the detector and, inside FINE, what it is for: ``attention``, ``projections`` and so on."""

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
    """``fine.0`` -> ``fine``."""
    return component.partition(".")[0]


def part_of(node_name: str) -> Part:
    """The part of a node, by the scopes in its name; ``other`` for names that say nothing."""
    scopes = [_plain(component) for component in node_name.split("/")[:-1] if component]
    if "fine" in scopes:
        inner = scopes[scopes.index("fine") + 1 :]
        return Part("fine", _FINE_DETAILS.get(inner[0], "glue") if inner else "glue")
    for scope in scopes:
        if scope in _SCOPES:
            return Part(_SCOPES[scope])
    return OTHER


def part_of_all(node_names: Iterable[str]) -> Part:
    """The part of a kernel that was fused from several nodes: the one most of them belong to.

    Nodes that only prepare (``glue`` of FINE, ``other``) decide when there is nothing else.
    """
    counts = Counter(part_of(name) for name in node_names)
    telling = {part: n for part, n in counts.items() if part.module != "other" and part.detail != "glue"}
    candidates = telling or {part: n for part, n in counts.items() if part.module != "other"}
    return max(candidates, key=lambda part: candidates[part]) if candidates else OTHER
