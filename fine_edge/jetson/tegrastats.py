"""NVIDIA's ``tegrastats``: parsing of its lines, running it, and sampling a board with it during a run.

Source: "tegrastats Utility" in the Jetson Linux Developer Guide (r32 to r36), which lists the statistics. Variants that
the guide does not list are from boards on L4T 32 to 39.2 (rbonghi/jetson_stats#81, #894; henrygd/beszel#286;
lesomnus/tegra-exporter):

    04-19-2026 01:31:10                  the board's clock, not on every release
    RAM 3308/7607MB (lfb 32x4MB)         used and total; the MB are MiB
    CPU [12%@1344,off]                   load and clock by core; off is a core that is off-line
    EMC_FREQ 61%@2133   EMC_FREQ 0%      load and clock, only as root
    GR3D_FREQ 99%   99%@921   99%@[921]  load and clock, of each graphics cluster in brackets; 0 is an idle cluster
    GR3D_FREQ @[1000,1000,1000]          JetPack 7
    gpu@62.3C   tj@62.4C   CV0@-256C     -256 is a sensor that is switched off
    gpu@47.625C/48.5C                    L4T 39: now and highest
    VDD_IN 12517mW/10898mW   VDD_IN 3140/3208   now and average since the start, mW
    VDD_IN 3582mW/3590mW/3601mW          L4T 39: now, average and highest
"""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

from fine_edge.errors import ConfigError
from fine_edge.jetson.board import Board
from fine_edge.jetson.snapshot import Snapshot

# re.ASCII, since \d matches digits of any script otherwise. Lengths are bounded so that no number overflows.
_CLOCK = re.compile(r"\b(\d{2}-\d{2}-\d{4} \d{2}:\d{2}:\d{2}) ", re.ASCII)
_MEMORY = re.compile(r"\b(RAM|SWAP) (\d{1,9}(?:\.\d{1,6})?)/(\d{1,9}(?:\.\d{1,6})?)([kMG])B", re.ASCII)
_CPUS = re.compile(r"\bCPU \[([\w%@,]{1,2000})\]", re.ASCII)
_CPU = re.compile(r"(\d{1,3})%(?:@(\d{1,6}))?", re.ASCII)
_LOADED_CLOCK = re.compile(
    r"\b(EMC|GR3D)_FREQ (?:(\d{1,3})%)?(?:@(?:(\d{1,6})\b|\[([\d,]{1,60})\]))?(?=\s|$)", re.ASCII
)
_TEMPERATURE = re.compile(r"(?:^|\s)([A-Za-z]\w{0,30})@(-?\d{1,4}(?:\.\d{1,6})?)C\b", re.ASCII)
_RAIL = re.compile(
    r"(?:^|\s)([A-Z][A-Z0-9_]{0,40}) (\d{1,9})(?:mW(?:/\d{1,9}mW){0,2}|(?:/\d{1,9}){1,2})(?=\s|$)", re.ASCII
)
# A whole line ends with a temperature or with power, so most lines that were cut end otherwise.
_END = re.compile(r"(?:\d(?:mW|C)| \d+(?:/\d+){1,2})$", re.ASCII)
_MIB = {"k": 1 / 1024, "M": 1.0, "G": 1024.0}
_OFF_C = -50.0
_NO_RAILS = {"RAM", "SWAP", "IRAM", "NC"}


@dataclass(frozen=True)
class Reading:
    """The figures of one line; ``None`` and empty values for what it does not hold.

    ``clock_s`` is the board's clock in whole seconds, of use for differences only: the time zone is not known.
    """

    clock_s: float | None = None
    ram_used_mib: float | None = None
    ram_total_mib: float | None = None
    swap_used_mib: float | None = None
    swap_total_mib: float | None = None
    cpu_load_percent: float | None = None
    cpu_mhz: float | None = None
    cpus_online: int | None = None
    gpu_load_percent: float | None = None
    gpu_mhz: float | None = None
    emc_load_percent: float | None = None
    emc_mhz: float | None = None
    temperatures_c: dict[str, float] = field(default_factory=dict)
    power_mw: dict[str, float] = field(default_factory=dict)


