"""Time several runners against each other. This file knows runners and inputs, but no models, records or tables.

Latency and throughput are measured separately: one times single inferences, the other counts how many fit into a slice
of wall time.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from fine_edge.fields import Amount, Count, Positive
from fine_edge.runners.base import Array, TimedRunner, Timing
from fine_edge.samples import median

WARMUP_MS = 200.0  # as in trtexec
WARMUP_RUNS = 3  # a CPU backend allocates on the first run and may still do so on the second
SLICE_QUERIES = 2  # one query alone would measure a latency
# Enough null inferences for a stable median; they take milliseconds.
_NULL_ROUNDS = 2000
_NULL_SLICES = 3


@dataclass(frozen=True)
class Subject:
    """A runner to time, with its inputs by image; all subjects get the same images."""

    name: str
    runner: TimedRunner
    feeds: tuple[dict[str, Array], ...]

    def feed(self, image: int) -> dict[str, Array]:
        """Return the inputs of an image; numbers beyond the images start again from the first."""
        return self.feeds[image % len(self.feeds)]

    def infer(self, image: int) -> None:
        """Run one inference."""
        self.runner.run(self.feed(image))

    def timed(self, image: int) -> Timing:
        """Run one inference and return the times that its backend measures."""
        return self.runner.timed(self.feed(image))


@dataclass(frozen=True)
class Length:
    """The length of a measurement.

    Attributes:
        rounds: lowest number of latency samples of each subject.
        latency_s: rounds go on until the samples of each subject add up to this.
        slices: number of throughput slices of each subject.
        slice_ms: shortest time of a slice.
        end_to_end_rounds: number of samples of each stage from JPEG to detections; 0: stages are not measured.
    """

    rounds: int
    latency_s: float
    slices: int
    slice_ms: float
    end_to_end_rounds: int = 0


@dataclass(frozen=True)
class Slice:
    """Queries that were run back to back, and the wall time that they took."""

    queries: Count
    wall_s: Positive


@dataclass(frozen=True)
class HarnessCost:
    """Time that measuring adds to an inference: to a latency sample, and to a query in a throughput slice."""

    latency_ms: Amount
    query_ms: Amount

    @property
    def worst_ms(self) -> float:
        """Return the larger of the two."""
        return max(self.latency_ms, self.query_ms)


def _nothing() -> None:
    """Report progress to nobody."""


def balanced_orders(count: int) -> list[list[int]]:
    """Return orders of ``count`` subjects in which each follows each other one equally often.

    This is a Williams design: ``count`` orders, or twice as many where ``count`` is odd. A subject that always followed
    the same neighbour would inherit its caches and its heat.
    """
    # 0, 1, -1, 2, -2, ...: of an even count all steps differ modulo the count, so that shifting it by every start gives
    # each pair of neighbours once. Of an odd count only the reversed orders complete the balance (Williams, 1949).
    zigzag = [(step + 1) // 2 if step % 2 else -(step // 2) for step in range(count)]
    orders = [[(start + offset) % count for offset in zigzag] for start in range(count)]
    return orders + [order[::-1] for order in orders] if count % 2 else orders


def endless_schedule(count: int, seed: int = 0) -> Iterator[list[int]]:
    """Yield the order of subjects for each round: all balanced orders, then all again in another shuffle."""
    rng = np.random.default_rng(seed)
    orders = balanced_orders(count)
    # Without a subject there is no order, and nothing to yield for ever.
    while orders:
        yield from (orders[i] for i in rng.permutation(len(orders)))


def schedule(count: int, rounds: int, seed: int = 0) -> list[list[int]]:
    """Return the first ``rounds`` orders of :func:`endless_schedule`."""
    return list(itertools.islice(endless_schedule(count, seed), rounds))


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Collect garbage now, then not again until the block ends."""
    # A collection that falls into a sample would be taken for latency.
    # Now, so that the garbage of loading is not left to the first measurement; and off, because a collection would
    # land in whichever sample is running.
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def warm_up(subject: Subject) -> None:
    """Run until at least :data:`WARMUP_MS` have passed and :data:`WARMUP_RUNS` runs are done."""
    deadline_ns = time.perf_counter_ns() + int(WARMUP_MS * 1e6)
    runs = 0
    while runs < WARMUP_RUNS or time.perf_counter_ns() < deadline_ns:
        subject.infer(runs)
        runs += 1


