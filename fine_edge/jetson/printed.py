"""The state of a board, read from the board itself or from what NVIDIA's tools print about it.

Read for this, from Orin boards on L4T 35 to 39.2:

    nvpmodel -q                NV Power Mode: 25W, and its number on the next line
    nvpmodel -q --verbose      NVPM VERB: PARAM GPU: ARG MAX_FREQ: PATH ...: REAL_VAL: 918000000 CONF_VAL: 918000000
    jetson_clocks --show       SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Developer Kit
                               GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=306000000
                               EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0
                               NV Power Mode: 25W, without a number
    /etc/nv_tegra_release      # R36 (release), REVISION: 4.7, ...

Clocks are in Hz, those of CPUs in kHz. One file may hold several outputs, of one board or of more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fine_edge import files
from fine_edge.errors import BoardError
from fine_edge.jetson import power_modes
from fine_edge.jetson.board import Board, l4t_of
from fine_edge.jetson.power_modes import CLOCK_TOLERANCE, UNLIMITED_MHZ, ModeTable, PowerMode, parse_modes
from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.tegrastats_log import TegrastatsLog

_MODE = re.compile(r"NV Power Mode\s*:\s*(\S{1,60})\s*$")
_MODE_ID = re.compile(r"[0-9]{1,4}")
_MACHINE = re.compile(r"SOC family:\S* +Machine:(.{1,200})")
_CLOCKS = re.compile(
    r"(GPU|EMC) MinFreq=(\d{1,19}) MaxFreq=(\d{1,19}) CurrentFreq=(\d{1,19})(?: FreqOverride=(\d))?", re.A
)
_LIMIT = re.compile(
    r"PARAM (GPU|EMC|CPU\w{0,20}): ARG (MAX_FREQ|MIN_FREQ): .{0,300}REAL_VAL: (\d{1,19}) CONF_VAL: (-?\d{1,19})\s*$",
    re.A,
)
_OTHERS = re.compile(r"NVPM VERB:|NV Fan Mode|Online CPUs:|cpu\d+: +Online=|Active GPU TPCs:|FAN |SOC family:")
_NOT_ROOT = re.compile(r"Error: Run this script ?\(?\S*jetson_clocks\)? as a root user")
# nvpmodel lists about 40 limits of a board; a file with more boards than this is watched time, not a state.
_MOST_PARTS = 256
_MOST_STATES = 64
NOT_ROOT = "jetson_clocks printed no clocks, because it was not run as root"


@dataclass(frozen=True)
class BoardState:
    """The state of a board at one moment.

    Attributes:
        model: the device tree's name.
        l4t: the version of Jetson Linux.
        snapshot: clocks, mode and, from the board itself, heat and power.
        emc_locked: whether ``jetson_clocks`` holds the memory clock.
        contradictions: in what the tools say, one sentence each.
        modes: the table that the mode was looked up in.
    """

    model: str | None
    l4t: str | None
    snapshot: Snapshot
    emc_locked: bool | None = None
    contradictions: tuple[str, ...] = ()
    modes: ModeTable = power_modes.NO_MODES

    def to_json(self) -> dict[str, Any]:
        """Return the state with the fields of the snapshot that are known."""
        known = {name: value for name, value in vars(self.snapshot).items() if value not in (None, {}, ())}
        for name in ("at_s", "contradiction"):
            known.pop(name, None)
        return {
            "model": self.model,
            "l4t": self.l4t,
            "locked": self.snapshot.is_locked,
            "emc_locked": self.emc_locked,
            "contradictions": list(self.contradictions),
            **known,
        }


def state_of(board: Board) -> BoardState:
    """Return the state of a board now."""
    found = board.snapshot()
    contradictions = (found.contradiction,) if found.contradiction else ()
    return BoardState(board.model, board.l4t, found, None, contradictions, board.modes)


@dataclass
class _Draft:
    """What the lines of one board have said so far; ``said`` are the parts that begin another board when repeated."""

    said: set[str] = field(default_factory=set)
    model: str | None = None
    l4t: str | None = None
    mode: str | None = None
    mode_id: int | None = None
    clocks: dict[str, Any] = field(default_factory=dict)
    emc_locked: bool | None = None
    contradictions: list[str] = field(default_factory=list)

    def is_state(self) -> bool:
        return self.mode is not None or any(self.clocks.get(f"{name}_max_mhz") for name in ("gpu", "emc"))


class PrintedStates:
    """Collects states from lines, which are given one after the other.

    Raises:
        BoardError: from :meth:`add` and :meth:`finish`, for more states than anybody reads.
    """

    def __init__(self) -> None:
        self._drafts = [_Draft()]
        self._pending: str | None = None
        self.was_not_root = False

    def add(self, line: str) -> bool:
        """Read a line; return whether it is one of NVIDIA's tools."""
        text = line.strip()
        if self._pending is not None:
            mode, self._pending = self._pending, None
            if _MODE_ID.fullmatch(text):
                self._set_numbered(mode, int(text))
                return True
            self._set_mode(self._draft("mode"), mode)
        if found := _MODE.search(text):
            self._pending = found[1]
        elif found := _MACHINE.match(text):
            self._draft("machine").model = found[1].strip()
        elif found := _CLOCKS.match(text):
            self._set_clocks(*found.groups())
        elif found := _LIMIT.search(text):
            self._set_limit(*found.groups())
        elif version := l4t_of(text):
            self._drafts[-1].l4t = self._drafts[-1].l4t or version
        elif _NOT_ROOT.match(text):
            self.was_not_root = True
        else:
            return _OTHERS.match(text) is not None
        return True

    def _draft(self, part: str) -> _Draft:
        """Return the draft that a part belongs to: a new one where the last has that part already."""
        if part in self._drafts[-1].said:
            self._drafts = [draft for draft in self._drafts if draft.is_state()] + [_Draft()]
        draft = self._drafts[-1]
        draft.said.add(part)
        if len(self._drafts) > _MOST_STATES or len(draft.said) > _MOST_PARTS:
            what = f"holds more than {_MOST_STATES} states of a board, or one of more than {_MOST_PARTS} parts"
            raise BoardError(what, hint="keep the lines of the states that are of interest")
        return draft

    def _set_numbered(self, mode: str, number: int) -> None:
        """Take the answer of ``nvpmodel -q``; the same answer again is no other board."""
        if (self._drafts[-1].mode, self._drafts[-1].mode_id) != (mode, number):
            draft = self._draft("nvpmodel")
            self._set_mode(draft, mode)
            draft.mode_id = number

    def _set_mode(self, draft: _Draft, mode: str) -> None:
        if draft.mode is not None and draft.mode != mode:
            draft.contradictions.append(f"nvpmodel and jetson_clocks name different modes, {draft.mode} and {mode}")
        draft.mode = draft.mode or mode

    def _set_clocks(self, name: str, low: str, high: str, now: str, override: str | None) -> None:
        draft = self._draft(name)
        key = name.lower()
        draft.clocks |= {f"{key}_mhz": _mhz(now), f"{key}_max_mhz": _mhz(high)}
        if name == "GPU":
            draft.clocks["gpu_min_mhz"] = _mhz(low)
        elif override is not None:
            draft.emc_locked = override != "0"

    def _set_limit(self, name: str, which: str, real: str, wanted: str) -> None:
        """Take one limit of ``nvpmodel -q --verbose``: what the kernel has, and what the file asks for."""
        draft = self._draft(f"{name} {which}")
        scale = 1e3 if name.startswith("CPU") else 1.0
        real_mhz, wanted_mhz = _mhz(real, scale), _mhz(wanted, scale)
        if name in ("GPU", "EMC") and real_mhz:
            draft.clocks.setdefault(f"{name.lower()}_{which[:3].lower()}_mhz", real_mhz)
        if which == "MAX_FREQ" and real_mhz and wanted_mhz and abs(real_mhz / wanted_mhz - 1) > CLOCK_TOLERANCE:
            said = f"nvpmodel sets the limit of {name} to {wanted_mhz:.0f} MHz, the kernel has {real_mhz:.0f} MHz"
            draft.contradictions.append(said)

    def finish(self, modes: ModeTable | None = None) -> tuple[BoardState, ...]:
        """Return the states; modes come from ``modes``, or else from the built-in table of the board."""
        if self._pending is not None:
            self._set_mode(self._draft("mode"), self._pending)
            self._pending = None
        return tuple(_state(draft, modes) for draft in self._drafts if draft.is_state())


