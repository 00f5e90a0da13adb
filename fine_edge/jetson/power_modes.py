"""Power modes of ``nvpmodel``, and whether the clocks agree with the mode that is set.

``/etc/nvpmodel.conf`` documents its own format in its header: sections in angle brackets, ``PARAM`` (names and
paths), ``POWER_MODEL ID= NAME=`` (lines of parameter, argument, value; clocks in Hz, -1 without limit) and
``PM_CONFIG DEFAULT=``. Read for this: NVIDIA's ``nvpmodel_p3767_0003_super.conf`` (Orin Nano 8 GB, L4T 36.4).
The active mode is in ``/var/lib/nvpmodel/status`` as ``pmode:0002``. Its number means nothing without the board's
table: mode 1 is 25W on an Orin Nano whose model says "Super", and 7W on one whose model does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fine_edge.jetson.snapshot import Snapshot
from fine_edge.jetson.sysfs import read_mhz, read_text

# Clocks change in steps of about 1 % and read a little low (1014 to 1020 MHz at 1020), so less than this is ignored.
CLOCK_TOLERANCE = 0.03
# No clock is that fast: NVIDIA writes 0, -1 or the largest 64-bit number of Hz for "no limit".
UNLIMITED_MHZ = 1e6
_SECTION = re.compile(r"<\s*(\w+)\s*(.*?)>")
_PAIR = re.compile(r"(\w+)\s*=\s*(\S+)")
_NUMBER = re.compile(r"[0-9]{1,4}")


@dataclass(frozen=True)
class PowerMode:
    """One power mode; ``None`` for a clock that the file does not limit."""

    id: int
    name: str
    gpu_max_mhz: float | None
    emc_max_mhz: float | None


@dataclass(frozen=True)
class ModeTable:
    """The modes of a board, the mode that it boots into, and the source of the table."""

    modes: tuple[PowerMode, ...]
    default_id: int | None
    source: str

    def find(self, mode_id: int | None) -> PowerMode | None:
        """Return the mode with a number; ``None`` where the table lacks it."""
        return next((mode for mode in self.modes if mode.id == mode_id), None)


# NVIDIA's figures: 15W, 25W and the default from the file named above, 7W from ``nvpmodel_p3767_0003.conf``, MAXN_SUPER
# from the module's data sheet. 2133 MHz of LPDDR5 on 128 bits are 68 GB/s, 3199 MHz are 102 GB/s.
ORIN_NANO_8GB_SUPER = ModeTable(
    modes=(
        PowerMode(0, "15W", 612.0, 2133.0),
        PowerMode(1, "25W", 918.0, 3199.0),
        PowerMode(2, "MAXN_SUPER", 1020.0, 3199.0),
        PowerMode(3, "7W", 408.0, 2133.0),
    ),
    default_id=1,
    source="built-in table of the Orin Nano 8 GB Super on JetPack 6.2, not read from this board",
)

# ``nvpmodel_p3767_0003.conf``; 15W as ``jetson_clocks --show`` gives it on a board with L4T 36.5.
ORIN_NANO_8GB = ModeTable(
    modes=(PowerMode(0, "15W", 624.75, 2133.0), PowerMode(1, "7W", 408.0, 2133.0)),
    default_id=0,
    source="built-in table of the Orin Nano 8 GB without Super, not read from this board",
)

# Modules of 8 GB have 7607 to 7620 MiB; those of 4 GB have other modes, which are not built in.
_SMALLEST_8GB_MIB = 6144.0

NO_MODES = ModeTable((), None, "no /etc/nvpmodel.conf")


def parse_modes(text: str, source: str = "/etc/nvpmodel.conf") -> ModeTable:
    """Return modes and default of an ``nvpmodel.conf``; lines of another format are ignored."""
    modes: list[PowerMode] = []
    default_id: int | None = None
    for kind, attributes, lines in _sections(text):
        if kind == "POWER_MODEL" and _NUMBER.fullmatch(attributes.get("ID", "")):
            limits = _max_clocks_mhz(lines)
            name = attributes.get("NAME", attributes["ID"])
            modes.append(PowerMode(int(attributes["ID"]), name, limits.get("GPU"), limits.get("EMC")))
        elif kind == "PM_CONFIG" and _NUMBER.fullmatch(attributes.get("DEFAULT", "")):
            default_id = int(attributes["DEFAULT"])
    return ModeTable(tuple(modes), default_id, source)


def _sections(text: str) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    kind, attributes, lines = "", {}, []  # type: str, dict[str, str], list[str]
    for raw in text.splitlines():
        line = raw.partition("#")[0].strip()
        header = _SECTION.match(line)
        if header:
            yield kind, attributes, lines
            kind, attributes, lines = header[1], dict(_PAIR.findall(header[2])), []
        else:
            lines.append(line)
    yield kind, attributes, lines


def _max_clocks_mhz(lines: list[str]) -> dict[str, float]:
    clocks = {}
    for line in lines:
        words = line.split()
        # Other numbers stand for UNLIMITED_MHZ; 0 is what NVIDIA's files hold for memory.
        if len(words) == 3 and words[1] == "MAX_FREQ" and re.fullmatch(r"[1-9][0-9]{0,11}", words[2]):
            clocks[words[0]] = int(words[2]) / 1e6
    return clocks


def read_modes(root: Path, model: str | None, ram_total_mib: float | None = None) -> ModeTable:
    """Return the board's own table, or the built-in one for an Orin Nano without the file."""
    text = read_text(root / "etc/nvpmodel.conf")
    return built_in_modes(model, ram_total_mib) if text is None else parse_modes(text)


