"""The time of one kernel: the slowest of what it must do, plus what every kernel costs.

tensor    matrix products, padded to whole tiles and waves, on tensor cores
lanes     arithmetic and exponentials on CUDA cores; a fused attention cannot hide them behind its products
memory    bytes to and from memory, or sectors of scattered reads from L2, whichever takes longer
launch    the same for every kernel
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fine_edge.estimate.calibration import Constants
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.tiles import padded_flops
from fine_edge.estimate.work import KernelWork

Bound = Literal["compute", "memory", "launch"]


@dataclass(frozen=True)
class KernelTime:
    """A kernel's time, ms, and what it is bound by."""

    work: KernelWork
    compute_ms: float
    memory_ms: float
    launch_ms: float

    @property
    def ms(self) -> float:
        """Of the whole kernel."""
        return max(self.compute_ms, self.memory_ms) + self.launch_ms

    @property
    def bound(self) -> Bound:
        """The largest of the three."""
        if self.launch_ms >= max(self.compute_ms, self.memory_ms):
            return "launch"
        return "compute" if self.compute_ms >= self.memory_ms else "memory"


@dataclass(frozen=True)
class Demand:
    """A kernel's times at the board's peaks, ms: what constants, fitted to a board, are applied to."""

    tensor_ms: float
    lanes_ms: float
    memory_ms: float
    gather_ms: float
    is_attention: bool

    def timed(self, work: KernelWork, constants: Constants) -> KernelTime:
        """With the shares of its peaks that the board reaches."""
        tensor_ms = self.tensor_ms / constants.tensor_share
        compute_ms = tensor_ms + self.lanes_ms if self.is_attention else max(tensor_ms, self.lanes_ms)
        memory_ms = max(self.memory_ms / constants.memory_share, self.gather_ms / constants.gather_share)
        return KernelTime(work, compute_ms, memory_ms, constants.launch_us / 1e3)


def demands(works: Sequence[KernelWork], device: Device, mode: Mode) -> list[Demand]:
    """At the peaks of a mode, kernel by kernel."""
    peaks = device.peaks(mode)
    special_slots = device.lanes / device.special_lanes
    return [
        Demand(
            tensor_ms=padded_flops(work.products, peaks.multiprocessors) / peaks.tensor_flops_per_ms,
            lanes_ms=(work.plain + special_slots * work.special) / peaks.slots_per_ms,
            memory_ms=work.memory_bytes / peaks.memory_bytes_per_ms,
            gather_ms=work.gathered_bytes / peaks.l2_bytes_per_ms,
            is_attention=work.is_attention,
        )
        for work in works
    ]


def kernel_times(works: Sequence[KernelWork], device: Device, mode: Mode, constants: Constants) -> list[KernelTime]:
    """All kernels of an engine, in the order of execution."""
    found = demands(works, device, mode)
    return [demand.timed(work, constants) for work, demand in zip(works, found, strict=True)]
