"""TensorRT on this machine's GPU: engines built or found, loaded one after the other, watched while they run."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fine_edge import console, files, samples
from fine_edge.bench.measure import Length, Slice, measure_calls
from fine_edge.bench.prepare import Prepared, make_feeds
from fine_edge.bench.rig import Extras, Rig
from fine_edge.bench.row import EngineFigures, RowState
from fine_edge.contract import Contract
from fine_edge.decode import find
from fine_edge.engine.build import ensure_engine
from fine_edge.engine.cuda import Cuda
from fine_edge.engine.manifest import layers_path
from fine_edge.engine.options import BuildOptions, EnginePrecision, read_recipe
from fine_edge.engine.platform import here, require_tensorrt
from fine_edge.images import NamedImage
from fine_edge.jetson.board import Board
from fine_edge.jetson.sampler import ENERGY_RAIL, Sampler, energy_mj
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.verdict import judge
from fine_edge.machine import MIB
from fine_edge.runners.trt import TrtRunner
from fine_edge.samples import median

# Heat and limits change in seconds, and the counters of over-current events miss nothing in between.
ROUND_PERIOD_S = 2.0
SLICE_PERIOD_S = 0.2


class BoardWatch:
    """Snapshots before, between rounds, inside each row's slices, and after."""

    def __init__(self, board: Board, rows: int) -> None:
        self._board = board
        self._shared = [board.snapshot()]
        self._after: list[Snapshot] = []
        self._slices: list[list[tuple[float, float]]] = [[] for _ in range(rows)]
        self._while_slices: list[Snapshot] = []

    def round_done(self) -> None:
        """A snapshot, if the last one is older than :data:`ROUND_PERIOD_S`."""
        if time.monotonic() - self._shared[-1].at_s >= ROUND_PERIOD_S:
            self._shared.append(self._board.snapshot())

    @contextlib.contextmanager
    def throughput(self) -> Iterator[None]:
        """Sample in the background as long as slices run."""
        with Sampler(self._board, SLICE_PERIOD_S) as sampler:
            yield
        self._while_slices = sampler.snapshots

    @contextlib.contextmanager
    def slice_of(self, index: int) -> Iterator[None]:
        """Note whose slice this is."""
        start_s = time.monotonic()
        yield
        self._slices[index].append((start_s, time.monotonic()))

    def finish(self) -> None:
        """The last snapshot."""
        self._after = [self._board.snapshot()]

    def state(self, index: int, samples_ms: Sequence[float], slices: Sequence[Slice]) -> RowState:
        """Verdict, snapshots and energy of one row."""
        own = [self._between(*window) for window in self._slices[index]]
        snapshots = (*self._shared, *(snapshot for part in own for snapshot in part), *self._after)
        return RowState(judge(snapshots, samples_ms), snapshots, energy_mj_per_image(own, slices))

    def _between(self, start_s: float, end_s: float) -> list[Snapshot]:
        return [snapshot for snapshot in self._while_slices if start_s <= snapshot.at_s <= end_s]


def energy_mj_per_image(snapshots_by_slice: Sequence[Sequence[Snapshot]], slices: Sequence[Slice]) -> float | None:
    """Energy of the whole module for one image at full throughput, mJ; ``None`` where its power cannot be read.

    Power by trapezoid over the snapshots inside a slice, times the slice's wall time: the first and the last snapshot
    lie a little inside of it.
    """
    total_mj, queries = 0.0, 0
    for snapshots, taken in zip(snapshots_by_slice, slices, strict=True):
        powered = [snapshot for snapshot in snapshots if ENERGY_RAIL in snapshot.power_mw]
        inside_mj = energy_mj(powered)
        seconds = powered[-1].at_s - powered[0].at_s if powered else 0.0
        if inside_mj and seconds > 0:
            total_mj += inside_mj / seconds * taken.wall_s
            queries += taken.queries
    return total_mj / queries if queries else None


