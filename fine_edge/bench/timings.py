"""One group, loaded, timed and let go of again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fine_edge import console
from fine_edge.bench import memory
from fine_edge.bench.measure import (
    HarnessCost,
    Length,
    Slice,
    Subject,
    harness_cost,
    measure_latency,
    measure_throughput,
    warm_up,
)
from fine_edge.bench.prepare import Prepared, make_feeds
from fine_edge.bench.rig import Extras, Rig
from fine_edge.images import NamedImage
from fine_edge.runners.base import Timing
from fine_edge.runners.null import NullRunner


@dataclass(frozen=True)
class Timings:
    """What measuring a group gave.

    Attributes:
        samples: of latency, by row and round.
        throughput: slices by row.
        extras: what the rig found, by row.
        harness: what measuring cost.
        process_peak_mib: highest resident set of this process meanwhile.
        backend: as its runners name themselves.
    """

    samples: list[list[Timing]]
    throughput: list[list[Slice]]
    extras: list[Extras]
    harness: HarnessCost
    process_peak_mib: float
    backend: str

    def samples_ms(self, row: int) -> tuple[float, ...]:
        """Latencies of a row by round."""
        return tuple(sample.latency_ms for sample in self.samples[row])

    def compute_ms(self, row: int) -> tuple[float, ...] | None:
        """GPU times of a row by round, where the backend can tell them apart."""
        known = tuple(sample.compute_ms for sample in self.samples[row] if sample.compute_ms is not None)
        return known if len(known) == len(self.samples[row]) else None


def time_group(prepared: Sequence[Prepared], images: Sequence[NamedImage], rig: Rig, heading: str = "") -> Timings:
    """Measure the rows of a group against each other; ``heading`` begins each line of progress."""
    memory.forget_peak()
    feeds = make_feeds(prepared, images)
    with rig:
        subjects = [
            Subject(row.row.label, runner, feed) for row, runner, feed in zip(prepared, rig.runners, feeds, strict=True)
        ]
        with _ticking(f"{heading}warming up", len(subjects)) as tick:
            for subject in subjects:
                warm_up(subject)
                tick()
        samples = _latency(subjects, rig, heading)
        throughput = _throughput(subjects, rig, heading)
        rig.finish(images)
        contract = next(row.contract for row in prepared if row.contract)
        harness = harness_cost(Subject("null", NullRunner(contract), feeds[0]))
        extras = [
            rig.extras(index, [sample.latency_ms for sample in row], throughput[index])
            for index, row in enumerate(samples)
        ]
        return Timings(samples, throughput, extras, harness, memory.process_peak_mib(), subjects[0].runner.name)


def _latency(subjects: Sequence[Subject], rig: Rig, heading: str) -> list[list[Timing]]:
    length: Length = rig.length
    with _ticking(f"{heading}latency rounds", length.rounds) as tick:

        def round_done() -> None:
            rig.round_done()
            tick()

        return measure_latency(subjects, length.rounds, round_done, latency_s=length.latency_s)


def _throughput(subjects: Sequence[Subject], rig: Rig, heading: str) -> list[list[Slice]]:
    length = rig.length
    with _ticking(f"{heading}throughput slices", length.slices) as tick, rig.throughput():
        return measure_throughput(subjects, length.slices, length.slice_ms, tick, around=rig.slice_of)


@contextlib.contextmanager
def _ticking(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar that is drawn between measurements only: its own thread would take time from them."""
    with console.progress() as bar:
        bar.stop()
        bar.live.auto_refresh = False
        bar.start()
        task = bar.add_task(title, total=total)

        def tick() -> None:
            bar.advance(task)
            bar.refresh()

        yield tick