def _mhz(hertz: str, scale: float = 1.0) -> float | None:
    """Return a clock; ``None`` for the numbers that stand for no limit."""
    mhz = int(hertz) * scale / 1e6
    return mhz if 0 < mhz < UNLIMITED_MHZ else None


def _mode_in(table: ModeTable, draft: _Draft) -> PowerMode | None:
    """Return the mode by its name, which every tool prints."""
    named = [mode for mode in table.modes if mode.name == draft.mode]
    return next((mode for mode in named if draft.mode_id in (None, mode.id)), None)


def _state(draft: _Draft, given: ModeTable | None) -> BoardState:
    table = given or power_modes.built_in_modes(draft.model)
    mode = _mode_in(table, draft)
    contradictions = draft.contradictions
    if given and mode is None and draft.mode:
        number = "" if draft.mode_id is None else f" with number {draft.mode_id}"
        contradictions = [*contradictions, f"{given.source} has no mode {draft.mode}{number}"]
    state = Snapshot(
        0.0,
        mode=draft.mode,
        mode_id=draft.mode_id if draft.mode_id is not None or mode is None else mode.id,
        mode_gpu_mhz=power_modes.allowed_gpu_mhz(mode, draft.model),
        **{name: clock for name, clock in draft.clocks.items() if name != "emc_min_mhz"},
    )
    said = power_modes.contradiction(state, table) if mode else None
    state = replace(state, contradiction=said)
    every = (*contradictions, *([said] if said else []))
    return BoardState(draft.model, draft.l4t, state, draft.emc_locked, every, table)


