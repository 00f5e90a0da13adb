"""One bench run: prepare, weigh, time, and put it all into a record."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from fine_edge import console, machine
from fine_edge.bench import device, memory, suites
from fine_edge.bench.device import DeviceOptions, DeviceRig
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
from fine_edge.bench.options import BenchOptions
from fine_edge.bench.prepare import Prepared, export_row, load_images, make_feeds, prepare
from fine_edge.bench.record import Record
from fine_edge.bench.rig import Extras, HostRig, Rig
from fine_edge.bench.row import Row
from fine_edge.bench.suites import Suite, SuiteRow
from fine_edge.images import NamedImage
from fine_edge.runners.base import Timing
from fine_edge.runners.null import NullRunner
from fine_edge.zoo import catalog

# Five balanced orders of six rows: on a quiet machine this pins a ratio to well under 1 % in about three minutes.
ROUNDS = 30
QUICK_ROUNDS = 6
ROUNDS_PER_SLICE = 5
SLICE_MS = 1000.0
# Load average per core above which somebody else is likely to run beside a measurement.
BUSY_SHARE = 0.5


@dataclass(frozen=True)
class Backend:
    """One way to run artifacts.

    Attributes:
        require: raises, about a model, where this machine cannot run it.
        length: how long it is measured.
        rig: its runners and what it measures besides time.
    """

    require: Callable[[str], None]
    length: Callable[[BenchOptions], Length]
    rig: Callable[[list[Prepared], Length, BenchOptions], Rig]


def _nothing_required(_model: str) -> None:
    """ONNX Runtime comes with the package."""


def _host_length(options: BenchOptions) -> Length:
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    return Length(rounds, 0.0, max(1, rounds // ROUNDS_PER_SLICE), SLICE_MS)


def _host_rig(prepared: list[Prepared], length: Length, options: BenchOptions) -> Rig:
    return HostRig(prepared, length, options.threads)


def _device_length(options: BenchOptions) -> Length:
    return device.length(options.rounds, QUICK_ROUNDS if options.quick else None)


def _device_rig(prepared: list[Prepared], length: Length, options: BenchOptions) -> Rig:
    how = DeviceOptions(
        precision=options.chosen_precision,
        folder=options.folder,
        cuda_graph=options.cuda_graph,
        spin=options.spin,
        quick=options.quick,
        profile=options.profile,
    )
    return DeviceRig(prepared, length, how)


BACKENDS: dict[str, Backend] = {
    "ort": Backend(_nothing_required, _host_length, _host_rig),
    "trt": Backend(device.require_device, _device_length, _device_rig),
}


@dataclass(frozen=True)
class _Timings:
    """By row: latency samples, throughput slices and the rig's extras; and what taking them cost."""

    samples: list[list[Timing]]
    throughput: list[list[Slice]]
    extras: list[Extras]
    harness: HarnessCost
    backend: str


def run_bench(options: BenchOptions) -> Record:
    """Measure a suite on this machine.

    Raises:
        FineEdgeError: when an image, an export or the backend fails.
    """
    backend = BACKENDS[options.backend]
    suite = suites.find(options.suite)
    backend.require(suite.rows[0].model)
    length = backend.length(options)
    images = load_images(options.images, length.rounds)
    load = os.getloadavg()[0]  # before our own work counts
    # First, since an FP16 export writes the FP32 file again, which must not change once it is bound.
    rtx = [_rtx_memory(row, options) for row in suite.rows]
    prepared = [prepare(row, options.folder, options.input_size, options.onnx_precision) for row in suite.rows]
    console.remark(f"images: {', '.join(image.name for image in images)}")
    _warn_of_load(load)
    rig = backend.rig(prepared, length, options)
    timings = _time(prepared, images, rig)
    return _record(suite, options, images, timings, rig, tuple(_rows(suite, prepared, rtx, timings)))


def _warn_of_load(load: float) -> None:
    cores = machine.describe()["cores"]
    if load > BUSY_SHARE * cores:
        console.warn(f"other programs keep this machine busy (load {load:.1f} on {cores} cores); figures will scatter")


