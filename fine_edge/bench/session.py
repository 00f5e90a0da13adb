"""Run a bench: measure the rows of a group in the same rounds, one group after the other, and make a record of all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from fine_edge import console, machine
from fine_edge.bench import memory
from fine_edge.bench.backends import BACKENDS, BenchOptions
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
from fine_edge.bench.memory import RtxMemory
from fine_edge.bench.prepare import (
    Prepared,
    artifacts_folder,
    export_request,
    export_row,
    load_images,
    make_feeds,
    prepare,
)
from fine_edge.bench.record import MeasuredGroup, Record
from fine_edge.bench.row import EndToEnd, Row
from fine_edge.bench.setup import Extras, Setup
from fine_edge.bench.suites import Group, Suite, SuiteRow
from fine_edge.export.artifacts import require_library
from fine_edge.images import NamedImage
from fine_edge.runners.base import NullRunner, Timing
from fine_edge.zoo import paper
from fine_edge.zoo.catalog import CATALOG

# Measure one group: its rows are warmed up, timed and counted against each other, in the same rounds.


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
        # First runs allocate memory and choose kernels.
        with _ticking(f"{heading}warming up", len(subjects)) as tick:
            for subject in subjects:
                warm_up(subject)
                tick()
        samples = _latency(subjects, setup, heading)
        throughput = _throughput(subjects, setup, heading)
        ends = _end_to_end(prepared, images, setup, heading)
        setup.finish(images)
        outputs = subjects[0].runner.run(feeds[0][0])
        # The same calls around a runner that does nothing: what the harness adds to each sample.
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


# Load average per core above which other programs are likely to disturb a measurement.
BUSY_SHARE = 0.5


@dataclass(frozen=True)
class ReadyGroup:
    """A group whose files are there; ``rtx`` is by row."""

    name: str
    prepared: Sequence[Prepared]
    rtx: Sequence[RtxMemory | None]
    setup: Setup


def run_bench(options: BenchOptions) -> Record:
    """Measure a suite on this machine.

    Raises:
        FineEdgeError: when an image, an export or the backend fails.
    """
    backend, suite = BACKENDS[options.backend], options.chosen_suite
    backend.require(suite.rows[0].model)
    length = backend.length(options)
    images = load_images(options.images, length.rounds, options.frame)
    load = os.getloadavg()[0]  # before our own work raises it
    for row in suite.rows:
        require_library(
            export_request(row, options.input_hw, options.onnx_precision, options.frame),
            artifacts_folder(row, options.folder),
            plain=row.exporter == "plain",
        )
    return measure_groups(suite, [_ready(group, options) for group in suite.groups], images, options, load)


def measure_groups(
    suite: Suite, groups: Sequence[ReadyGroup], images: Sequence[NamedImage], options: BenchOptions, load: float
) -> Record:
    """Measure groups one after the other, and return the record.

    Args:
        suite: what they are of.
        groups: with their files.
        images: photographs.
        options: how to measure; the precision is the record's.
        load: of the machine before any work of ours.
    """
    for group in groups:
        group.setup.prepare()
    console.remark(f"images: {', '.join(image.name for image in images)}")
    _warn_of_load(load)
    timings = []
    for number, group in enumerate(groups, 1):
        heading = f"group {number} of {len(groups)}, {group.name}: " if len(groups) > 1 else ""
        if heading:
            console.remark(heading + ", ".join(row.row.label for row in group.prepared))
        timings.append(time_group(group.prepared, images, group.setup, heading))
    return _record(suite, options, [image.name for image in images], groups, timings)


def _ready(group: Group, options: BenchOptions) -> ReadyGroup:
    # First, because an FP16 export writes the FP32 file again, which must not change once its hash is in the record.
    rtx = [_rtx_memory(row, options) for row in group.rows]
    asked = options.folder, options.input_hw, options.onnx_precision, options.frame
    prepared = [prepare(row, *asked) for row in group.rows]
    backend = BACKENDS[options.backend]
    return ReadyGroup(group.name, prepared, rtx, backend.setup(prepared, backend.length(options), options))


def _warn_of_load(load: float) -> None:
    cores = machine.describe()["cores"]
    if load > BUSY_SHARE * cores:
        console.warn(f"other programs keep this machine busy (load {load:.1f} on {cores} cores); figures will scatter")


def _rtx_memory(row: SuiteRow, options: BenchOptions) -> RtxMemory | None:
    # Plain exports are only made in FP32.
    if not options.rtx or row.exporter == "plain":
        return None
    path = export_row(row, options.folder, options.input_hw, "fp16", options.frame)
    with console.status(f"compiling {row.label} in FP16"):
        return memory.measure_rtx(path)


def _record(
    suite: Suite,
    options: BenchOptions,
    images: Sequence[str],
    groups: Sequence[ReadyGroup],
    timings: Sequence[Timings],
) -> Record:
    rows = tuple(
        row
        for group, timed in zip(groups, timings, strict=True)
        for row in _rows(suite, options.chosen_precision, group, timed)
    )
    sizes = {item.input_hw for group in groups for item in group.prepared}
    return Record(
        suite=suite.name,
        title=suite.title,
        backend=timings[0].backend,
        precision=options.chosen_precision,
        input_hw=sizes.pop() if len(sizes) == 1 else None,
        machine=machine.describe(),
        images=tuple(images),
        rounds=min(len(row.samples_ms) for row in rows),
        threads=options.threads,
        quick=options.quick,
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        harness=max((timed.harness for timed in timings), key=lambda cost: cost.worst_ms),
        rows=rows,
        platform=groups[0].setup.platform,
        cuda_graph=all(group.setup.cuda_graph for group in groups),
        groups=tuple(
            MeasuredGroup(group.prepared[0].row.label, timed.process_peak_mib)
            for group, timed in zip(groups, timings, strict=True)
        ),
    )


def make_row(item: Prepared, index: int, timings: Timings, **more: Any) -> Row:
    """Return a row of a record.

    Args:
        item: what was measured.
        index: of it in its group.
        timings: of the group.
        more: fields of the row that do not follow from these.
    """
    entry, cost = CATALOG.get(item.row.model), item.contract.cost if item.contract else None
    extras = timings.extras[index]
    return Row(
        model=item.row.label,
        attention=entry.attention if entry else None,
        complexity=entry.complexity if entry else "-",
        params_m=cost["params"] / 1e6 if cost else None,
        flops_g=cost["flops"] / 1e9 if cost else None,
        mem_mib=extras.mem_mib,
        weights_mib=item.weights_mib,
        artifact_sha256=item.sha256,
        random_weights=item.random_weights,
        samples_ms=timings.samples_ms(index),
        throughput=tuple(timings.throughput[index]),
        compute_ms=timings.compute_ms(index),
        engine=extras.engine,
        state=extras.state,
        input_hw=item.input_hw,
        **more,
    )


def _rows(suite: Suite, precision: str, group: ReadyGroup, timings: Timings) -> list[Row]:
    found = []
    for index, item in enumerate(group.prepared):
        stages = timings.ends[index]
        row = make_row(
            item,
            index,
            timings,
            rtx=group.rtx[index],
            paper=_paper(item.row.model, suite.paper_table),
            end_to_end_ms=stages.after_decode_ms if stages else timings.extras[index].end_to_end_ms,
            end_to_end=stages,
            precision=None if item.row.precision in (None, precision) else item.row.precision,
            baseline=group.prepared[0].row.label,
        )
        found.append(row)
    return found


def _paper(model: str, table: str | None) -> dict[str, float | None] | None:
    """Return the row of the paper's table for the model; ``None`` where it has none."""
    figures = next((row for row in paper.rows_of(model) if row.table == table), None)
    if figures is None:
        return None
    stated = {"mem_mb": figures.mem_mb, "fps": figures.fps, "latency_ms": figures.latency_ms, **figures.accuracy}
    # The paper prints whole numbers; a record that was read and written again holds floats.
    return {name: None if value is None else float(value) for name, value in stated.items()}
