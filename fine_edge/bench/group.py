"""Measure one group: its rows are warmed up, timed and counted against each other, in the same rounds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fine_edge import console
from fine_edge.bench import memory
from fine_edge.bench.end_to_end import Way, encoded, end_to_end, measure_overlapped, measure_stages
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
from fine_edge.bench.setup import Extras, Setup
from fine_edge.bench.stages import EndToEnd
from fine_edge.images import NamedImage
from fine_edge.runners.base import NullRunner, Timing


@dataclass(frozen=True)
class Timings:
    """The results of measuring one group.

    Attributes:
        samples: latencies, by row and round.
        throughput: slices, by row.
        ends: stages from JPEGs to detections, by row; ``None`` where they were not measured.
        extras: figures besides time, by row.
        harness: time that measuring adds.
        process_peak_mib: highest resident set of this process meanwhile.
        backend: name that the runners give their backend.
    """

    samples: list[list[Timing]]
    throughput: list[list[Slice]]
    ends: list[EndToEnd | None]
    extras: list[Extras]
    harness: HarnessCost
    process_peak_mib: float
    backend: str

    def samples_ms(self, row: int) -> tuple[float, ...]:
        """Return the latencies of a row by round."""
        return tuple(sample.latency_ms for sample in self.samples[row])

    def compute_ms(self, row: int) -> tuple[float, ...] | None:
        """Return the GPU times of a row by round; ``None`` where the backend does not measure them."""
        times = tuple(sample.compute_ms for sample in self.samples[row] if sample.compute_ms is not None)
        return times if len(times) == len(self.samples[row]) else None


def time_group(prepared: Sequence[Prepared], images: Sequence[NamedImage], setup: Setup, heading: str = "") -> Timings:
    """Measure the rows of a group against each other; ``heading`` begins each line of progress."""
    memory.forget_peak()
    feeds = make_feeds(prepared, images)
    with setup:
        subjects = [
            Subject(row.row.label, runner, feed)
            for row, runner, feed in zip(prepared, setup.runners, feeds, strict=True)
        ]
        with _ticking(f"{heading}warming up", len(subjects)) as tick:
            for subject in subjects:
                warm_up(subject)
                tick()
        samples = _latency(subjects, setup, heading)
        throughput = _throughput(subjects, setup, heading)
        ends = _end_to_end(prepared, images, setup, heading)
        setup.finish(images)
        outputs = subjects[0].runner.run(feeds[0][0])
        harness = harness_cost(Subject("null", NullRunner(outputs), feeds[0]))
        extras = [
            setup.extras(index, [sample.latency_ms for sample in row], throughput[index])
            for index, row in enumerate(samples)
        ]
        return Timings(samples, throughput, ends, extras, harness, memory.process_peak_mib(), subjects[0].runner.name)


def _latency(subjects: Sequence[Subject], setup: Setup, heading: str) -> list[list[Timing]]:
    length: Length = setup.length
    with _ticking(f"{heading}latency rounds", length.rounds) as tick:

        def round_done() -> None:
            setup.round_done()
            tick()

        return measure_latency(subjects, length.rounds, round_done, latency_s=length.latency_s)


def _throughput(subjects: Sequence[Subject], setup: Setup, heading: str) -> list[list[Slice]]:
    length = setup.length
    with _ticking(f"{heading}throughput slices", length.slices) as tick, setup.throughput():
        return measure_throughput(subjects, length.slices, length.slice_ms, tick, around=setup.slice_of)


def _end_to_end(
    prepared: Sequence[Prepared], images: Sequence[NamedImage], setup: Setup, heading: str
) -> list[EndToEnd | None]:
    """Measure the stages of the rows that decode their outputs, against each other."""
    found: list[EndToEnd | None] = [None] * len(prepared)
    length = setup.length
    if not length.end_to_end_rounds:
        return found
    jpegs = encoded(images)
    ways = {
        index: Way(runner, row.contract, jpegs)
        for index, (row, runner) in enumerate(zip(prepared, setup.runners, strict=True))
        if row.contract and row.row.decodes
    }
    places, subjects = list(ways), list(ways.values())
    with _ticking(f"{heading}end-to-end rounds", length.end_to_end_rounds) as tick:
        passages = measure_stages(subjects, length.end_to_end_rounds, tick)
    with _ticking(f"{heading}end-to-end slices", length.slices) as tick, setup.throughput():
        slices = measure_overlapped(
            subjects, length.slices, tick, lambda number: setup.overlapped_slice_of(places[number])
        )
    for index, way, taken, parts in zip(places, subjects, passages, slices, strict=True):
        found[index] = end_to_end(way, taken, parts, setup.overlapped_energy_mj(index, parts))
    return found


@contextlib.contextmanager
def _ticking(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar that is drawn only between measurements: its own thread would take time from them."""
    with console.progress() as bar:
        bar.stop()
        bar.live.auto_refresh = False
        bar.start()
        task = bar.add_task(title, total=total)

        def tick() -> None:
            bar.advance(task)
            bar.refresh()

        yield tick
