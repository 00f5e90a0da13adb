"""One bench run: prepare, weigh, time, and put it all into a record."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from fine_edge import console, machine
from fine_edge.bench import memory, suites
from fine_edge.bench.measure import (
    HarnessCost,
    Slice,
    Subject,
    harness_cost,
    measure_latency,
    measure_throughput,
    warm_up,
)
from fine_edge.bench.memory import RtxMemory
from fine_edge.bench.prepare import Prepared, export_row, load_images, make_feeds, prepare
from fine_edge.bench.record import Record, Row
from fine_edge.bench.suites import Suite, SuiteRow
from fine_edge.errors import ConfigError
from fine_edge.images import NamedImage
from fine_edge.runners.base import Runner
from fine_edge.runners.null import NullRunner
from fine_edge.runners.ort import OrtRunner
from fine_edge.zoo import catalog

# Explicit, like the suites: a TensorRT runner takes its place here.
BACKENDS: dict[str, Callable[[Path, int | None], Runner]] = {"ort": OrtRunner}
# Five balanced orders of six rows: on a quiet machine this pins a ratio to well under 1 % in about three minutes.
ROUNDS = 30
QUICK_ROUNDS = 6
ROUNDS_PER_SLICE = 5
SLICE_MS = 1000.0
# Load average per core above which somebody else is likely to run beside a measurement.
BUSY_SHARE = 0.5


@dataclass(frozen=True)
class BenchOptions:
    """What to measure and how long. ``rounds=None`` takes :data:`ROUNDS`, or :data:`QUICK_ROUNDS` when quick."""

    suite: str = "table3"
    backend: str = "ort"
    images: Path | None = None
    rounds: int | None = None
    quick: bool = False
    input_size: int = 640
    threads: int | None = None
    folder: Path = Path("engines")
    rtx: bool = False

    def __post_init__(self) -> None:
        suites.find(self.suite)
        if self.backend not in BACKENDS:
            raise ConfigError(
                f"no backend is called {self.backend!r}", where="--backend", mend=f"known: {', '.join(BACKENDS)}"
            )
        if self.rounds is not None and self.rounds < 2:
            raise ConfigError(f"{self.rounds} is too few, a ratio needs at least 2", where="--rounds")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"must be at least 1, not {self.threads}", where="--threads")

    @property
    def sample_rounds(self) -> int:
        """Rounds to measure."""
        return self.rounds or (QUICK_ROUNDS if self.quick else ROUNDS)


@dataclass(frozen=True)
class _Timings:
    """By row: latency samples and throughput slices; and what taking them cost."""

    samples_ms: list[list[float]]
    throughput: list[list[Slice]]
    harness: HarnessCost
    backend: str


def run_bench(options: BenchOptions) -> Record:
    """Measure a suite on this machine.

    Raises:
        FineEdgeError: when an image, an export or the backend fails.
    """
    suite = suites.find(options.suite)
    images = load_images(options.images, options.sample_rounds)
    load = os.getloadavg()[0]  # before our own work counts
    # First, since an FP16 export writes the FP32 file again, which must not change once it is bound.
    rtx = [_rtx_memory(row, options) for row in suite.rows]
    prepared = [prepare(row, options.folder, options.input_size) for row in suite.rows]
    console.remark(f"images: {', '.join(image.name for image in images)}")
    _warn_of_load(load)
    peaks = [_peak_mib(row, options) for row in prepared]
    timings = _time(prepared, images, options)
    return _record(suite, options, images, timings, tuple(_rows(suite, prepared, peaks, rtx, timings)))


def _warn_of_load(load: float) -> None:
    cores = machine.describe()["cores"]
    if load > BUSY_SHARE * cores:
        console.warn(f"other programs keep this machine busy (load {load:.1f} on {cores} cores); figures will scatter")


def _peak_mib(row: Prepared, options: BenchOptions) -> float:
    with console.status(f"memory of {row.row.label}"):
        return memory.measure_peak_mib(row.path, options.threads)


def _rtx_memory(row: SuiteRow, options: BenchOptions) -> RtxMemory | None:
    # A plain export has no FP16 form here.
    if not options.rtx or row.exporter == "plain":
        return None
    path = export_row(row, options.folder, options.input_size, "fp16")
    with console.status(f"compiling {row.label} in FP16"):
        return memory.measure_rtx(path)


def _time(prepared: list[Prepared], images: list[NamedImage], options: BenchOptions) -> _Timings:
    feeds = make_feeds(prepared, images)
    with contextlib.ExitStack() as stack:
        subjects = []
        for row, feed in zip(prepared, feeds, strict=True):
            runner = BACKENDS[options.backend](row.path, options.threads)
            stack.callback(runner.close)
            subjects.append(Subject(row.row.label, runner, feed))
        rounds = options.sample_rounds
        slices = max(1, rounds // ROUNDS_PER_SLICE)
        with _ticking("warming up", len(subjects)) as tick:
            for subject in subjects:
                warm_up(subject)
                tick()
        with _ticking("latency rounds", rounds) as tick:
            samples_ms = measure_latency(subjects, rounds, tick)
        with _ticking("throughput slices", slices) as tick:
            throughput = measure_throughput(subjects, slices, SLICE_MS, tick)
        contract = next(row.contract for row in prepared if row.contract)
        harness = harness_cost(Subject("null", NullRunner(contract), feeds[0]))
        return _Timings(samples_ms, throughput, harness, subjects[0].runner.name)


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


def _rows(
    suite: Suite, prepared: list[Prepared], peaks: list[float], rtx: list[RtxMemory | None], timings: _Timings
) -> Iterator[Row]:
    for index, item in enumerate(prepared):
        entry = catalog.find(item.row.model)
        contract = item.contract
        yield Row(
            model=item.row.label,
            attention=entry.attention,
            complexity=entry.complexity,
            params_m=contract.cost["params"] / 1e6 if contract else None,
            flops_g=contract.cost["flops"] / 1e9 if contract else None,
            mem_mib=peaks[index],
            weights_mib=item.weights_mib,
            rtx=rtx[index],
            artifact_sha256=item.sha256,
            random_weights=contract.random_weights if contract else True,
            samples_ms=tuple(timings.samples_ms[index]),
            throughput=tuple(timings.throughput[index]),
            ap=None,  # an evaluation record of the same artifact_sha256 belongs here
            paper=_paper(entry) if suite.beside_paper else None,
        )


def _paper(entry: catalog.ModelEntry) -> dict[str, float | None] | None:
    figures = entry.paper
    if figures is None:
        return None
    return {"mem_mb": figures.mem_mb, "fps": figures.fps, "latency_ms": figures.latency_ms, "ap": figures.ap}


def _record(
    suite: Suite, options: BenchOptions, images: list[NamedImage], timings: _Timings, rows: tuple[Row, ...]
) -> Record:
    return Record(
        suite=suite.name,
        title=suite.title,
        backend=timings.backend,
        precision="fp32",
        input_hw=(options.input_size, options.input_size),
        machine=machine.describe(),
        images=tuple(image.name for image in images),
        rounds=options.sample_rounds,
        threads=options.threads,
        quick=options.quick,
        measured_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        harness=timings.harness,
        rows=rows,
    )
