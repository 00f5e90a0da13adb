"""The board's state over a bench run, by row.

Rows are measured interleaved, so while latency is sampled the state is the run's, and counts for every row: it is read
between rounds, never by a thread beside a timed inference. A slice of throughput belongs to one row alone: there a
thread reads the state while the row runs, which gives the row its power and energy.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence

from fine_edge.bench.measure import Slice
from fine_edge.bench.row import RowState
from fine_edge.jetson.board import Board
from fine_edge.jetson.sampler import ENERGY_RAIL, Sampler, energy_mj
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.verdict import judge

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
