"""Estimate a latency with its interval, and show the times that it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fine_edge.estimate.calibration import Calibration
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.engine import EngineWork
from fine_edge.estimate.roofline import Bound, KernelTime, kernel_times

BOUNDS: tuple[Bound, ...] = ("compute", "memory", "launch")

RESERVED_GIB = 2.5
"""Memory that JetPack, CUDA and TensorRT need beside an engine: a guess on the safe side."""


@dataclass(frozen=True)
class Estimate:
    """The estimated times of one engine on a board. Nothing was measured.

    Attributes:
        engine: the compiled engine.
        device: the board.
        mode: its power mode.
        calibration: where the constants come from.
        kernels: in the order of execution.
    """

    engine: EngineWork
    device: Device
    mode: Mode
    calibration: Calibration
    kernels: tuple[KernelTime, ...]

    @property
    def compute_ms(self) -> float:
        """Return the sum of the kernels' times."""
        return sum(kernel.ms for kernel in self.kernels)

    @property
    def latency_ms(self) -> float:
        """Return the time from copying the input to the device until the outputs are on the host."""
        return self.compute_ms + self.engine.io_bytes / (1e6 * self.calibration.constants.copy_gb_s)

    @property
    def latency_ms_low(self) -> float:
        """Return the lower end of the interval; no row left out of the fit was overestimated by more."""
        return self.latency_ms * self.calibration.spread[0]

    @property
    def latency_ms_high(self) -> float:
        """Return the upper end of the interval; no row left out of the fit was underestimated by more."""
        return self.latency_ms * self.calibration.spread[1]

    @property
    def fps(self) -> float:
        """Return the throughput back to back, where copies overlap with the next inference, as trtexec measures it."""
        return 1000 / self.compute_ms

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
        """Return the memory of activations and weights."""
        return self.engine.activation_mib + self.engine.weights_mib

    @property
    def fits(self) -> bool:
        """Return whether the board has enough memory for it beside everything else."""
        return self.memory_mib / 1024 < self.device.memory_gib - RESERVED_GIB

    def slowest(self, count: int = 10) -> list[KernelTime]:
        """Return the ``count`` kernels that take longest."""
        return sorted(self.kernels, key=lambda kernel: -kernel.ms)[:count]

    def to_json(self) -> dict[str, Any]:
        """Return the data that ``--json`` prints."""
        return {
            "device": self.device.name,
            "mode": self.mode.name,
            "estimate": True,
            "model": self.engine.name,
            "latency_ms": self.latency_ms,
            "latency_ms_low": self.latency_ms_low,
            "latency_ms_high": self.latency_ms_high,
            "fps": self.fps,
            "compute_ms": self.compute_ms,
            "bound_ms": self.bound_ms,
            "modules_ms": self.module_ms(),
            "inputs": self.engine.inputs,
            "flops": self.engine.graph_flops,
            "activation_mib": self.engine.activation_mib,
            "weights_mib": self.engine.weights_mib,
            "fits_in_memory": self.fits,
            "onnx_sha256": self.engine.onnx_sha256,
            "compiler": self.engine.compiler,
            "calibration": self.calibration.to_json(),
            "kernels": [_kernel_json(kernel) for kernel in self.kernels],
        }


def estimate(engine: EngineWork, device: Device, mode: Mode, calibration: Calibration) -> Estimate:
    """Apply a board's constants to an engine's work; another power mode than the fitted one scales by its clocks."""
    kernels = kernel_times(engine.works, device, mode, calibration.constants)
    return Estimate(engine, device, mode, calibration, tuple(kernels))


def _kernel_json(kernel: KernelTime) -> dict[str, Any]:
    return {
        "name": kernel.work.name,
        "ms": kernel.ms,
        "bound": kernel.bound,
        "flops": kernel.work.flops,
        "bytes": kernel.work.tensor_bytes,
        "module": kernel.work.module,
    }
