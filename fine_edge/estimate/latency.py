"""Estimate a latency with its interval, the times that it is made of, and the memory of its context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fine_edge.estimate.calibration import Calibration, Precision
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.engine import EngineWork
from fine_edge.estimate.roofline import Bound, KernelTime, in_int8, kernel_times
from fine_edge.machine import MIB

BOUNDS: tuple[Bound, ...] = ("compute", "memory", "launch")

# Memory that JetPack, CUDA and TensorRT need beside an engine: a guess on the safe side.
RESERVED_GIB = 2.5
# Networks that were measured took so long; selections took at most so much of it.
_MEASURED_MS = (0.5, 100.0)
_MOST_SELECTING = 0.05
# Factor by which an interval is wider on either side where nothing like the network was measured.
WIDER = 1.25


@dataclass(frozen=True)
class Conditions:
    """Where and how an engine is thought to run.

    Attributes:
        device: the board.
        mode: its power mode.
        calibration: where the constants come from.
        precision: of the engine.
        cuda_graph: whether a CUDA graph holds the kernels; each is enqueued alone otherwise.
    """

    device: Device
    mode: Mode
    calibration: Calibration
    precision: Precision = "fp16"
    cuda_graph: bool = True


@dataclass(frozen=True)
class Estimate:
    """The estimated times of one engine on a board. Nothing was measured.

    Attributes:
        engine: the compiled engine.
        conditions: board, mode, calibration, precision and CUDA graph.
        kernels: in the order of execution.
    """

    engine: EngineWork
    conditions: Conditions
    kernels: tuple[KernelTime, ...]

    @property
    def kernels_ms(self) -> float:
        """Return the sum of the kernels' times."""
        return sum(kernel.ms for kernel in self.kernels)

    @property
    def compute_ms(self) -> float:
        """Return the time of the kernels: their sum, or the host's time to enqueue them one by one."""
        enqueued_ms = len(self.kernels) * self.conditions.device.enqueue_us / 1e3
        return self.kernels_ms if self.conditions.cuda_graph else max(self.kernels_ms, enqueued_ms)

    @property
    def latency_ms(self) -> float:
        """Return the time from copying the input to the device until the outputs are on the host."""
        return self.compute_ms + self.engine.io_bytes / (1e6 * self.conditions.calibration.constants.copy_gb_s)

    @property
    def call_ms(self) -> float:
        """Return the time of a call from Python whose input is on the device, as libraries' benchmarks time it."""
        return self.compute_ms + self.conditions.calibration.constants.call_us / 1e3

    @property
    def _spread(self) -> tuple[float, float]:
        low, high = self.conditions.calibration.interval(self.conditions.precision, self.conditions.device)
        wider = WIDER if self._unlike() else 1.0
        return low / wider, high * wider

    @property
    def latency_ms_low(self) -> float:
        """Return the lower end of the interval that holds nine of ten measured latencies."""
        return self.latency_ms * self._spread[0]

    @property
    def latency_ms_high(self) -> float:
        """Return the upper end of the interval that holds nine of ten measured latencies."""
        return self.latency_ms * self._spread[1]

    @property
    def fps(self) -> float:
        """Return pictures per second back to back, where copies overlap with the next inference, as in trtexec."""
        return 1000 * self.engine.batch / self.compute_ms

    @property
    def bound_ms(self) -> dict[Bound, float]:
        """Return the time of the kernels by what bounds them."""
        return {bound: sum(kernel.ms for kernel in self.kernels if kernel.bound == bound) for bound in BOUNDS}

    def module_ms(self) -> dict[str, float]:
        """Return the time by module of the detector and part of FINE, in the order of execution."""
        found: dict[str, float] = {}
        for kernel in self.kernels:
            found[kernel.work.module] = found.get(kernel.work.module, 0.0) + kernel.ms
        return found

    @property
    def memory_mib(self) -> float:
        """Return the memory of the execution context and of weights."""
        return context_mib(self.engine).likely + self.engine.weights_mib

    @property
    def fits(self) -> bool:
        """Return whether the board has enough memory for it beside everything else."""
        return self.memory_mib / 1024 < self.conditions.device.memory_gib - RESERVED_GIB

    def slowest(self, count: int = 10) -> list[KernelTime]:
        """Return the ``count`` kernels that take longest."""
        return sorted(self.kernels, key=lambda kernel: -kernel.ms)[:count]

    def _unlike(self) -> list[str]:
        """Return in what the engine is unlike everything that was measured; the interval is wider for it."""
        found = []
        low, high = _MEASURED_MS
        if not low <= self.compute_ms <= high:
            found.append(f"Networks that were measured took {low:g} to {high:g} ms.")
        if self.engine.quantised:
            found.append("No graph with Q/DQ was measured, only engines that TensorRT quantised itself.")
        if self.engine.batch > 1:
            found.append("Only single pictures were measured.")
        selecting = sum(kernel.ms for kernel in self.kernels if kernel.work.selections) / self.kernels_ms
        if selecting > _MOST_SELECTING:
            found.append(
                f"Top-k takes {100 * selecting:.0f} % of the time; networks that were measured have little of it."
            )
        return found

    @property
    def warnings(self) -> list[str]:
        """Return what makes an estimate less certain than others."""
        at, engine = self.conditions, self.engine
        found = []
        if at.calibration.mode and at.mode.name != at.calibration.mode:
            found.append(f"Fitted in {at.calibration.mode}, scaled to {at.mode.name} by GPU and memory clocks.")
        if at.device.name not in at.calibration.devices:
            measured = ", ".join(at.calibration.devices)
            found.append(f"No {at.device.title} was measured, but {measured}: the widest interval of these.")
        if at.precision == "int8" and not engine.quantised:
            found.append(
                "INT8 without Q/DQ in the graph: the FP16 engine's kernels at INT8's rates, products' bytes halved."
            )
        scores = sum(work.scores_bytes for work in engine.works)
        if scores:
            found.append(
                f"{scores / 2**20:.0f} MiB of attention's scores go through memory: TensorRT 10.7 does not fuse these."
            )
        if abs(engine.claimed_flops - 1) > 0.01:
            found.append(f"Only {100 * engine.claimed_flops:.1f} % of the graph's FLOPs were found in kernels.")
        return [*found, *(f"{reason} The interval is {WIDER:g} times as wide." for reason in self._unlike())]

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        at, context = self.conditions, context_mib(self.engine)
        return {
            "device": at.device.name,
            "mode": at.mode.name,
            "precision": at.precision,
            "cuda_graph": at.cuda_graph,
            "estimate": True,
            "model": self.engine.name,
            "latency_ms": self.latency_ms,
            "latency_ms_low": self.latency_ms_low,
            "latency_ms_high": self.latency_ms_high,
            "fps": self.fps,
            "compute_ms": self.compute_ms,
            "call_ms": self.call_ms,
            "context_mib": context.likely,
            "context_mib_low": context.low,
            "context_mib_high": context.high,
            "warnings": self.warnings,
            "bound_ms": self.bound_ms,
            "modules_ms": self.module_ms(),
            "inputs": self.engine.inputs,
            "flops": self.engine.graph_flops,
            "activation_mib": self.engine.activation_mib,
            "weights_mib": self.engine.weights_mib,
            "fits_in_memory": self.fits,
            "onnx_sha256": self.engine.onnx_sha256,
            "compiler": self.engine.compiler,
            "calibration": at.calibration.to_json(),
            "kernels": [_kernel_json(kernel) for kernel in self.kernels],
        }