def trtexec_profile(ms_by_layer: dict[str, list[float]], runs: int) -> list[dict[str, Any]]:
    """The entries of the file from the times of each layer, in the order of execution."""
    total_ms = sum(sum(times) for times in ms_by_layer.values())
    return [
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
    """Write the file, whole or not at all."""
    files.write_text(path, json.dumps(trtexec_profile(ms_by_layer, runs), indent=1) + "\n")


# Three times trtexec's, and enough samples for the 99th percentile.
LATENCY_S = 10.0
ROUNDS = samples.FEWEST_SAMPLES[99]
SLICES = 5
SLICE_MS = 2000.0
# Preprocessing takes longer than the network: enough for a 90th percentile.
END_TO_END_ROUNDS = samples.FEWEST_SAMPLES[90]
QUICK_END_TO_END_ROUNDS = 6
# What predict draws unless told otherwise.
END_TO_END_THRESHOLD = 0.5
PROFILE_RUNS = 100


@dataclass(frozen=True)
class DeviceOptions:
    """How engines are built and run.

    Attributes:
        precision: of the engines.
        folder: of the recipes.
        cuda_graph: replay inferences from CUDA graphs.
        spin: burn a core while waiting.
        quick: measure what is measured apart for a moment only.
        profile: folder for the time by layer; ``None``: not measured.
    """

    precision: EnginePrecision
    folder: Path
    cuda_graph: bool = False
    spin: bool = False
    quick: bool = False
    profile: Path | None = None


def length(rounds: int | None, quick_rounds: int | None) -> Length:
    """How long to measure; ``rounds`` is what was asked for, ``quick_rounds`` a quick look."""
    if quick_rounds:
        return Length(rounds or quick_rounds, 0.0, 1, SLICE_MS / 2)
    return Length(rounds, 0.0, SLICES, SLICE_MS) if rounds else Length(ROUNDS, LATENCY_S, SLICES, SLICE_MS)


def require_device(model: str) -> None:
    """Find out before anything is exported; ``model`` is what the hint speaks of.

    Raises:
        BackendError: when this machine has no TensorRT or no device.
    """
    require_tensorrt(here(), model)


def build_options(model: str, options: DeviceOptions) -> BuildOptions:
    """The model's recipe in the precision asked for: what ``engine build`` would use, so that engines are shared."""
    return replace(read_recipe(model, options.folder), precision=options.precision)


class DeviceRig(Rig):
    """TensorRT engines of a group, loaded together; the board is watched from before the first inference on."""

    def __init__(self, prepared: Sequence[Prepared], length: Length, options: DeviceOptions) -> None:
        super().__init__(length)
        self.platform = here().to_json()
        self._prepared = prepared
        self._options = options
        self._engines: list[Path] = []
        self._loaded: list[TrtRunner] = []
        self._end_to_end_ms: list[tuple[float, ...] | None] = [None] * len(prepared)

    def prepare(self) -> None:
        """Build what is missing."""
        self._engines = [
            ensure_engine(row.path, build_options(row.row.model, self._options), row.path.parent)
            for row in self._prepared
        ]

    def open(self, stack: contextlib.ExitStack) -> list[TrtRunner]:
        """Load the engines in the order of their rows."""
        cuda = stack.enter_context(contextlib.closing(Cuda()))
        # What CUDA and TensorRT load once for all engines must not count as the first one's, in any group: the context
        # goes with its group.
        self._load(self._engines[0], cuda).close()
        for engine in self._engines:
            self._loaded.append(stack.enter_context(contextlib.closing(self._load(engine, cuda))))
        self.cuda_graph = all(runner.cuda_graph for runner in self._loaded)
        self._watch = BoardWatch(Board(), len(self._loaded))  # now, so that what building did to the board is not in it
        return self._loaded

    def _load(self, engine: Path, cuda: Cuda) -> TrtRunner:
        return TrtRunner(engine, cuda=cuda, cuda_graph=self._options.cuda_graph, spin=self._options.spin)

    def round_done(self) -> None:
        """Look at the board now and then."""
        self._watch.round_done()

    def throughput(self) -> AbstractContextManager[None]:
        """Watch the board in the background."""
        return self._watch.throughput()

    def slice_of(self, index: int) -> AbstractContextManager[None]:
        """Let what is seen of the board belong to this row."""
        return self._watch.slice_of(index)

    def finish(self, images: Sequence[NamedImage]) -> None:
        """End to end, the last look at the board, and the time by layer where it was asked for."""
        self._measure_end_to_end(images)
        self._watch.finish()
        if self._options.profile:
            self._profile(self._options.profile, images[:1])

    def _measure_end_to_end(self, images: Sequence[NamedImage]) -> None:
        calls = dict(self._end_to_end_calls(images))
        rounds = QUICK_END_TO_END_ROUNDS if self._options.quick else END_TO_END_ROUNDS
        console.remark(f"end to end: {rounds} rounds")  # no spinner: its thread would run beside what is timed
        for call in calls.values():
            call(0)
        for index, row_ms in zip(calls, measure_calls(list(calls.values()), rounds), strict=True):
            self._end_to_end_ms[index] = tuple(row_ms)

    def _end_to_end_calls(self, images: Sequence[NamedImage]) -> Iterator[tuple[int, Callable[[int], object]]]:
        """From a decoded picture to what is found in it, for each row whose contract says how."""
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
            if layers.is_file() and layers.parent.absolute() != folder.absolute():
                files.write_bytes(folder / layers.name, layers.read_bytes())
        console.remark(f"time by layer: {folder}")

    def extras(self, index: int, samples_ms: Sequence[float], slices: Sequence[Slice]) -> Extras:
        """The engine's figures, the board's state, and the end-to-end times."""
        return Extras(
            end_to_end_ms=self._end_to_end_ms[index],
            engine=engine_figures(self._loaded[index]),
            state=self._watch.state(index, samples_ms, slices),
        )


def _find(images: Sequence[NamedImage], contract: Contract, runner: TrtRunner, turn: int) -> object:
    return find(images[turn % len(images)], contract, runner, END_TO_END_THRESHOLD)


def engine_figures(runner: TrtRunner) -> EngineFigures:
    """What a record says of an engine; each figure is defined there."""
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