def parse_line(line: str) -> Reading:
    """Read one line; ignore what has another format. CPU load is the mean of the cores that are on-line."""
    figures: dict[str, Any] = {}  # by field; all hold numbers
    for kind, used, total, unit in _MEMORY.findall(line):
        figures[f"{kind.lower()}_used_mib"] = float(used) * _MIB[unit]
        figures[f"{kind.lower()}_total_mib"] = float(total) * _MIB[unit]
    for kind, load, clock, clusters in _LOADED_CLOCK.findall(line):
        name = "gpu" if kind == "GR3D" else "emc"
        figures[f"{name}_load_percent"] = float(load) if load else None
        figures[f"{name}_mhz"] = _fastest_mhz((clock or clusters).split(","))
    celsius = {name: float(value) for name, value in _TEMPERATURE.findall(line)}
    clock = _CLOCK.search(line)
    return Reading(
        clock_s=_seconds(clock[1]) if clock else None,
        temperatures_c={name: value for name, value in celsius.items() if value > _OFF_C},
        power_mw={rail: float(now) for rail, now in _RAIL.findall(line) if rail not in _NO_RAILS},
        **figures,
        **_cpus(line),
    )


def is_whole(line: str) -> bool:
    """Return whether this is a line of ``tegrastats`` that was not cut."""
    text = line.rstrip()
    return _MEMORY.search(text) is not None and _CPUS.search(text) is not None and _END.search(text) is not None


def _cpus(line: str) -> dict[str, Any]:
    found = _CPUS.search(line)
    cores = [core for part in found[1].split(",") if (core := _CPU.fullmatch(part))] if found else []
    if not cores:
        return {}
    loads = [float(core[1]) for core in cores]
    return {
        "cpu_load_percent": sum(loads) / len(loads),
        "cpu_mhz": _fastest_mhz(core[2] or "" for core in cores),
        "cpus_online": len(cores),
    }


@lru_cache(maxsize=2)  # many lines have the same second
def _seconds(clock: str) -> float | None:
    try:
        return (datetime.strptime(clock, "%m-%d-%Y %H:%M:%S") - datetime(1970, 1, 1)).total_seconds()
    except ValueError:
        return None


def _fastest_mhz(clocks: Iterable[str]) -> float | None:
    """Return the highest clock; ``None`` when there is none, or all clusters are idle and show 0."""
    fastest = max((float(clock) for clock in clocks if clock), default=0.0)
    return fastest or None


def completed(snapshot: Snapshot, reading: Reading) -> Snapshot:
    """Return a snapshot whose missing figures come from ``tegrastats``; figures of the kernel's files stay."""
    filled = {name for name in ("emc_mhz", "gpu_mhz", "power_mw") if getattr(reading, name)}
    return replace(
        snapshot,
        emc_mhz=snapshot.emc_mhz or reading.emc_mhz,
        gpu_mhz=snapshot.gpu_mhz or reading.gpu_mhz,
        gpu_load_percent=_first(snapshot.gpu_load_percent, reading.gpu_load_percent),
        power_mw=snapshot.power_mw or reading.power_mw,
        temperatures_c=snapshot.temperatures_c or reading.temperatures_c,
        unread={name: reason for name, reason in snapshot.unread.items() if name not in filled},
    )


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


class Tegrastats:
    """A running ``tegrastats`` and its latest line. There is no line when it is missing, hangs or has ended."""

    def __init__(self, binary: Path, period_s: float) -> None:
        self._binary = binary
        self._period_s = period_s
        self._latest: tuple[float, Reading] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the program; do nothing where it cannot be started."""
        interval_ms = max(100, round(self._period_s * 1000))
        try:
            self._process = subprocess.Popen(
                [str(self._binary), "--interval", str(interval_ms)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
            )
        except OSError:
            return
        if self._process.stdout is not None:
            self._thread = threading.Thread(target=self._follow, args=(self._process.stdout,), daemon=True)
            self._thread.start()

    def _follow(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._latest = (time.monotonic(), parse_line(line))

    def latest(self, now_s: float) -> Reading | None:
        """Return the figures of the last line; ``None`` when it is too old for ``now_s``."""
        if self._latest is None or now_s - self._latest[0] > max(2.0, 3 * self._period_s):
            return None
        return self._latest[1]

    def stop(self) -> None:
        """Stop the program and the thread that reads it."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._thread is not None:
            self._thread.join(timeout=2)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None


# Sampling of the board's state in the background during a run.

# The rail of the whole module: GPU, CPU, memory and the rest.
ENERGY_RAIL = "VDD_IN"


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
