"""``fine-edge jetson``: the state of this board, or what tegrastats, jetson_clocks and nvpmodel wrote on another."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fine_edge import console
from fine_edge.cli.arguments import Parser, add_explain, add_json, deliver
from fine_edge.errors import BoardError, ConfigError
from fine_edge.fields import to_data
from fine_edge.jetson.board import Board
from fine_edge.jetson.power_modes import ModeTable
from fine_edge.jetson.printed import HINT, BoardFile, BoardState, read_board_file, state_of
from fine_edge.jetson.tables import log_table, modes_table, state_table, write_picture
from fine_edge.jetson.tegrastats_log import Spread, TegrastatsLog
from fine_edge.table import Table


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fine-edge jetson",
        description="State of a Jetson: clocks, power mode, heat, power, and contradictions between them.",
        epilog="Without a FILE, of this board. A FILE is a log of tegrastats, the output of jetson_clocks --show or of"
        " nvpmodel -q [--verbose], or an nvpmodel.conf, which then gives the modes of the other files;"
        " the kind shows in its content.",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="what a tool of the board wrote")
    parser.add_argument(
        "--interval-ms", type=float, metavar="MS", help="between lines of tegrastats that do not say their time"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw the logs over time (PNG)")
    parser.add_argument("--root", type=Path, default=Path("/"), help="look at a recorded tree of /sys, /proc and /etc")
    add_json(parser)
    add_explain(parser)
    return parser


def main(argv: list[str]) -> int:
    """Print the state of this board, or what the files say."""
    given = _parser().parse_args(argv)
    if given.interval_ms is not None and not 0 < given.interval_ms < math.inf:
        raise ConfigError(f"must be positive, not {given.interval_ms}", where="--interval-ms", hint="as in 1000")
    if not given.files:
        return _this_board(given)
    # That it was given shows in no other way: its default is a path as well.
    if given.root != Path("/"):
        raise ConfigError("is for this board, files were given", where="--root", hint="leave one of them out")
    found = []
    for path in given.files:
        with console.status(f"reading {path.name}"):
            found.append(read_board_file(path))
    # Behind all files: an nvpmodel.conf gives the modes of the others, in whatever order they are named.
    modes = _modes_of(found)
    states = [file.printed.finish(modes) if file.printed else () for file in found]
    data = {"files": [_to_json(*pair, given.interval_ms) for pair in zip(found, states, strict=True)]}
    logs = [(file.path.name, file.log) for file in found if file.log]
    # Drawn before anything is printed, so that a picture that cannot be written is the only line.
    if given.picture:
        write_picture(logs, given.interval_ms, given.picture)
    deliver(given, data, _tables(found, states, given.interval_ms))
    if given.picture:
        console.remark(f"picture: {given.picture}")
    return 0


def _this_board(given: argparse.Namespace) -> int:
    for option, value in (("--picture", given.picture), ("--interval-ms", given.interval_ms)):
        if value is not None:
            raise ConfigError("is for logs of tegrastats", where=option, hint="give a FILE")
    board = Board(given.root)
    if not board.is_jetson:
        raise BoardError("this machine is no Jetson", where=given.root, hint=f"run it on the board, or {HINT}")
    state = state_of(board)
    deliver(given, {"board": state.to_json()}, [state_table("This board", state)])
    return 0


def _modes_of(found: Sequence[BoardFile]) -> ModeTable | None:
    """Return the modes that a file gives; two files would leave open which of them holds."""
    given = [file.modes for file in found if file.modes]
    if len(given) > 1:
        raise ConfigError(f"{len(given)} files with power modes", where="FILE", hint="give one nvpmodel.conf at a time")
    return given[0] if given else None


def _tables(
    found: Sequence[BoardFile], states: Sequence[tuple[BoardState, ...]], interval_ms: float | None
) -> Iterator[Table]:
    for file, own in zip(found, states, strict=True):
        if file.modes:
            yield modes_table(file.modes)
        for place, state in enumerate(own, 1):
            which = f" {place} of {len(own)}" if len(own) > 1 else ""
            yield state_table(f"{file.path.name}: state{which}", state)
        if file.log:
            yield log_table(file, file.log, interval_ms)


def _to_json(file: BoardFile, states: tuple[BoardState, ...], interval_ms: float | None) -> dict[str, Any]:
    return {
        "file": str(file.path),
        "left_out_lines": file.left_out,
        "states": [state.to_json() for state in states],
        "modes": to_data(file.modes) if file.modes else None,
        "tegrastats": _log_json(file.log, interval_ms) if file.log else None,
    }


def _log_json(log: TegrastatsLog, interval_ms: float | None) -> dict[str, Any]:
    return {
        "lines": log.lines,
        "seconds": log.seconds(interval_ms),
        "clock_steps": log.clock_steps,
        **{name: _spread_json(spread) for name, spread in log.spreads.items()},
        "temperatures_c": {name: _spread_json(spread) for name, spread in log.temperatures_c.items()},
        "power_mw": {name: _spread_json(spread) for name, spread in log.power_mw.items()},
        "energy_j": log.energy_j(interval_ms),
    }


def _spread_json(spread: Spread) -> dict[str, float]:
    return {
        "lines": spread.number,
        "min": spread.least,
        "median": spread.median,
        "mean": spread.mean,
        "max": spread.greatest,
    }
