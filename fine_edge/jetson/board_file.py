"""A file about a board: what kind it is shows in its content, never in its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fine_edge import files
from fine_edge.errors import BoardError
from fine_edge.jetson.power_modes import ModeTable, parse_modes
from fine_edge.jetson.printed import NOT_ROOT, PrintedStates
from fine_edge.jetson.tegrastats_log import TegrastatsLog

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
