"""An engine's layers in one form for all sources that they are read from, and their sums by part of the detector.

    our bench, or trtexec   times by TensorRT's IProfiler, layers by its engine inspector
    TensorRT-RTX on x86     kernels of the compiler's log; nothing was run, so there are no times

The time of a layer is taken with a profiler attached, which makes TensorRT synchronise after every layer: layers add up
to more than an inference takes. Shares can be trusted, sums cannot be set beside a latency.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fine_edge.engine.rtx_log import launches_kernel
from fine_edge.fields import Amount, Text, Whole, to_data
from fine_edge.graph.parts import MODULES, OTHER, Part, part_of, part_of_all
from fine_edge.machine import MIB

# Copies between memory layouts that TensorRT put in; they belong to no node of the model.
REFORMAT = Part("other", "reformat")


@dataclass(frozen=True)
class LayerTime:
    """A layer of an engine; most launch a kernel.

    Attributes:
        name: as TensorRT calls it.
        kind: TensorRT's layer type, such as ``gemm``, ``kgen`` or ``Reformat``; empty where it is not told.
        onnx_nodes: names of the nodes it was made from.
        part: of the detector.
        median_ms: time of one run with a profiler attached; ``None`` where nothing was run.
        percent: of all layers' time.
        written_bytes: of the activations its kernel writes; ``None`` where the source does not tell.
        weights_bytes: of the constants it reads and no layer before it did; ``None`` where the source does not tell.
        is_mixed: whether its nodes belong to more than one module, of which ``part`` has the most.
    """

    name: str
    kind: str
    onnx_nodes: tuple[str, ...]
    part: Part
    median_ms: Amount | None = None
    percent: Amount | None = None
    written_bytes: Whole | None = None
    weights_bytes: Whole | None = None
    is_mixed: bool = False

    @property
    def is_kernel(self) -> bool:
        """Return whether it launches a kernel; where the type is not told, whether it took time."""
        return launches_kernel(self.kind) if self.kind else self.median_ms != 0.0


@dataclass(frozen=True)
class LayerProfile:
    """All layers of one engine in the order of execution.

    Attributes:
        source: what the layers were read from and by what they were timed, for people.
        layers: in the order of execution.
        activation_mib: memory the compiler plans for all activations, where the source tells.
        compute_ms: median GPU compute time of an inference without a profiler, where it was measured too.
        latency_ms: median of H2D + compute + D2H, likewise.
        remarks: what the files do not tell, or how they disagree, for people.
    """

    source: str
    layers: tuple[LayerTime, ...]
    activation_mib: Amount | None = None
    compute_ms: Amount | None = None
    latency_ms: Amount | None = None
    remarks: tuple[Text, ...] = ()

    @property
    def is_timed(self) -> bool:
        """Return whether any layer has a time."""
        return any(layer.median_ms is not None for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return the profile as :mod:`fine_edge.layers.cost` keeps it."""
        data: dict[str, Any] = to_data(self)
        layers = data.pop("layers")
        return {**data, "layers": layers}


# Sum the layers of an engine by part of the detector.

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