def built_in_modes(model: str | None, ram_total_mib: float | None = None) -> ModeTable:
    """Return the table of an Orin Nano 8 GB, with or without Super; no modes for other modules."""
    if model is None or not _is_orin_nano(model) or "4GB" in model.replace(" ", ""):
        return NO_MODES
    if ram_total_mib is not None and ram_total_mib < _SMALLEST_8GB_MIB:
        return NO_MODES
    return ORIN_NANO_8GB_SUPER if "Super" in model else ORIN_NANO_8GB


def read_emc_max_mhz(root: Path) -> float | None:
    """Return the cap of the memory clock, which ``nvpmodel`` writes and every user may read; ``None`` without one."""
    cap = read_mhz(root / "sys/kernel/nvpmodel_clk_cap/emc")
    return cap if cap and 0 < cap < UNLIMITED_MHZ else None


def read_mode_id(root: Path) -> int | None:
    """Return the number of the active mode, from ``pmode:0002``."""
    found = re.search(r"pmode:\s*([0-9]{1,4})\b", read_text(root / "var/lib/nvpmodel/status") or "")
    return int(found[1]) if found else None


def allowed_gpu_mhz(mode: PowerMode | None, model: str | None) -> float | None:
    """Return the GPU clock that a mode allows; for an unlimited mode the module's maximum, or ``None`` if unknown."""
    if mode is None:
        return None
    if mode.gpu_max_mhz is None and mode.name == "MAXN_SUPER" and _is_orin_nano(model):
        return next(builtin.gpu_max_mhz for builtin in ORIN_NANO_8GB_SUPER.modes if builtin.name == mode.name)
    return mode.gpu_max_mhz


def _is_orin_nano(model: str | None) -> bool:
    return model is not None and "Orin Nano" in model


def contradiction(snapshot: Snapshot, modes: ModeTable) -> str | None:
    """Return how the clocks contradict the mode that is set; ``None`` where they agree or one is unknown.

    A Super mode on a board whose firmware caps the GPU at 624 MHz is possible (balena-os/balena-jetson-orin#605).
    """
    mode = modes.find(snapshot.mode_id)
    # Board.snapshot fills in the module's maximum, which the file does not hold for MAXN_SUPER.
    allowed = snapshot.mode_gpu_mhz or (mode.gpu_max_mhz if mode else None)
    if mode is None:
        return None
    if allowed and snapshot.gpu_max_mhz:
        if snapshot.gpu_max_mhz < allowed * (1 - CLOCK_TOLERANCE):
            return f"mode {mode.name} allows {allowed:.0f} MHz, yet the GPU is capped at {snapshot.gpu_max_mhz:.0f} MHz"
        if snapshot.gpu_max_mhz > allowed * (1 + CLOCK_TOLERANCE):
            return f"mode {mode.name} ends at {allowed:.0f} MHz, yet the GPU may run at {snapshot.gpu_max_mhz:.0f} MHz"
    return _memory_contradiction(snapshot, mode)


def _memory_contradiction(snapshot: Snapshot, mode: PowerMode) -> str | None:
    allowed, cap, now = mode.emc_max_mhz, snapshot.emc_max_mhz, snapshot.emc_mhz
    if not allowed:
        return None
    if cap and cap < allowed * (1 - CLOCK_TOLERANCE):
        return f"mode {mode.name} allows {allowed:.0f} MHz of memory, yet it is capped at {cap:.0f} MHz"
    if cap and cap > allowed * (1 + CLOCK_TOLERANCE):
        return f"mode {mode.name} ends at {allowed:.0f} MHz of memory, yet it may run at {cap:.0f} MHz"
    if now and now > allowed * (1 + CLOCK_TOLERANCE):
        return f"mode {mode.name} ends at {allowed:.0f} MHz, yet memory runs at {now:.0f} MHz"
    return None
