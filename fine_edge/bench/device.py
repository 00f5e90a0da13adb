"""Measure TensorRT on this machine's GPU: build or find engines, load them, and watch the board while they run."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fine_edge import console, files, samples
from fine_edge.bench.end_to_end import THRESHOLD
from fine_edge.bench.measure import Length, Slice, measure_calls
from fine_edge.bench.prepare import Prepared, make_feeds
from fine_edge.bench.row import EngineFigures, RowState
from fine_edge.bench.setup import Extras, Setup
from fine_edge.contract import Contract
from fine_edge.decode import find
from fine_edge.engine.build import ensure_engine
from fine_edge.engine.cuda import Cuda
from fine_edge.engine.manifest import layers_path
from fine_edge.engine.options import BuildOptions, EnginePrecision, read_recipe
from fine_edge.engine.platform import here, require_tensorrt
from fine_edge.images import NamedImage
from fine_edge.jetson.board import Board
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.tegrastats import ENERGY_RAIL, Sampler, energy_mj
from fine_edge.jetson.verdict import judge
from fine_edge.machine import MIB
from fine_edge.runners.trt import TrtRunner
from fine_edge.samples import median

# Heat and limits change within seconds; over-current events are counters, so none is missed between snapshots.
ROUND_PERIOD_S = 2.0
SLICE_PERIOD_S = 0.2


class BoardWatch:
    """Takes snapshots of the board before, between rounds, inside each row's slices, and after."""

    def __init__(self, board: Board, rows: int) -> None:
        self._board = board
        # Snapshots that count for every row: before, between rounds and after.
        self._shared = [board.snapshot()]
        self._after: list[Snapshot] = []
        # Start and end of each slice by row, on the clock of the snapshots.
        self._slices: list[list[tuple[float, float]]] = [[] for _ in range(rows)]
        self._overlapped: list[list[tuple[float, float]]] = [[] for _ in range(rows)]
        self._while_slices: list[Snapshot] = []

    def round_done(self) -> None:
        """Take a snapshot if the last one is older than :data:`ROUND_PERIOD_S`."""
        # Only between rounds: reading the board beside an inference would be in its latency.
        if time.monotonic() - self._shared[-1].at_s >= ROUND_PERIOD_S:
            self._shared.append(self._board.snapshot())

    @contextlib.contextmanager
    def throughput(self) -> Iterator[None]:
        """Take snapshots in the background while slices run."""
        with Sampler(self._board, SLICE_PERIOD_S) as sampler:
            yield
        self._while_slices += sampler.snapshots

    @contextlib.contextmanager
    def slice_of(self, index: int, *, overlapped: bool = False) -> Iterator[None]:
        """Record the time of a slice of this row: of the network, or ``overlapped`` from JPEGs to detections."""
        start_s = time.monotonic()
        yield
        windows = self._overlapped if overlapped else self._slices
        windows[index].append((start_s, time.monotonic()))

    def finish(self) -> None:
        """Take the last snapshot."""
        self._after = [self._board.snapshot()]

    def state(self, index: int, samples_ms: Sequence[float], slices: Sequence[Slice]) -> RowState:
        """Return verdict, snapshots and energy of one row."""
        own = [self._between(*window) for window in self._slices[index]]
        overlapped = [self._between(*window) for window in self._overlapped[index]]
        # Heat of any slice of the row speaks against the row. Its energy is of the network's slices alone.
        snapshots = (*self._shared, *itertools.chain(*own, *overlapped), *self._after)
        return RowState(judge(snapshots, samples_ms), snapshots, energy_mj_per_image(own, slices))

    def overlapped_energy_mj(self, index: int, slices: Sequence[Slice]) -> float | None:
        """Return the energy of an image in the row's overlapped slices, mJ; ``None`` without power readings."""
        return energy_mj_per_image([self._between(*window) for window in self._overlapped[index]], slices)

    def _between(self, start_s: float, end_s: float) -> list[Snapshot]:
        return [snapshot for snapshot in self._while_slices if start_s <= snapshot.at_s <= end_s]


def energy_mj_per_image(snapshots_by_slice: Sequence[Sequence[Snapshot]], slices: Sequence[Slice]) -> float | None:
    """Return the energy of the whole module for one image at full throughput, mJ; ``None`` without power readings.

    The mean power is integrated by trapezoids over the snapshots inside a slice, and multiplied by the slice's wall
    time, because the first and the last snapshot lie a little inside of the slice.
    """
    total_mj, queries = 0.0, 0
    for snapshots, taken in zip(snapshots_by_slice, slices, strict=True):
        # A rail may be missing from single snapshots, where tegrastats has not printed a line yet.
        powered = [snapshot for snapshot in snapshots if ENERGY_RAIL in snapshot.power_mw]
        inside_mj = energy_mj(powered)
        seconds = powered[-1].at_s - powered[0].at_s if powered else 0.0
        if inside_mj and seconds > 0:
            # By the slice's wall time, because the first and the last snapshot lie a little inside of it.
            total_mj += inside_mj / seconds * taken.wall_s
            queries += taken.queries
    return total_mj / queries if queries else None


