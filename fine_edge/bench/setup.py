"""A backend's setup for one group of rows: its runners, how long to measure, and what to measure besides time."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from fine_edge import console
from fine_edge.bench import memory
from fine_edge.bench.measure import Length, Slice
from fine_edge.bench.prepare import Prepared
from fine_edge.bench.row import EngineFigures, RowState
from fine_edge.images import NamedImage
from fine_edge.runners.base import TimedRunner
from fine_edge.runners.ort import OrtRunner


@dataclass(frozen=True)
class Extras:
    """Figures of a row besides latency and throughput; ``None`` where the backend does not measure them."""

    mem_mib: float | None = None
    end_to_end_ms: tuple[float, ...] | None = None
    engine: EngineFigures | None = None
    state: RowState | None = None


class Setup(ABC):
    """Loads the runners of one group when entered, and frees them when left; rows are known by their index.

    Attributes:
        length: how long to measure.
        runners: of the group's rows, once entered.
        platform: :class:`fine_edge.engine.platform.Platform` as JSON; ``None`` without TensorRT.
        cuda_graph: whether inferences are replayed from CUDA graphs.
    """

    def __init__(self, length: Length) -> None:
        self.length = length
        self.runners: Sequence[TimedRunner] = ()
        self.platform: dict[str, Any] | None = None
        self.cuda_graph = False
        self._open = contextlib.ExitStack()

    def prepare(self) -> None:  # noqa: B027 - optional
        """Make the files that loading needs; called for all groups before the first one is measured."""

    @abstractmethod
    def open(self, stack: contextlib.ExitStack) -> Sequence[TimedRunner]:
        """Load and return the runners; ``stack`` closes what is entered into it, also when a later one fails."""

    @abstractmethod
    def extras(self, index: int, samples_ms: Sequence[float], slices: Sequence[Slice]) -> Extras:
        """Return the figures of a row besides its times."""

    def __enter__(self) -> Setup:
        with contextlib.ExitStack() as stack:
            self.runners = self.open(stack)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def round_done(self) -> None:  # noqa: B027 - see prepare
        """Take note of the end of a latency round; called outside of all timing."""

    def throughput(self) -> AbstractContextManager[None]:
        """Return the context of all throughput slices."""
        return nullcontext()

    def slice_of(self, index: int) -> AbstractContextManager[None]:  # noqa: ARG002 - see throughput
        """Return the context of one throughput slice of a row."""
        return nullcontext()

    def overlapped_slice_of(self, index: int) -> AbstractContextManager[None]:  # noqa: ARG002 - see throughput
        """Return the context of one slice of a row from JPEGs to detections."""
        return nullcontext()

    def overlapped_energy_mj(self, index: int, slices: Sequence[Slice]) -> float | None:  # noqa: ARG002
        """Return the energy of an image in a row's slices from JPEGs to detections; ``None`` without power readings."""
        return None

    def finish(self, images: Sequence[NamedImage]) -> None:  # noqa: B027 - see prepare
        """Measure what needs runs of its own, after latency and throughput."""


class HostSetup(Setup):
    """ONNX Runtime on the CPU; the peak memory of each model is measured in a process of its own."""

    def __init__(self, prepared: Sequence[Prepared], length: Length, threads: int | None) -> None:
        super().__init__(length)
        self._prepared = prepared
        self._threads = threads
        self._peaks_mib: list[float] = []

    def open(self, stack: contextlib.ExitStack) -> list[OrtRunner]:
        self._peaks_mib = [self._peak_mib(row) for row in self._prepared]
        return [stack.enter_context(contextlib.closing(OrtRunner(row.path, self._threads))) for row in self._prepared]

    def _peak_mib(self, row: Prepared) -> float:
        with console.status(f"memory of {row.row.label}"):
            return memory.measure_peak_mib(row.path, self._threads, row.image.shape)

    def extras(self, index: int, samples_ms: Sequence[float], slices: Sequence[Slice]) -> Extras:  # noqa: ARG002
        return Extras(mem_mib=self._peaks_mib[index])