# A file about a board: what kind it is shows in its content, never in its name.

# Lines of an AGX Thor have 800 bytes; a longer one is read in pieces, none of which is a line of tegrastats.
_LONGEST_LINE = 2**16
_MOST_CONF_BYTES = 2**22
_CONF = re.compile(rb"^\s*<\s*(?:PARAM\s+TYPE|POWER_MODEL\s+ID)\s*=", re.MULTILINE)
HINT = (
    "give what one of these wrote: sudo tegrastats --logfile FILE; sudo jetson_clocks --show > FILE;"
    " sudo nvpmodel -q > FILE; or a copy of /etc/nvpmodel.conf"
)


@dataclass(frozen=True)
class BoardFile:
    """What a file says of a board; a file may hold a log and states.

    Attributes:
        path: of the file.
        log: lines of ``tegrastats``; ``None`` without any.
        printed: states that ``nvpmodel`` and ``jetson_clocks`` printed.
        modes: the table of an ``nvpmodel.conf``; ``None`` for other files.
        left_out: lines that are neither blank nor of a known kind, those that were cut among them.
    """

    path: Path
    log: TegrastatsLog | None = None
    printed: PrintedStates | None = None
    modes: ModeTable | None = None
    left_out: int = 0


def read_board_file(path: Path) -> BoardFile:
    """Read a file of any size in memory that does not grow with it.

    Raises:
        BoardError: when it is missing, cannot be read, or is of no kind that is known.
    """
    files.file_size(path, BoardError, hint=HINT)
    try:
        with path.open("rb") as handle:
            head = handle.read(_LONGEST_LINE)
        if _CONF.search(head):
            return _read_conf(path)
        return _read_lines(path)
    except BoardError as error:
        raise BoardError(error.what, where=error.where or path, hint=error.hint) from error
    except OSError as error:
        raise BoardError(f"cannot be read ({error.strerror or error})", where=path, hint=HINT) from error


def _read_conf(path: Path) -> BoardFile:
    text = files.read_text(path, BoardError, hint=HINT, limit=_MOST_CONF_BYTES)
    modes = parse_modes(text, path.name)
    if not modes.modes:
        raise BoardError("this nvpmodel.conf has no power mode", where=path, hint="copy /etc/nvpmodel.conf again")
    return BoardFile(path, modes=modes)


def _read_lines(path: Path) -> BoardFile:
    log, printed, left_out = TegrastatsLog(), PrintedStates(), 0
    for line in _lines(path):
        if not log.add(line) and not printed.add(line) and line.strip():
            left_out += 1
    has_states = bool(printed.finish())
    if not log.lines and not has_states:
        what = NOT_ROOT if printed.was_not_root else "nothing in it is known of a board"
        raise BoardError(what, where=path, hint=HINT)
    return BoardFile(path, log if log.lines else None, printed if has_states else None, None, left_out)


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as handle:
        while line := handle.readline(_LONGEST_LINE):
            yield line.decode("utf-8", "replace").lstrip("\ufeff")