def estimate(engine: EngineWork, conditions: Conditions) -> Estimate:
    """Apply a calibration's constants to an engine's work."""
    at = conditions
    works = in_int8(engine.works) if at.precision == "int8" and not engine.quantised else engine.works
    constants = at.calibration.constants
    kernels = kernel_times(works, at.device, at.mode, constants, at.precision, graph=at.cuda_graph)
    return Estimate(engine, conditions, tuple(kernels))


def _kernel_json(kernel: KernelTime) -> dict[str, Any]:
    return {
        "name": kernel.work.name,
        "ms": kernel.ms,
        "bound": kernel.bound,
        "flops": kernel.work.flops,
        "bytes": kernel.work.tensor_bytes,
        "module": kernel.work.module,
    }


# Estimate the device memory of an execution context of TensorRT 10.7 from activations that are needed at one moment.
#
# TensorRT 10.7 gives a graph whose branches run side by side, such as RT-DETR's decoder, one large block of scratch and
# streams of their own. What the compiler here plans is no measure of that: it has streams of its own where 10.7 has
# none. Logs that others published, in MiB, beside what is needed at one moment: RT-DETR R18 64.2 (21.8), with FINE 66.2
# (21.8), linear 68.9 (21.8), R50 109.0 (34.1), FP32 135.6, 139.5 and 140.3 (43.6); YOLOv5-S 16.4 (9.4), with FINE 17.2
# (9.4), YOLOv6-S with FINE 12.5 (9.4), YOLOv8-S 17.0 (10.9), YOLO11n in FP32 18.8 (10.9), MobileNetV2 3.3 (2.9).

# What the logs have beyond the activations of one moment, over these: likely, least, most.
_WITH_DECODER = (2.1, 1.9, 2.3)
_PLAIN = (0.65, 0.15, 0.9)
# The extra block was of at most 100 MiB; dense attention in FP32 needs much at one moment and no more of it.
_MOST_EXTENDED_MIB = 48.0
# A decoder that samples maps is known by how much a kernel reads at computed indices: 7 MiB in a layer of RT-DETR, and
# 2.4 where a YOLO selects its boxes.
_LEAST_SAMPLED_MIB = 4.0
# Scores that are not fused are held before and after the softmax.
_COPIES_OF_SCORES = 2


@dataclass(frozen=True)
class ContextMemory:
    """Memory in MiB, and the bounds that other networks' logs give it."""

    likely: float
    low: float
    high: float


def context_mib(engine: EngineWork) -> ContextMemory:
    """Return the memory of an execution context, which trtexec prints as it creates it."""
    decoder = any(work.gathered_bytes >= _LEAST_SAMPLED_MIB * MIB for work in engine.works)
    scores_mib = _COPIES_OF_SCORES * max((work.scores_bytes for work in engine.works), default=0) / MIB
    extended = min(engine.live_mib, _MOST_EXTENDED_MIB)
    factors = _WITH_DECODER if decoder else _PLAIN
    return ContextMemory(*(engine.live_mib + factor * extended + scores_mib for factor in factors))