def trtexec_profile(ms_by_layer: dict[str, list[float]], runs: int) -> list[dict[str, Any]]:
    """Return the entries of trtexec's profile file from the times of each layer, in the order of execution."""
    total_ms = sum(sum(times) for times in ms_by_layer.values())
    return [
        # trtexec's order: the number of runs stands first, in an entry of its own.
        {"count": runs},
        *(
            {
                "name": name,
                "timeMs": sum(times),
                "averageMs": sum(times) / runs,
                "medianMs": median(times),
                "percentage": 100 * sum(times) / total_ms if total_ms else 0.0,
            }
            for name, times in ms_by_layer.items()
        ),
    ]


def write_profile(path: Path, ms_by_layer: dict[str, list[float]], runs: int) -> None:
    """Write a profile in trtexec's format, whole or not at all."""
    files.write_text(path, json.dumps(trtexec_profile(ms_by_layer, runs), indent=1) + "\n")


# Three times as long as trtexec, and with enough samples for the 99th percentile.
LATENCY_S = 10.0
ROUNDS = samples.FEWEST_SAMPLES[99]
SLICES = 5
SLICE_MS = 2000.0
# Enough samples for the 90th percentile; preprocessing takes longer than the network.
END_TO_END_ROUNDS = samples.FEWEST_SAMPLES[90]
QUICK_END_TO_END_ROUNDS = 6
PROFILE_RUNS = 100


@dataclass(frozen=True)
class DeviceOptions:
    """How engines are built and run.

    Attributes:
        precision: of the engines.
        folder: folder of the recipes.
        cuda_graph: replay inferences from CUDA graphs.
        spin: keep a core busy while waiting.
        quick: take only a few samples of the end-to-end times.
        profile: folder for the time by layer; ``None``: not measured.
    """

    precision: EnginePrecision
    folder: Path
    cuda_graph: bool = False
    spin: bool = False
    quick: bool = False
    profile: Path | None = None


def length(rounds: int | None, quick_rounds: int | None) -> Length:
    """Return how long to measure, from ``rounds`` as asked for, or ``quick_rounds`` of a quick run."""
    if quick_rounds:
        return Length(rounds or quick_rounds, 0.0, 1, SLICE_MS / 2)
    # Who asks for a number of rounds gets that number; otherwise time counts too, since fast models need more rounds.
    return Length(rounds, 0.0, SLICES, SLICE_MS) if rounds else Length(ROUNDS, LATENCY_S, SLICES, SLICE_MS)


def require_device(model: str) -> None:
    """Check for TensorRT and a device before anything is exported; ``model`` appears in the hint.

    Raises:
        BackendError: when this machine has no TensorRT or no device.
    """
    require_tensorrt(here(), model)


def build_options(model: str, options: DeviceOptions) -> BuildOptions:
    """Return the model's recipe in this precision, as ``engine build`` uses it, so that engines are shared."""
    return replace(read_recipe(model, options.folder), precision=options.precision)


