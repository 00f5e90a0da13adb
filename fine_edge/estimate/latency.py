"""The estimate itself: a latency with its interval, and everything that it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fine_edge.estimate.calibration import Calibration
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.engine import EngineWork
from fine_edge.estimate.roofline import Bound, KernelTime, kernel_times

BOUNDS: tuple[Bound, ...] = ("compute", "memory", "launch")

RESERVED_GIB = 2.5
"""What JetPack, CUDA and TensorRT take of the board's memory beside an engine: a guess, generous on purpose."""


@dataclass(frozen=True)
class Estimate:
    """What one engine would take on a board. Nothing was measured.

    Attributes:
        engine: that was compiled.
        device: the board.
        mode: its power mode.
        calibration: that the constants are from.
        kernels: in the order of execution.
    """

    engine: EngineWork
    device: Device
    mode: Mode
    calibration: Calibration
    kernels: tuple[KernelTime, ...]

    @property
    def compute_ms(self) -> float:
        """All kernels, one after the other."""
        return sum(kernel.ms for kernel in self.kernels)

    @property
    def latency_ms(self) -> float:
        """Input to the device, kernels, outputs to the host."""
        return self.compute_ms + self.engine.io_bytes / (1e6 * self.calibration.constants.copy_gb_s)

    @property
    def latency_ms_low(self) -> float:
        """Lower end: no row that the calibration had not seen was overestimated by more."""
        return self.latency_ms * self.calibration.spread[0]

    @property
    def latency_ms_high(self) -> float:
        """Upper end: no row that the calibration had not seen was underestimated by more."""
        return self.latency_ms * self.calibration.spread[1]

    @property
    def fps(self) -> float:
        """Back to back, the copies of one inference behind the kernels of another, as trtexec's throughput."""
        return 1000 / self.compute_ms

    @property
    def bound_ms(self) -> dict[Bound, float]:
        """Time of the kernels bound by each."""
        return {bound: sum(kernel.ms for kernel in self.kernels if kernel.bound == bound) for bound in BOUNDS}

    def module_ms(self) -> dict[str, float]:
        """Time by module of the detector and part of FINE, in the order of execution."""
        found: dict[str, float] = {}
        for kernel in self.kernels:
            found[kernel.work.module] = found.get(kernel.work.module, 0.0) + kernel.ms
        return found

    @property
    def memory_mib(self) -> float:
        """Activations and weights."""
        return self.engine.activation_mib + self.engine.weights_mib

    @property
    def fits(self) -> bool:
        """Whether the board's memory holds them beside everything else."""
        return self.memory_mib / 1024 < self.device.memory_gib - RESERVED_GIB

    def slowest(self, count: int = 10) -> list[KernelTime]:
        """The kernels that take longest."""
        return sorted(self.kernels, key=lambda kernel: -kernel.ms)[:count]

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` gives it."""
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
    """Apply a board's constants to an engine's work; in another mode than theirs, by that mode's clocks."""
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
