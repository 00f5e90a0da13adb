"""One artifact's measurements: what a record has a row of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fine_edge import samples
from fine_edge.bench.measure import Slice
from fine_edge.bench.memory import RtxMemory
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.verdict import Verdict
from fine_edge.number import amount, finite, positive, whole

_T = TypeVar("_T")


@dataclass(frozen=True)
class EngineFigures:
    """A TensorRT engine's own figures. On a Jetson GPU and host share one memory, so no two of them may be added.

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
    plan_mib: float
    weights_mib: float | None
    activation_mib: float
    device_delta_mib: float | None
    host_delta_mib: float | None
    kernels: int | None
    fused_attention: int | None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a record."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EngineFigures:
        """Inverse of :meth:`to_json`; raises KeyError, TypeError or ValueError on anything else."""
        return cls(
            engine_sha256=str(data["engine_sha256"]),
            plan_mib=amount(data["plan_mib"]),
            weights_mib=optional(amount, data["weights_mib"]),
            activation_mib=amount(data["activation_mib"]),
            device_delta_mib=optional(finite, data["device_delta_mib"]),
            host_delta_mib=optional(finite, data["host_delta_mib"]),
            kernels=optional(whole, data["kernels"]),
            fused_attention=optional(whole, data["fused_attention"]),
        )


