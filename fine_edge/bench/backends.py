"""The backends that the bench can measure: their requirements, how long they are measured, and their setup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fine_edge import samples
from fine_edge.bench import device, suites
from fine_edge.bench.device import DeviceOptions, DeviceSetup
from fine_edge.bench.measure import Length
from fine_edge.bench.prepare import Prepared
from fine_edge.bench.setup import HostSetup, Setup
from fine_edge.bench.suites import Suite
from fine_edge.contract import Precision
from fine_edge.engine.options import EnginePrecision
from fine_edge.errors import ConfigError

# A backend's name that :mod:`fine_edge.estimate` answers: nothing is measured.
ESTIMATES = "predict"
# The precisions of each backend, its default first.
PRECISIONS: dict[str, tuple[EnginePrecision, ...]] = {
    "ort": ("fp32", "fp16", "int8"),
    "trt": ("fp16", "fp16-weak", "fp32", "int8"),
}


@dataclass(frozen=True)
class BenchOptions:
    """What to measure and how long; ``None`` means the backend's default.

    Attributes:
        suite: name in :data:`fine_edge.bench.suites.SUITES`.
        only: names or patterns of the groups to measure; empty: all.
        backend: ``ort`` or ``trt``.
        precision: of the artifacts.
        images: folder of photographs.
        rounds: number of latency samples of each row.
        quick: take few samples, for a first impression.
        end_to_end: also measure the stages from JPEGs in memory to detections.
        input_hw: height and width of all inputs, pixels; zeros: each detector's own.
        frame: height and width of the frames that graphs take and preprocess themselves, pixels; ``None``: pictures.
        threads: number of threads of ONNX Runtime.
        folder: folder of ONNX files, engines and recipes.
        rtx: whether to add TensorRT-RTX's memory figures.
        cuda_graph, spin, profile: for TensorRT, see :class:`fine_edge.bench.device.DeviceOptions`.
    """

    suite: str = suites.DEFAULT_SUITE
    only: tuple[str, ...] = ()
    backend: str = "ort"
    precision: EnginePrecision | None = None
    images: Path | None = None
    rounds: int | None = None
    quick: bool = False
    end_to_end: bool = False
    input_hw: tuple[int, int] = (0, 0)
    frame: tuple[int, int] | None = None
    threads: int | None = None
    folder: Path = Path("engines")
    rtx: bool = False
    cuda_graph: bool = False
    spin: bool = False
    profile: Path | None = None

    def __post_init__(self) -> None:
        _ = self.chosen_suite
        if self.backend not in PRECISIONS:
            hint = f"known: {', '.join((*PRECISIONS, ESTIMATES))}"
            raise ConfigError(f"no backend is called {self.backend!r}", where="--backend", hint=hint)
        accepted = PRECISIONS[self.backend]
        if self.chosen_precision not in accepted:
            what = f"{self.backend} has no precision {self.precision!r}"
            raise ConfigError(what, where="--precision", hint=f"known: {', '.join(accepted)}")
        if self.rounds is not None and self.rounds < 2:
            raise ConfigError(f"{self.rounds} is too few, a ratio needs at least 2", where="--rounds")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"must be at least 1, not {self.threads}", where="--threads")
        self._refuse_foreign_options()
        if self.end_to_end and not any(row.decodes for row in self.chosen_suite.rows):
            what = f"no row of {self.suite} here gives detections: all outputs are raw, or of a plain export"
            raise ConfigError(what, where="--end-to-end", hint="choose another suite or group")

    def _refuse_foreign_options(self) -> None:
        """Refuse an option that the backend ignores, because its user expects an effect."""
        of_trt = {"--cuda-graph": self.cuda_graph, "--spin": self.spin, "--profile": self.profile is not None}
        foreign = {"ort": of_trt, "trt": {"--threads": self.threads is not None}}[self.backend]
        for option, given in foreign.items():
            if given:
                raise ConfigError(f"has no effect on the backend {self.backend}", where=option, hint="leave it out")

    @property
    def chosen_suite(self) -> Suite:
        """Return the groups that were asked for."""
        return suites.find(self.suite).only(self.only)

    @property
    def chosen_precision(self) -> EnginePrecision:
        """Return the precision that was asked for, or the backend's default."""
        return self.precision or PRECISIONS[self.backend][0]

    @property
    def end_to_end_rounds(self) -> int:
        """Return the number of samples of each stage; 0 where they were not asked for."""
        if not self.end_to_end:
            return 0
        return self.rounds or (QUICK_ROUNDS if self.quick else END_TO_END_ROUNDS)

    @property
    def onnx_precision(self) -> Precision:
        """Return the ONNX files' precision: strongly typed engines need a graph of their own, all others take FP32."""
        return self.chosen_precision if self.chosen_precision in ("fp16", "int8") else "fp32"


# Fifteen times both orders of a pair, five times the balanced orders of six rows. On a quiet machine the interval of a
# ratio is then well under 1 %.
ROUNDS = 30
QUICK_ROUNDS = 6
# Enough samples for the 90th percentile.
END_TO_END_ROUNDS = samples.FEWEST_SAMPLES[90]
ROUNDS_PER_SLICE = 5
SLICE_MS = 1000.0


@dataclass(frozen=True)
class Backend:
    """One way to run artifacts.

    Attributes:
        require: raises if this machine cannot run a model.
        length: returns how long a group is measured.
        setup: returns a group's setup.
    """

    require: Callable[[str], None]
    length: Callable[[BenchOptions], Length]
    setup: Callable[[Sequence[Prepared], Length, BenchOptions], Setup]


def _nothing_required(_model: str) -> None:
    """Accept every machine: ONNX Runtime comes with the package."""


def host_length(options: BenchOptions) -> Length:
    """Return how long ONNX Runtime is measured."""
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    return Length(rounds, 0.0, max(1, rounds // ROUNDS_PER_SLICE), SLICE_MS, options.end_to_end_rounds)


def _host_setup(prepared: Sequence[Prepared], length: Length, options: BenchOptions) -> Setup:
    return HostSetup(prepared, length, options.threads)


def device_length(options: BenchOptions) -> Length:
    """Return how long TensorRT is measured."""
    found = device.length(options.rounds, QUICK_ROUNDS if options.quick else None)
    return replace(found, end_to_end_rounds=options.end_to_end_rounds)


def _device_setup(prepared: Sequence[Prepared], length: Length, options: BenchOptions) -> Setup:
    how = DeviceOptions(
        precision=options.chosen_precision,
        folder=options.folder,
        cuda_graph=options.cuda_graph,
        spin=options.spin,
        quick=options.quick,
        profile=options.profile,
    )
    return DeviceSetup(prepared, length, how)


BACKENDS: dict[str, Backend] = {
    "ort": Backend(_nothing_required, host_length, _host_setup),
    "trt": Backend(device.require_device, device_length, _device_setup),
}
