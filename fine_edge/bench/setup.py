"""What a backend brings to one group of rows: its runners, how long to measure, and what it measures besides time."""

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
    """What a row of a record has besides latency and throughput; ``None`` where the backend does not measure it."""

    mem_mib: float | None = None
    end_to_end_ms: tuple[float, ...] | None = None
    engine: EngineFigures | None = None
    state: RowState | None = None


class Setup(ABC):
    """Entered before the group's first inference and left after its last; rows are known by their index.

    Attributes:
        length: how long to measure.
        runners: of the group's rows, once entered.
        platform: :class:`fine_edge.engine.platform.Platform` as JSON; ``None`` where no TensorRT takes part.
        cuda_graph: whether inferences are replayed from CUDA graphs.
    """

    def __init__(self, length: Length) -> None:
        self.length = length
        self.runners: Sequence[TimedRunner] = ()
        self.platform: dict[str, Any] | None = None
        self.cuda_graph = False
        self._open = contextlib.ExitStack()

    def prepare(self) -> None:  # noqa: B027 - most rigs have nothing to do here
        """Make what can be made without loading anything: called for all groups before the first one is measured."""

    @abstractmethod
    def open(self, stack: contextlib.ExitStack) -> Sequence[TimedRunner]:
        """Make the runners; ``stack`` closes what is put into it, also when a later one fails."""

    @abstractmethod
    def extras(self, index: int, samples_ms: Sequence[float], slices: Sequence[Slice]) -> Extras:
        """What was found of a row."""

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
        """Called between two latency rounds, outside of all timing."""

    def throughput(self) -> AbstractContextManager[None]:
        """Around all slices of throughput."""
        return nullcontext()

    def slice_of(self, index: int) -> AbstractContextManager[None]:  # noqa: ARG002 - see throughput
        """Around one slice of a row."""
        return nullcontext()

    def finish(self, images: Sequence[NamedImage]) -> None:  # noqa: B027 - see prepare
        """Measure what is measured apart, once latency and throughput are done."""


class HostSetup(Setup):
    """ONNX Runtime on the CPU: the peak memory of each model in a process of its own."""

    def __init__(self, prepared: Sequence[Prepared], length: Length, threads: int | None) -> None:
        super().__init__(length)
        self._prepared = prepared
        self._threads = threads
        self._peaks_mib: list[float] = []

    def open(self, stack: contextlib.ExitStack) -> list[OrtRunner]:
        """Weigh the group's models, then load them."""
        self._peaks_mib = [self._peak_mib(row) for row in self._prepared]
        return [stack.enter_context(contextlib.closing(OrtRunner(row.path, self._threads))) for row in self._prepared]

    def _peak_mib(self, row: Prepared) -> float:
        with console.status(f"memory of {row.row.label}"):
            return memory.measure_peak_mib(row.path, self._threads)

    def extras(self, index: int, samples_ms: Sequence[float], slices: Sequence[Slice]) -> Extras:  # noqa: ARG002
        """Peak memory."""
        return Extras(mem_mib=self._peaks_mib[index])