def measure_latency(
    subjects: Sequence[Subject],
    rounds: int,
    tick: Callable[[], None] = _nothing,
    seed: int = 0,
    *,
    latency_s: float = 0.0,
) -> list[list[Timing]]:
    """Time every subject once in each round, on the round's image, each after one untimed run of its own.

    Args:
        subjects: warmed up.
        rounds: lowest number of samples of each subject.
        tick: called after each round, outside of all timing.
        seed: of the order of subjects.
        latency_s: rounds go on until the samples of each subject add up to this.

    Returns:
        Timings by subject and round.
    """
    samples: list[list[Timing]] = [[] for _ in subjects]
    sampled_ms = [0.0] * len(subjects)
    with no_garbage_collection():
        for image, order in enumerate(endless_schedule(len(subjects), seed)):
            # The fastest subject decides: it is the last to have samples for so long.
            if image >= rounds and min(sampled_ms) >= latency_s * 1e3:
                break
            for index in order:
                # Without this untimed run a sample would begin with the previous subject's data in the caches and
                # with its thread pool still spinning on the same cores; that added 12 % to an RT-DETR R18 in a trial
                # of 12 pairs on two shared cores.
                subjects[index].infer(image)
                timing = subjects[index].timed(image)
                samples[index].append(timing)
                sampled_ms[index] += timing.latency_ms
            tick()
    return samples


def measure_calls(
    calls: Sequence[Callable[[int], object]], rounds: int, tick: Callable[[], None] = _nothing, seed: int = 0
) -> list[list[float]]:
    """Time each call once in each round and return milliseconds by call and round; calls get the round's number."""
    samples: list[list[float]] = [[] for _ in calls]
    with no_garbage_collection():
        for image, order in enumerate(schedule(len(calls), rounds, seed)):
            for index in order:
                start_ns = time.perf_counter_ns()
                calls[index](image)
                samples[index].append((time.perf_counter_ns() - start_ns) / 1e6)
            tick()
    return samples


def _unwatched(_index: int) -> AbstractContextManager[None]:
    return nullcontext()


def measure_throughput(
    subjects: Sequence[Subject],
    slices: int,
    slice_ms: float,
    tick: Callable[[], None] = _nothing,
    seed: int = 0,
    *,
    around: Callable[[int], AbstractContextManager[None]] = _unwatched,
) -> list[list[Slice]]:
    """Run queries back to back in slices of at least ``slice_ms``; return the slices by subject.

    The slices of the subjects are interleaved. ``around`` returns the context that is entered for a slice of the
    subject with that index.
    """
    taken: list[list[Slice]] = [[] for _ in subjects]
    with no_garbage_collection():
        for order in schedule(len(subjects), slices, seed):
            for index in order:
                with around(index):
                    taken[index].append(_run_slice(subjects[index], slice_ms))
            tick()
    return taken


def _run_slice(subject: Subject, slice_ms: float) -> Slice:
    start_ns = time.perf_counter_ns()
    deadline_ns = start_ns + int(slice_ms * 1e6)

    def feeds() -> Iterator[dict[str, Array]]:
        for query in itertools.count():
            # So many queries at least: of a slow detector only one or two would fit into a slice.
            # A device takes the next input while one computes: the clock is read when a query is handed out.
            if query >= SLICE_QUERIES and time.perf_counter_ns() >= deadline_ns:
                return
            yield subject.feed(query)

    # It returns when the outputs of all queries are on the host: none is counted before it is done.
    queries = subject.runner.back_to_back(feeds())
    return Slice(queries, (time.perf_counter_ns() - start_ns) / 1e9)


def harness_cost(null: Subject) -> HarnessCost:
    """Measure the harness: run both loops around a runner that does nothing."""
    warm_up(null)
    # By the same loops that time real runners, so that their cost is in it and nothing else.
    (samples,) = measure_latency([null], _NULL_ROUNDS)
    (slices,) = measure_throughput([null], _NULL_SLICES, slice_ms=10)
    query_s = sum(taken.wall_s for taken in slices) / sum(taken.queries for taken in slices)
    return HarnessCost(median([sample.latency_ms for sample in samples]), query_s * 1e3)
