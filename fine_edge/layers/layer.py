"""An engine's layers in one form for all sources that they are read from.

    our bench, or trtexec   times by TensorRT's IProfiler, layers by its engine inspector
    TensorRT-RTX on x86     kernels of the compiler's log; nothing was run, so there are no times

The time of a layer is taken with a profiler attached, which makes TensorRT synchronise after every layer: layers add up
to more than an inference takes. Shares can be trusted, sums cannot be set beside a latency.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fine_edge.engine.rtx_log import launches_kernel
from fine_edge.fields import Amount, Text, Whole, to_data
from fine_edge.graph.parts import Part

REFORMAT = Part("other", "reformat")
"""Copies between memory layouts that TensorRT put in; they belong to no node of the model."""


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
