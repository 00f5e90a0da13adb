"""A row of a record: the measurements of one artifact, and their stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from fine_edge import samples
from fine_edge.bench.measure import Slice
from fine_edge.bench.memory import RtxMemory
from fine_edge.fields import ADDED, Amount, Count, Finite, Positive, Whole, to_data
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.verdict import Verdict

# What a user waits for, by stage: an encoded picture in memory, to what is found in it.
#
# Stages stand in the order of a frame's way. A backend without a device of its own copies nothing to it and back, so
# these two stages do not exist there. In a graph that takes frames preprocessing is a part of compute.

Samples = Annotated[tuple[Positive, ...], Meta(min_length=1)]
# The titles of the stages by name.
STAGES = {
    "decode": "decode",
    "preprocess": "preprocess",
    "h2d": "H2D",
    "compute": "compute",
    "d2h": "D2H",
    "postprocess": "postprocess",
}


def stage_titles(*, in_graph: bool) -> dict[str, str]:
    """Return the titles by name; ``in_graph`` where the graph preprocesses, which the host sees as compute alone."""
    return {**STAGES, "compute": "compute with preprocessing"} if in_graph else STAGES


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """One row from JPEGs in memory to what is found in them, measured in rounds of its own.

    Attributes:
        decode_ms: JPEG to pixels, by round.
        preprocess_ms: pixels to the input; where the graph does it, what is left for the host.
        h2d_ms: input to the device, by CUDA events; ``None`` on a backend that copies nothing.
        compute_ms: the network; by CUDA events on a device, by wall clock elsewhere.
        d2h_ms: outputs to the host, as ``h2d_ms``.
        postprocess_ms: outputs to detections or segments of the picture.
        total_ms: all of it one after the other, by wall clock; on a device also what no event covers: filling pinned
            memory, launching, copying outputs out of it.
        overlapped: slices through the threads of ``fine-edge stream``, which do the stages side by side.
        energy_mj_per_image: of the whole module during these slices; ``None`` without power readings.
        in_graph: whether the graph preprocesses, so that compute holds it.
    """

    decode_ms: Samples
    preprocess_ms: Samples
    h2d_ms: Samples | None = None
    compute_ms: Samples
    d2h_ms: Samples | None = None
    postprocess_ms: Samples
    total_ms: Samples
    overlapped: Annotated[tuple[Slice, ...], Meta(min_length=1)]
    energy_mj_per_image: Positive | None = None
    in_graph: bool = False

    @property
    def stages_ms(self) -> dict[str, tuple[float, ...] | None]:
        """Return the samples of each stage; ``None`` where the backend has no such stage."""
        return {name: getattr(self, f"{name}_ms") for name in STAGES}

    @property
    def medians_ms(self) -> dict[str, float | None]:
        """Return the median of each stage."""
        return {name: samples.median(taken) if taken else None for name, taken in self.stages_ms.items()}

    @property
    def p90_ms(self) -> dict[str, float | None]:
        """Return the 90th percentile of each stage; ``None`` also where there are too few samples."""
        return {name: samples.percentile(taken, 90) if taken else None for name, taken in self.stages_ms.items()}

    @property
    def total_median_ms(self) -> float:
        """Return the median of all stages one after the other."""
        return samples.median(self.total_ms)

    @property
    def fps_one_by_one(self) -> float:
        """Return the frames per second of stages one after the other: rounds over the sum of their times."""
        return 1e3 * len(self.total_ms) / sum(self.total_ms)

    @property
    def fps_overlapped(self) -> float:
        """Return the frames per second of stages side by side."""
        return sum(part.queries for part in self.overlapped) / sum(part.wall_s for part in self.overlapped)

    @property
    def after_decode_ms(self) -> tuple[float, ...]:
        """Return by round what a picture takes that is decoded already."""
        return tuple(total - decode for total, decode in zip(self.total_ms, self.decode_ms, strict=True))

    @property
    def derived(self) -> dict[str, float | None]:
        """Return what follows from the samples, by the name that a record gives it."""
        return {
            **{f"{name}_median_ms": value for name, value in self.medians_ms.items()},
            **{f"{name}_p90_ms": value for name, value in self.p90_ms.items()},
            "total_median_ms": self.total_median_ms,
            "total_p90_ms": samples.percentile(self.total_ms, 90),
            "fps_one_by_one": self.fps_one_by_one,
            "fps_overlapped": self.fps_overlapped,
        }

    def check(self) -> None:
        """Raise ``ValueError`` where the stages contradict each other."""
        counts = {name: len(taken) for name, taken in self.stages_ms.items() if taken is not None}
        if set(counts.values()) != {len(self.total_ms)}:
            raise ValueError(f"stages have {counts} samples for {len(self.total_ms)} totals")
        if (self.h2d_ms is None) != (self.d2h_ms is None):
            raise ValueError("stages: one copy to or from the device without the other")
        for turn, total in enumerate(self.total_ms):
            # Those by the same clock as the total.
            parts = self.decode_ms[turn] + self.preprocess_ms[turn] + self.postprocess_ms[turn]
            if parts > total:
                raise ValueError(f"stages take {parts:.3f} ms in round {turn + 1}, their total {total:.3f} ms")


# Height and width, pixels.
Size = tuple[Count, Count]


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
