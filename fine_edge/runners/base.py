"""The one contract of every backend."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fine_edge.contract import Contract

Array = NDArray[np.generic]

ROUNDED = "onnxruntime-cpu, FP16 rounded after every operator"
"""Name of the backend that says what a device would find, but not how fast."""


class Runner(Protocol):
    """Runs one network. ``run`` takes and gives named arrays with the shapes and types of the contract."""

    name: str
    """Of the backend, as records show it."""

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """One inference, synchronous: outputs are on the host when it returns."""
        ...

    def close(self) -> None:
        """Free what the backend holds."""
        ...


@dataclass(frozen=True)
class Timing:
    """One inference: input and outputs on the host, and the network alone where the backend can tell it apart."""

    latency_ms: float
    compute_ms: float | None = None


class TimedRunner(Runner, Protocol):
    """A runner that a bench can measure: each backend knows best how its own work is timed."""

    def timed(self, inputs: dict[str, Array]) -> Timing:
        """One inference and how long it took."""
        ...

    def back_to_back(self, feeds: Iterable[dict[str, Array]]) -> int:
        """Inferences as fast as the backend takes them; returns their number once all outputs are on the host."""
        ...


class WallTimed(ABC):
    """Timing for a backend whose ``run`` is all there is to time: by the wall clock, one after another."""

    @abstractmethod
    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """See :meth:`Runner.run`."""

    def timed(self, inputs: dict[str, Array]) -> Timing:
        """One ``run`` by ``perf_counter_ns``."""
        start_ns = time.perf_counter_ns()
        self.run(inputs)
        return Timing((time.perf_counter_ns() - start_ns) / 1e6)

    def back_to_back(self, feeds: Iterable[dict[str, Array]]) -> int:
        """One ``run`` after the other."""
        queries = 0
        for feed in feeds:
            self.run(feed)
            queries += 1
        return queries


class NullRunner(WallTimed):
    """Returns the same zeros every time."""

    name = "null"

    def __init__(self, contract: Contract) -> None:
        self._outputs: dict[str, Array] = {
            spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in contract.outputs
        }

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:  # noqa: ARG002 - the contract of a runner
        """Zeros of the contract's shapes."""
        return self._outputs

    def close(self) -> None:
        """Nothing to free."""
