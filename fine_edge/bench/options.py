"""What to measure, on what, and how long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fine_edge.bench import suites
from fine_edge.bench.predict import BACKEND as ESTIMATES
from fine_edge.bench.suites import Suite
from fine_edge.contract import Precision
from fine_edge.engine.options import EnginePrecision
from fine_edge.errors import ConfigError

PRECISIONS: dict[str, tuple[EnginePrecision, ...]] = {"ort": ("fp32", "fp16"), "trt": ("fp16", "fp16-weak", "fp32")}
"""What each backend takes, its default first."""


@dataclass(frozen=True)
class BenchOptions:
    """What to measure and how long. What is ``None`` is the backend's own choice.

    Attributes:
        suite: name in :data:`fine_edge.bench.suites.SUITES`.
        only: names or patterns of the groups to measure; empty: all.
        backend: ``ort`` or ``trt``.
        precision: of the artifacts.
        images: folder of photographs.
        rounds: latency samples of each row.
        quick: a look, nothing to quote.
        input_hw: height and width of all inputs, pixels; zeros: each detector's own.
        threads: of ONNX Runtime.
        folder: of ONNX files, engines and recipes.
        rtx: whether to add TensorRT-RTX's memory figures.
        cuda_graph, spin, profile: of TensorRT, see :class:`fine_edge.bench.device.DeviceOptions`.
    """

    suite: str = "table3"
    only: tuple[str, ...] = ()
    backend: str = "ort"
    precision: EnginePrecision | None = None
    images: Path | None = None
    rounds: int | None = None
    quick: bool = False
    input_hw: tuple[int, int] = (0, 0)
    threads: int | None = None
    folder: Path = Path("engines")
    rtx: bool = False
    cuda_graph: bool = False
    spin: bool = False
    profile: Path | None = None

    def __post_init__(self) -> None:
        _ = self.chosen_suite
        if self.backend not in PRECISIONS:
            # Estimates are asked for by the same option, and answered elsewhere.
            mend = f"known: {', '.join((*PRECISIONS, ESTIMATES))}"
            raise ConfigError(f"no backend is called {self.backend!r}", where="--backend", mend=mend)
        known = PRECISIONS[self.backend]
        if self.chosen_precision not in known:
            what = f"{self.backend} has no precision {self.precision!r}"
            raise ConfigError(what, where="--precision", mend=f"known: {', '.join(known)}")
        if self.rounds is not None and self.rounds < 2:
            raise ConfigError(f"{self.rounds} is too few, a ratio needs at least 2", where="--rounds")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"must be at least 1, not {self.threads}", where="--threads")
        self._refuse_foreign_options()

    def _refuse_foreign_options(self) -> None:
        """An option that would change nothing is a misunderstanding."""
        of_trt = {"--cuda-graph": self.cuda_graph, "--spin": self.spin, "--profile": self.profile is not None}
        foreign = {"ort": of_trt, "trt": {"--threads": self.threads is not None}}[self.backend]
        for option, given in foreign.items():
            if given:
                raise ConfigError(f"means nothing to the backend {self.backend}", where=option, mend="leave it out")

    @property
    def chosen_suite(self) -> Suite:
        """The groups that were asked for."""
        return suites.find(self.suite).only(self.only)

    @property
    def chosen_precision(self) -> EnginePrecision:
        """What was asked for, or the backend's first."""
        return self.precision or PRECISIONS[self.backend][0]

    @property
    def onnx_precision(self) -> Precision:
        """Of the ONNX files: a strongly typed FP16 engine comes from an FP16 graph, all others from the FP32 one."""
        return "fp16" if self.chosen_precision == "fp16" else "fp32"
