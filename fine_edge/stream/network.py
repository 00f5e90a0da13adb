"""The network of a stream: one batch at a time in the caller's thread, or several, each in a thread of its own.

A GPU computes one batch at a time, and CUDA binds its context to the thread that made it. A CPU that gives each of its
cores a batch of its own finishes more of them than one that shares each batch among its cores, and has room for the
other stages; but every single batch takes longer, so that this is for sources that wait.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fine_edge import machine
from fine_edge.preprocess import Placement
from fine_edge.runners.base import Array, Runner
from fine_edge.stream.source import Frame

# Each batch at a time holds memory of its own, and no decoder feeds more.
_MOST_AT_A_TIME = 8


@dataclass(frozen=True)
class Batch:
    """Frames that go through the network together; ``feed`` is filled up with the last one."""

    frames: tuple[Frame, ...]
    placements: tuple[Placement, ...]
    feed: Array


@dataclass(frozen=True)
class Answers:
    """A batch, what the network gave for it, and how long that took."""

    batch: Batch
    outputs: dict[str, Array]
    took_ms: float


def batches_at_a_time() -> int:
    """Return how many batches a CPU computes at a time where no source is live: one a core."""
    return min(machine.cores(), _MOST_AT_A_TIME)


class NetworkStage:
    """A runner behind a queue of ``at_a_time`` threads, or in the caller's own for one batch at a time."""

    def __init__(self, runner: Runner, input_name: str, at_a_time: int = 1) -> None:
        self._runner, self._input, self.at_a_time = runner, input_name, at_a_time
        self._pool = ThreadPoolExecutor(at_a_time, "network") if at_a_time > 1 else None

    def begin(self, batch: Batch) -> Future[Answers]:
        """Begin a batch; in the caller's own thread it is done on return, and errors are raised here."""
        if self._pool:
            return self._pool.submit(self._run, batch)
        # A future all the same: what comes behind waits for both kinds alike, in the order of the batches.
        done: Future[Answers] = Future()
        done.set_result(self._run(batch))
        return done

    def _run(self, batch: Batch) -> Answers:
        begun = time.perf_counter()
        outputs = self._runner.run({self._input: batch.feed})
        took_ms = 1e3 * (time.perf_counter() - begun)
        # A backend may use the memory of its outputs again.
        return Answers(batch, {key: np.array(value) for key, value in outputs.items()}, took_ms)

    def close(self) -> None:
        """Wait for the batches that have begun, and drop the others."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
