"""The backends that can be measured: what each needs of the machine, how long it takes, and its rig."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fine_edge.bench import device
from fine_edge.bench.device import DeviceOptions, DeviceRig
from fine_edge.bench.measure import Length
from fine_edge.bench.options import BenchOptions
from fine_edge.bench.prepare import Prepared
from fine_edge.bench.rig import HostRig, Rig

# Fifteen times both orders of a pair, five times the balanced orders of six rows: on a quiet machine this pins a ratio
# to well under 1 %.
ROUNDS = 30
QUICK_ROUNDS = 6
ROUNDS_PER_SLICE = 5
SLICE_MS = 1000.0


@dataclass(frozen=True)
class Backend:
    """One way to run artifacts.

    Attributes:
        require: raises, about a model, where this machine cannot run it.
        length: how long a group is measured.
        rig: of a group, its runners and what it measures besides time.
    """

    require: Callable[[str], None]
    length: Callable[[BenchOptions], Length]
    rig: Callable[[Sequence[Prepared], Length, BenchOptions], Rig]


def _nothing_required(_model: str) -> None:
    """ONNX Runtime comes with the package."""


def _host_length(options: BenchOptions) -> Length:
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    return Length(rounds, 0.0, max(1, rounds // ROUNDS_PER_SLICE), SLICE_MS)


def _host_rig(prepared: Sequence[Prepared], length: Length, options: BenchOptions) -> Rig:
    return HostRig(prepared, length, options.threads)


def _device_length(options: BenchOptions) -> Length:
    return device.length(options.rounds, QUICK_ROUNDS if options.quick else None)


def _device_rig(prepared: Sequence[Prepared], length: Length, options: BenchOptions) -> Rig:
    how = DeviceOptions(
        precision=options.chosen_precision,
        folder=options.folder,
        cuda_graph=options.cuda_graph,
        spin=options.spin,
        quick=options.quick,
        profile=options.profile,
    )
    return DeviceRig(prepared, length, how)


BACKENDS: dict[str, Backend] = {
    "ort": Backend(_nothing_required, _host_length, _host_rig),
    "trt": Backend(device.require_device, _device_length, _device_rig),
}
