"""A row of a record: the measurements of one artifact."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from fine_edge import samples
from fine_edge.bench.measure import Slice
from fine_edge.bench.memory import RtxMemory
from fine_edge.bench.stages import EndToEnd, Samples
from fine_edge.fields import ADDED, Amount, Count, Finite, Positive, Whole, to_data
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.verdict import Verdict

Size = tuple[Count, Count]
"""Height and width, pixels."""


@dataclass(frozen=True)
class EngineFigures:
    """The figures of a TensorRT engine. On a Jetson GPU and host share one memory, so no two of them may be added.

    Attributes:
        engine_sha256: of the plan file.
        plan_mib: size of the plan file.
        weights_mib: weights inside the engine; ``None`` where the builder did not say.
        activation_mib: ``device_memory_size_v2``, what one execution context needs for activations and scratch.
        device_delta_mib: free device memory before loading minus after the first run (cudaMemGetInfo).
        host_delta_mib: growth of this process's resident set over the same stretch.
        kernels: layers of the engine.
        fused_attention: fused attentions among them.
    """

    engine_sha256: str
    plan_mib: Amount
    weights_mib: Amount | None
    activation_mib: Amount
    device_delta_mib: Finite | None
    host_delta_mib: Finite | None
    kernels: Whole | None
    fused_attention: Whole | None


@dataclass(frozen=True)
class RowState:
    """The state of the machine while a row was measured, and whether the row's figures may be quoted."""

    verdict: Verdict
    snapshots: tuple[Snapshot, ...]
    energy_mj_per_image: Positive | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """The measurements of one artifact.

    Attributes:
        model: unique within the record.
        attention: FINE's strategy, ``None`` without FINE.
        complexity: of the attention, as Table 3 prints it.
        params_m: parameters in millions, from the contract; ``None`` without one.
        flops_g: FLOPs in units of 10^9, from the contract; ``None`` without one.
        mem_mib: peak of a fresh ONNX Runtime process, see :mod:`fine_edge.bench.memory`; ``None`` on other backends.
        weights_mib: initialisers of the file.
        rtx: TensorRT-RTX's figures of the FP16 graph, where they were asked for.
        artifact_sha256: of the ONNX file.
        random_weights: whether the weights are random.
        samples_ms: latency by round. With TensorRT: input to the device + compute + outputs to the host.
        throughput: back-to-back slices.
        accuracy: of the same artifact, metric (named as in :mod:`fine_edge.zoo.paper`) to per cent, once evaluated.
        paper: the paper's ``mem_mb``, ``fps``, ``latency_ms`` and accuracy, where the row is one of its.
        compute_ms: GPU time of the network alone, by round.
        end_to_end_ms: decoded picture in memory to detections, preprocessing included; in rounds of its own.
        end_to_end: encoded picture in memory to detections by stage, where ``--end-to-end`` asked for it.
        engine: the engine's own figures.
        state: the machine during this row.
        precision: of this row where it is not the record's.
        baseline: the row that the ratio refers to, measured in the same rounds.
        input_hw: height and width of the input, pixels.
        batch: pictures of each inference, in a record over batches; ``None`` elsewhere, where it is 1.
    """

    model: str
    attention: str | None
    complexity: str
    params_m: Amount | None
    flops_g: Amount | None
    mem_mib: Finite | None
    weights_mib: Amount
    rtx: RtxMemory | None
    artifact_sha256: str
    random_weights: bool
    samples_ms: Samples
    throughput: Annotated[tuple[Slice, ...], Meta(min_length=1)]
    accuracy: dict[str, Finite] = field(default_factory=dict)
    paper: dict[str, Finite | None] | None = None
    compute_ms: Samples | None = None
    end_to_end_ms: Samples | None = None
    end_to_end: EndToEnd | None = field(default=None, metadata=ADDED)
    engine: EngineFigures | None = None
    state: RowState | None = None
    precision: str | None = None
    baseline: str
    input_hw: Size
    batch: Count | None = field(default=None, metadata=ADDED)

    @property
    def images(self) -> int:
        """Return the pictures of each inference."""
        return self.batch or 1

    @property
    def ap(self) -> float | None:
        """Return COCO's AP of the same artifact in per cent, where it was evaluated."""
        return self.accuracy.get("ap")

    @property
    def latency_ms(self) -> float:
        """Return the median over rounds."""
        return samples.median(self.samples_ms)

    @property
    def compute_median_ms(self) -> float | None:
        """Return the median of the GPU compute time, where it was measured."""
        return samples.median(self.compute_ms) if self.compute_ms else None

    @property
    def end_to_end_median_ms(self) -> float | None:
        """Return the median from picture to detections, where it was measured."""
        return samples.median(self.end_to_end_ms) if self.end_to_end_ms else None

    @property
    def fps(self) -> float:
        """Return the pictures of all throughput slices over their wall time, per second."""
        queries = sum(part.queries for part in self.throughput)
        return self.images * queries / sum(part.wall_s for part in self.throughput)

    @property
    def image_ms(self) -> float:
        """Return one picture's share of the latency of its batch, milliseconds."""
        return self.latency_ms / self.images

    @property
    def is_unstable(self) -> bool:
        """Return whether the samples scatter too much."""
        return samples.is_unstable(self.samples_ms)

    @property
    def is_quotable(self) -> bool:
        """Return whether nothing is known against the figures."""
        return self.state is None or self.state.verdict.stamp == "VALID"

    def to_json(self) -> dict[str, Any]:
        """Return the row as a record holds it, with the figures that follow from its samples."""
        data: dict[str, Any] = to_data(self)
        for name in ("batch", "end_to_end"):  # left out, so that records from before there was a choice stay the same
            if data[name] is None:
                del data[name]
        if self.end_to_end:
            data["end_to_end"] |= self.end_to_end.derived
        return {
            **data,
            "ap": self.ap,
            "fps": self.fps,
            "latency_ms": self.latency_ms,
            "latency_p90_ms": samples.percentile(self.samples_ms, 90),
            "latency_p99_ms": samples.percentile(self.samples_ms, 99),
            "compute_median_ms": self.compute_median_ms,
            "end_to_end_median_ms": self.end_to_end_median_ms,
            "unstable": self.is_unstable,
        }