class DeviceSetup(Setup):
    """TensorRT engines of a group, loaded together; the board is watched from before the first inference."""

    def __init__(self, prepared: Sequence[Prepared], length: Length, options: DeviceOptions) -> None:
        super().__init__(length)
        self.platform = dict(vars(here()))
        self._prepared = prepared
        self._options = options
        self._engines: list[Path] = []
        self._loaded: list[TrtRunner] = []
        self._end_to_end_ms: list[tuple[float, ...] | None] = [None] * len(prepared)

    def prepare(self) -> None:
        self._engines = [self._engine_of(row) for row in self._prepared]

    def _engine_of(self, row: Prepared) -> Path:
        # Named by the user: it is measured as it is, whatever precision was asked for.
        if row.path.suffix == ".engine":
            return row.path
        options = build_options(row.row.model, self._options)
        # Files of unlike precisions stand in one group, as an FP16 file beside its INT8 one.
        if row.row.precision:
            options = replace(options, precision=row.row.precision)
        return ensure_engine(row.path, options, row.path.parent)

    def open(self, stack: contextlib.ExitStack) -> list[TrtRunner]:
        cuda = stack.enter_context(contextlib.closing(Cuda()))
        # CUDA and TensorRT load libraries with the first engine of a context. Loading one engine twice keeps that
        # memory out of the first engine's figure, in every group, since each group has a context of its own.
        self._load(self._engines[0], cuda).close()
        for engine in self._engines:
            self._loaded.append(stack.enter_context(contextlib.closing(self._load(engine, cuda))))
        # What was asked for can be impossible for an engine, whose runner then goes on without a graph.
        self.cuda_graph = all(runner.cuda_graph for runner in self._loaded)
        self._watch = BoardWatch(Board(), len(self._loaded))  # after building, so that its heat is not in the record
        return self._loaded

    def _load(self, engine: Path, cuda: Cuda) -> TrtRunner:
        return TrtRunner(engine, cuda=cuda, cuda_graph=self._options.cuda_graph, spin=self._options.spin)

    def round_done(self) -> None:
        self._watch.round_done()

    def throughput(self) -> AbstractContextManager[None]:
        return self._watch.throughput()

    def slice_of(self, index: int) -> AbstractContextManager[None]:
        return self._watch.slice_of(index)

    def overlapped_slice_of(self, index: int) -> AbstractContextManager[None]:
        return self._watch.slice_of(index, overlapped=True)

    def overlapped_energy_mj(self, index: int, slices: Sequence[Slice]) -> float | None:
        return self._watch.overlapped_energy_mj(index, slices)

    def finish(self, images: Sequence[NamedImage]) -> None:
        # Otherwise the stages have been measured from the JPEG on, and their sum from the picture on is taken.
        if not self.length.end_to_end_rounds:
            self._measure_end_to_end(images)
        # Before the profile, which runs another load that the record says nothing of.
        self._watch.finish()
        if self._options.profile:
            self._profile(self._options.profile, images[:1])

    def _measure_end_to_end(self, images: Sequence[NamedImage]) -> None:
        calls = dict(self._end_to_end_calls(images))
        rounds = QUICK_END_TO_END_ROUNDS if self._options.quick else END_TO_END_ROUNDS
        console.remark(f"end to end: {rounds} rounds")  # no spinner, because its thread would disturb the timing
        for call in calls.values():
            call(0)
        for index, row_ms in zip(calls, measure_calls(list(calls.values()), rounds), strict=True):
            self._end_to_end_ms[index] = tuple(row_ms)

    def _end_to_end_calls(self, images: Sequence[NamedImage]) -> Iterator[tuple[int, Callable[[int], object]]]:
        """Yield the index and the call from a decoded picture to its detections, of each postprocessed row."""
        for index, (row, runner) in enumerate(zip(self._prepared, self._loaded, strict=True)):
            if row.contract and row.contract.postprocessed:
                yield index, partial(_find, images, row.contract, runner)

    def _profile(self, folder: Path, images: Sequence[NamedImage]) -> None:
        feeds = make_feeds(self._prepared, images)
        for engine, runner, feed in zip(self._engines, self._loaded, feeds, strict=True):
            with console.status(f"time by layer of {engine.name}"):
                times = runner.profile(feed[0], PROFILE_RUNS)
            write_profile(folder / f"{engine.name}.profile.json", times, PROFILE_RUNS)
            layers = layers_path(engine)
            # fine-edge layers takes the two together, so they lie side by side, unless the folder is the engine's own.
            if layers.is_file() and layers.parent.absolute() != folder.absolute():
                files.write_bytes(folder / layers.name, layers.read_bytes())
        console.remark(f"time by layer: {folder}")

    def extras(self, index: int, samples_ms: Sequence[float], slices: Sequence[Slice]) -> Extras:
        return Extras(
            end_to_end_ms=self._end_to_end_ms[index],
            engine=engine_figures(self._loaded[index]),
            state=self._watch.state(index, samples_ms, slices),
        )


def _find(images: Sequence[NamedImage], contract: Contract, runner: TrtRunner, turn: int) -> object:
    return find(images[turn % len(images)], contract, runner, THRESHOLD)


def engine_figures(runner: TrtRunner) -> EngineFigures:
    """Return the figures of an engine for a record, which defines each of them."""
    manifest, cost = runner.manifest, runner.load_cost
    return EngineFigures(
        engine_sha256=manifest.engine_sha256,
        plan_mib=cost.plan / MIB,
        weights_mib=manifest.weights_mib,
        activation_mib=runner.activation_bytes / MIB,
        device_delta_mib=cost.device / MIB,
        host_delta_mib=cost.host / MIB,
        kernels=manifest.kernels,
        fused_attention=manifest.fused_attention,
    )
