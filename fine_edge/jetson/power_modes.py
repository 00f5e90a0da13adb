"""Power modes of ``nvpmodel``, and whether the clocks agree with the mode that is set.

``/etc/nvpmodel.conf`` documents its own format in its header: sections in angle brackets, ``PARAM`` (names and
paths), ``POWER_MODEL ID= NAME=`` (lines of parameter, argument, value; clocks in Hz, -1 without limit) and
``PM_CONFIG DEFAULT=``. Read for this: NVIDIA's ``nvpmodel_p3767_0003_super.conf`` (Orin Nano 8 GB, L4T 36.4).
The active mode is in ``/var/lib/nvpmodel/status`` as ``pmode:0002``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fine_edge.jetson import sysfs
from fine_edge.jetson.snapshot import Snapshot

# Clocks change in steps of about 1 % and read a little low (1014 to 1020 MHz at 1020), so less than this is ignored.
CLOCK_TOLERANCE = 0.03
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


ORIN_NANO_8GB = ModeTable(
    modes=(
        PowerMode(0, "15W", 612.0, 2133.0),
        PowerMode(1, "25W", 918.0, 3199.0),
        PowerMode(2, "MAXN_SUPER", 1020.0, 3199.0),
        PowerMode(3, "7W", 408.0, 2133.0),
    ),
    default_id=1,
    source="built-in table of the Orin Nano 8 GB on JetPack 6.2, not read from this board",
)
"""NVIDIA's figures: 15W, 25W and the default from the file named above, 7W from ``nvpmodel_p3767_0003.conf``,
MAXN_SUPER from the module's data sheet. 2133 MHz of LPDDR5 on 128 bits are 68 GB/s, 3199 MHz are 102 GB/s."""

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
        # -1 means "no limit", and so does the 0 that NVIDIA's files hold for memory.
        if len(words) == 3 and words[1] == "MAX_FREQ" and re.fullmatch(r"[1-9][0-9]{0,11}", words[2]):
            clocks[words[0]] = int(words[2]) / 1e6
    return clocks


def read_modes(root: Path, model: str | None) -> ModeTable:
    """Return the board's own table, or the built-in one for an Orin Nano without the file."""
    text = sysfs.read_text(root / "etc/nvpmodel.conf")
    if text is not None:
        return parse_modes(text)
    return ORIN_NANO_8GB if _is_orin_nano(model) else NO_MODES


def read_mode_id(root: Path) -> int | None:
    """Return the number of the active mode, from ``pmode:0002``."""
    found = re.search(r"pmode:\s*([0-9]{1,4})\b", sysfs.read_text(root / "var/lib/nvpmodel/status") or "")
    return int(found[1]) if found else None


def allowed_gpu_mhz(mode: PowerMode | None, model: str | None) -> float | None:
    """Return the GPU clock that a mode allows; for an unlimited mode the module's maximum, or ``None`` if unknown."""
    if mode is None:
        return None
    if mode.gpu_max_mhz is None and mode.name == "MAXN_SUPER" and _is_orin_nano(model):
        return next(builtin.gpu_max_mhz for builtin in ORIN_NANO_8GB.modes if builtin.name == mode.name)
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
    if mode.emc_max_mhz and snapshot.emc_mhz and snapshot.emc_mhz > mode.emc_max_mhz * (1 + CLOCK_TOLERANCE):
        return f"mode {mode.name} ends at {mode.emc_max_mhz:.0f} MHz, yet memory runs at {snapshot.emc_mhz:.0f} MHz"
    return None