def _rtx_memory(row: SuiteRow, options: BenchOptions) -> RtxMemory | None:
    # A plain export has no FP16 form here.
    if not options.rtx or row.exporter == "plain":
        return None
    path = export_row(row, options.folder, options.input_size, "fp16")
    with console.status(f"compiling {row.label} in FP16"):
        return memory.measure_rtx(path)


def _time(prepared: list[Prepared], images: list[NamedImage], rig: Rig) -> _Timings:
    feeds = make_feeds(prepared, images)
    length = rig.length
    with rig:
        subjects = [
            Subject(row.row.label, runner, feed) for row, runner, feed in zip(prepared, rig.runners, feeds, strict=True)
        ]
        with _ticking("warming up", len(subjects)) as tick:
            for subject in subjects:
                warm_up(subject)
                tick()
        with _ticking("latency rounds", length.rounds) as tick:

            def round_done() -> None:
                rig.round_done()
                tick()

            samples = measure_latency(subjects, length.rounds, round_done, latency_s=length.latency_s)
        with _ticking("throughput slices", length.slices) as tick, rig.throughput():
            throughput = measure_throughput(subjects, length.slices, length.slice_ms, tick, around=rig.slice_of)
        rig.finish(images)
        contract = next(row.contract for row in prepared if row.contract)
        harness = harness_cost(Subject("null", NullRunner(contract), feeds[0]))
        extras = [
            rig.extras(index, [sample.latency_ms for sample in row], throughput[index])
            for index, row in enumerate(samples)
        ]
        return _Timings(samples, throughput, extras, harness, subjects[0].runner.name)


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


def _rows(suite: Suite, prepared: list[Prepared], rtx: list[RtxMemory | None], timings: _Timings) -> Iterator[Row]:
    for index, item in enumerate(prepared):
        entry = catalog.find(item.row.model)
        contract = item.contract
        extras = timings.extras[index]
        yield Row(
            model=item.row.label,
            attention=entry.attention,
            complexity=entry.complexity,
            params_m=contract.cost["params"] / 1e6 if contract else None,
            flops_g=contract.cost["flops"] / 1e9 if contract else None,
            mem_mib=extras.mem_mib,
            weights_mib=item.weights_mib,
            rtx=rtx[index],
            artifact_sha256=item.sha256,
            random_weights=contract.random_weights if contract else True,
            samples_ms=tuple(sample.latency_ms for sample in timings.samples[index]),
            throughput=tuple(timings.throughput[index]),
            ap=None,  # an evaluation record of the same artifact_sha256 belongs here
            paper=_paper(entry) if suite.beside_paper else None,
            compute_ms=_compute_ms(timings.samples[index]),
            end_to_end_ms=extras.end_to_end_ms,
            engine=extras.engine,
            state=extras.state,
        )


def _compute_ms(samples: list[Timing]) -> tuple[float, ...] | None:
    known = tuple(sample.compute_ms for sample in samples if sample.compute_ms is not None)
    return known if len(known) == len(samples) else None


def _paper(entry: catalog.ModelEntry) -> dict[str, float | None] | None:
    figures = entry.paper
    if figures is None:
        return None
    return {"mem_mb": figures.mem_mb, "fps": figures.fps, "latency_ms": figures.latency_ms, "ap": figures.ap}


def _record(
    suite: Suite, options: BenchOptions, images: list[NamedImage], timings: _Timings, rig: Rig, rows: tuple[Row, ...]
) -> Record:
    return Record(
        suite=suite.name,
        title=suite.title,
        backend=timings.backend,
        precision=options.chosen_precision,
        input_hw=(options.input_size, options.input_size),
        machine=machine.describe(),
        images=tuple(image.name for image in images),
        rounds=len(timings.samples[0]),
        threads=options.threads,
        quick=options.quick,
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        harness=timings.harness,
        rows=rows,
        platform=rig.platform,
        cuda_graph=rig.cuda_graph,
    )
