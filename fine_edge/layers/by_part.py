"""Sum the layers of an engine by part of the detector."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fine_edge.graph.parts import MODULES, OTHER, Part, part_of, part_of_all
from fine_edge.layers.layer import REFORMAT, LayerProfile, LayerTime
from fine_edge.machine import MIB

_DETAILS = ("pooling", "normalisation", "projections", "attention", "feed-forward", "modulation", "glue")


@dataclass(frozen=True)
class PartSum:
    """The totals of one part of the detector.

    Attributes:
        part: a whole module (``detail`` is empty), a detail of FINE, or copies between memory layouts.
        kernels: number of layers that launch a kernel.
        ms: the time of all layers; ``None`` where nothing was timed.
        percent: share of the time of all layers.
        written_mib: activations that they write, MiB; ``None`` where it is unknown for a layer.
        weights_mib: constants that they read, each counted once; ``None`` where it is unknown for all layers.
    """

    part: Part
    kernels: int
    ms: float | None
    percent: float | None
    written_mib: float | None
    weights_mib: float | None

    @property
    def title(self) -> str:
        """Return the name for tables."""
        if self.part == REFORMAT:
            return "layout copies"
        name = "FINE" if self.part.module == "fine" else self.part.module
        return f"{name}: {self.part.detail}" if self.part.detail else name

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        return {**vars(self), "part": self.title}


def part_sums(profile: LayerProfile) -> list[PartSum]:
    """Return the modules in the order of data, each followed by its details; parts without layers are left out."""
    found = [(part, _of(profile.layers, part)) for part in _parts()]
    return [_summed(part, layers) for part, layers in found if layers]


def whole(profile: LayerProfile) -> PartSum:
    """Return the sum of all layers."""
    return _summed(Part("other", "all"), profile.layers)


def _parts() -> Iterable[Part]:
    for module in MODULES:
        if module == "other":
            yield REFORMAT
        yield Part(module)
        if module == "fine":
            yield from (Part("fine", detail) for detail in _DETAILS)


def _of(layers: Sequence[LayerTime], part: Part) -> list[LayerTime]:
    if part == REFORMAT or part.detail:
        return [layer for layer in layers if layer.part == part]
    return [layer for layer in layers if layer.part.module == part.module and layer.part != REFORMAT]


def _summed(part: Part, layers: Sequence[LayerTime]) -> PartSum:
    return PartSum(
        part,
        sum(layer.is_kernel for layer in layers),
        ms=_total(layer.median_ms for layer in layers),
        percent=_total(layer.percent for layer in layers),
        written_mib=_mib(layer.written_bytes for layer in layers),
        weights_mib=_mib(layer.weights_bytes for layer in layers),
    )


def _total(values: Iterable[float | None]) -> float | None:
    amounts = [value for value in values if value is not None]
    return sum(amounts) if amounts else None


def _mib(sizes: Iterable[int | None]) -> float | None:
    total = _total(sizes)
    return None if total is None else total / MIB


# Older engines, and engines built with low profiling verbosity, name the nodes only in the layer's name, joined by
# " + " and wrapped in words: "PWN(/a/Sigmoid, /a/Mul)", "{ForeignNode[/a/MatMul.../b/Add]}".
_NODE_IN_NAME = re.compile(r"/[^\s,()\[\]{}+]+")


def nodes_in_name(name: str) -> tuple[str, ...]:
    """Return the ONNX nodes in a layer's name, without Myelin's suffix (``/a/Conv_myl0_3``)."""
    plain = re.sub(r"_myl\d+_\d+$", "", name)
    return tuple(match.rstrip(".") for joined in _NODE_IN_NAME.findall(plain) for match in joined.split("..."))


def is_reformat(name: str, kind: str) -> bool:
    """Return whether a layer only copies from one memory layout to another."""
    return kind.lower() == "reformat" or name.startswith("Reformatting CopyNode")


def attribute(name: str, kind: str, onnx_nodes: Sequence[str]) -> tuple[Part, bool]:
    """Return the part of a layer, and whether its nodes belong to several modules of the detector."""
    if is_reformat(name, kind):
        return REFORMAT, False
    nodes = onnx_nodes or nodes_in_name(name)
    modules = {part.module for part in map(part_of, nodes) if part != OTHER}
    return part_of_all(nodes), len(modules) > 1
