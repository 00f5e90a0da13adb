"""The contract of every backend: how it runs a network, and how it is timed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

# The name of the backend that emulates FP16: it shows what a device detects, but not how fast.
ROUNDED = "onnxruntime-cpu, FP16 rounded after every operator"


class Runner(Protocol):
    """A network on a backend. ``run`` takes and returns named arrays with the shapes and types of the contract."""

    # The name of the backend in records.
    name: str

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Run one inference; return when the outputs are on the host."""
        ...

    def close(self) -> None:
        """Free the resources of the backend."""
        ...


@dataclass(frozen=True)
class Timing:
    """The times of one inference.

    Attributes:
        latency_ms: from inputs to outputs on the host.
        compute_ms: of the network alone; ``None`` where the backend does not measure it.
        h2d_ms, d2h_ms: of the copies to the device and back; ``None`` on a backend that copies nothing.
    """

    latency_ms: float
    compute_ms: float | None = None
    h2d_ms: float | None = None
    d2h_ms: float | None = None


class TimedRunner(Runner, Protocol):
    """A runner that a bench can measure; each backend times its own work."""

    def timed(self, inputs: dict[str, Array]) -> Timing:
        """Run one inference and return its times."""
        ...

    def run_timed(self, inputs: dict[str, Array]) -> tuple[dict[str, Array], Timing]:
        """Run one inference and return its outputs and its times."""
        ...

    def back_to_back(self, feeds: Iterable[dict[str, Array]]) -> int:
        """Run inferences at full throughput; return their number when all outputs are on the host."""
        ...


class WallTimed(ABC):
    """Timing by the wall clock, for a backend whose inferences run one after another."""

    @abstractmethod
    def run(self, inputs: dict[str, Array]) -> dict[str, Array]: ...

    def timed(self, inputs: dict[str, Array]) -> Timing:
        return self.run_timed(inputs)[1]

    def run_timed(self, inputs: dict[str, Array]) -> tuple[dict[str, Array], Timing]:
        start_ns = time.perf_counter_ns()
        outputs = self.run(inputs)
        return outputs, Timing((time.perf_counter_ns() - start_ns) / 1e6)

    def back_to_back(self, feeds: Iterable[dict[str, Array]]) -> int:
        queries = 0
        for feed in feeds:
            self.run(feed)
            queries += 1
        return queries


class NullRunner(WallTimed):
    """A runner that does nothing and returns what it was given, to measure the cost of the harness."""

    name = "null"

    def __init__(self, outputs: dict[str, Array]) -> None:
        self._outputs = outputs

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:  # noqa: ARG002 - the contract of a runner
        return self._outputs

    def close(self) -> None:
        """Do nothing: it holds no resources."""