@dataclass(frozen=True)
class RowState:
    """What the machine did while a row was measured, and whether its figures may be quoted."""

    verdict: Verdict
    snapshots: tuple[Snapshot, ...]
    energy_mj_per_image: float | None

    def to_json(self) -> dict[str, Any]:
        """As it stands in a record."""
        return {
            "verdict": self.verdict.to_json(),
            "snapshots": [snapshot.to_json() for snapshot in self.snapshots],
            "energy_mj_per_image": self.energy_mj_per_image,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RowState:
        """Inverse of :meth:`to_json`; raises KeyError, TypeError or ValueError on anything else."""
        return cls(
            verdict=Verdict.from_json(data["verdict"]),
            snapshots=tuple(Snapshot.from_json(snapshot) for snapshot in data["snapshots"]),
            energy_mj_per_image=optional(positive, data["energy_mj_per_image"]),
        )


@dataclass(frozen=True)
class Row:
    """One artifact's measurements.

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
        engine: the engine's own figures.
        state: the machine during this row.
        precision: of this row where it is not the record's.
        baseline: the row that the ratio refers to, measured in the same rounds; ``None`` in records from before there
            were groups: the first row.
        input_hw: height and width of the input, pixels; ``None`` in such records: the record's.
    """

    model: str
    attention: str | None
    complexity: str
    params_m: float | None
    flops_g: float | None
    mem_mib: float | None
    weights_mib: float
    rtx: RtxMemory | None
    artifact_sha256: str
    random_weights: bool
    samples_ms: tuple[float, ...]
    throughput: tuple[Slice, ...]
    accuracy: dict[str, float] = field(default_factory=dict)
    paper: dict[str, float | None] | None = None
    compute_ms: tuple[float, ...] | None = None
    end_to_end_ms: tuple[float, ...] | None = None
    engine: EngineFigures | None = None
    state: RowState | None = None
    precision: str | None = None
    baseline: str | None = None
    input_hw: tuple[int, int] | None = None

    @property
    def ap(self) -> float | None:
        """COCO AP of the same artifact, per cent."""
        return self.accuracy.get("ap")

    @property
    def latency_ms(self) -> float:
        """Median over rounds."""
        return samples.median(self.samples_ms)

    @property
    def compute_median_ms(self) -> float | None:
        """Median of the GPU compute time, where it was measured."""
        return samples.median(self.compute_ms) if self.compute_ms else None

    @property
    def end_to_end_median_ms(self) -> float | None:
        """Median from picture to detections, where it was measured."""
        return samples.median(self.end_to_end_ms) if self.end_to_end_ms else None

    @property
    def fps(self) -> float:
        """Queries over wall time of all throughput slices."""
        return sum(part.queries for part in self.throughput) / sum(part.wall_s for part in self.throughput)

    @property
    def is_unstable(self) -> bool:
        """Whether the samples scatter too much."""
        return samples.is_unstable(self.samples_ms)

    @property
    def is_quotable(self) -> bool:
        """Whether nothing is known that speaks against the figures."""
        return self.state is None or self.state.verdict.stamp == "VALID"

    def to_json(self) -> dict[str, Any]:
        """As it stands in a record, with the figures that follow from the samples."""
        return {
            **vars(self),
            "rtx": vars(self.rtx) if self.rtx else None,
            "samples_ms": list(self.samples_ms),
            "throughput": [vars(part) for part in self.throughput],
            "compute_ms": None if self.compute_ms is None else list(self.compute_ms),
            "end_to_end_ms": None if self.end_to_end_ms is None else list(self.end_to_end_ms),
            "engine": self.engine.to_json() if self.engine else None,
            "state": self.state.to_json() if self.state else None,
            "input_hw": None if self.input_hw is None else list(self.input_hw),
            "ap": self.ap,
            "fps": self.fps,
            "latency_ms": self.latency_ms,
            "latency_p90_ms": samples.percentile(self.samples_ms, 90),
            "latency_p99_ms": samples.percentile(self.samples_ms, 99),
            "compute_median_ms": self.compute_median_ms,
            "end_to_end_median_ms": self.end_to_end_median_ms,
            "unstable": self.is_unstable,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """Inverse of :meth:`to_json`; raises KeyError, TypeError or ValueError on anything else.

        Rows of format 1 lack the fields that came with TensorRT, those of format 2 also those that came with groups.
        """
        rtx, paper, engine, state = (data.get(key) for key in ("rtx", "paper", "engine", "state"))
        return cls(
            model=str(data["model"]),
            attention=optional(str, data["attention"]),
            complexity=str(data["complexity"]),
            params_m=optional(amount, data["params_m"]),
            flops_g=optional(amount, data["flops_g"]),
            mem_mib=optional(finite, data["mem_mib"]),
            weights_mib=amount(data["weights_mib"]),
            rtx=RtxMemory(amount(rtx["activation_mib"]), amount(rtx["weights_mib"])) if rtx else None,
            artifact_sha256=str(data["artifact_sha256"]),
            random_weights=bool(data["random_weights"]),
            samples_ms=_samples(data["samples_ms"]),
            throughput=tuple(Slice(int(positive(p["queries"])), positive(p["wall_s"])) for p in data["throughput"]),
            accuracy=_accuracy(data),
            paper={str(key): optional(finite, value) for key, value in paper.items()} if paper else None,
            compute_ms=optional(_samples, data.get("compute_ms")),
            end_to_end_ms=optional(_samples, data.get("end_to_end_ms")),
            engine=EngineFigures.from_json(engine) if engine else None,
            state=RowState.from_json(state) if state else None,
            precision=optional(str, data.get("precision")),
            baseline=optional(str, data.get("baseline")),
            input_hw=optional(size, data.get("input_hw")),
        )


def optional(kind: Callable[[Any], _T], value: Any) -> _T | None:
    """``kind(value)``, where there is a value."""
    return None if value is None else kind(value)


def size(value: Any) -> tuple[int, int]:
    """Height and width; raises ValueError for anything but two numbers."""
    height, width = value
    return int(positive(height)), int(positive(width))


def _accuracy(data: dict[str, Any]) -> dict[str, float]:
    """Rows of formats 1 and 2 have AP alone."""
    known = data.get("accuracy", {"ap": data["ap"]} if data["ap"] is not None else {})
    return {str(metric): finite(value) for metric, value in known.items()}


def _samples(values: Any) -> tuple[float, ...]:
    samples = tuple(positive(value) for value in values)
    if not samples:
        raise ValueError("no samples")
    return samples
