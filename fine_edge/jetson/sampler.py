"""Sampling of the board's state in the background during a run."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from fine_edge.errors import ConfigError
from fine_edge.jetson.board import Board
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.tegrastats import Tegrastats, completed

ENERGY_RAIL = "VDD_IN"
"""The rail of the whole module: GPU, CPU, memory and the rest."""


class Sampler:
    """A context manager that takes snapshots: one at the start, one at the end, and one every ``period_s`` between.

    Where ``tegrastats`` exists, it supplies the figures that this user cannot read from the kernel's files (rails,
    memory clock). It is stopped when it does not have them either, which happens without root.

    Args:
        board: the board to read.
        period_s: time between snapshots.
        tegrastats: the program, by name or path; ``""`` never starts it.

    Raises:
        ConfigError: when the period is not positive.
    """

    def __init__(self, board: Board, period_s: float = 0.5, tegrastats: str = "tegrastats") -> None:
        if not period_s > 0:
            raise ConfigError(f"must be positive, not {period_s}", where="period_s", hint="give seconds, such as 0.5")
        self.snapshots: list[Snapshot] = []
        self._board = board
        self._period_s = period_s
        self._program = tegrastats
        self._tegrastats: Tegrastats | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board-sampler", daemon=True)

    def __enter__(self) -> Sampler:
        first = self._board.snapshot()
        self.snapshots.append(first)
        binary = shutil.which(self._program) if self._program else None
        if binary and self._board.is_jetson and any(_gaps(first)):
            self._tegrastats = Tegrastats(Path(binary), self._period_s)
            self._tegrastats.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.snapshots.append(self._take())
        if self._tegrastats is not None:
            self._tegrastats.stop()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self.snapshots.append(self._take())

    def _take(self) -> Snapshot:
        snapshot = self._board.snapshot()
        if self._tegrastats is None:
            return snapshot
        reading = self._tegrastats.latest(snapshot.at_s)
        if reading is None:
            return snapshot
        full = completed(snapshot, reading)
        if _gaps(full) == _gaps(snapshot):  # it adds nothing, so it should not disturb the measurement
            self._tegrastats.stop()
            self._tegrastats = None
        return full

    def energy_mj(self) -> float | None:
        """Return the module's energy between the first and last snapshot in mJ; ``None`` without its power."""
        return energy_mj(self.snapshots)


def _gaps(snapshot: Snapshot) -> tuple[bool, bool]:
    return not snapshot.power_mw, snapshot.emc_mhz is None


def energy_mj(snapshots: Sequence[Snapshot]) -> float | None:
    """Integrate :data:`ENERGY_RAIL` over the snapshots that have it, by trapezoids: mW x s = mJ."""
    points = [(s.at_s, s.power_mw[ENERGY_RAIL]) for s in snapshots if ENERGY_RAIL in s.power_mw]
    if len(points) < 2:
        return None
    pairs = itertools.pairwise(points)
    return sum(
        (after_s - before_s) * (before_mw + after_mw) / 2 for (before_s, before_mw), (after_s, after_mw) in pairs
    )
