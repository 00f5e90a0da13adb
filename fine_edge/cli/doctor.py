"""``fine-edge doctor``: print one page on this machine, and what to do about what it lacks.

Exit code 0 when at least one backend works and nothing is broken; 1 when something that matters here is not:
TensorRT or the GPU on a Jetson, a package that is installed and does not load.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.text import Text

from fine_edge import console, machine
from fine_edge.cli.arguments import STDOUT, Parser, add_json, deliver
from fine_edge.doctor.backends import backends
from fine_edge.doctor.hardware import hardware
from fine_edge.doctor.software import Diagnosis, Status, software
from fine_edge.jetson.board import Board
from fine_edge.table import Column, Table

_STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red", "absent": "dim"}


def diagnose(board: Board, folder: Path) -> Diagnosis:
    """Check the whole machine; ``folder`` is where engines and records would be written."""
    state = board.snapshot()
    about = {**machine.describe(), "board": board.model, "l4t": board.l4t, "state": vars(state)}
    checks = (*software(board), *hardware(board, state, folder))
    return Diagnosis(about, checks, tuple(backends(board)))


def _print(diagnosis: Diagnosis) -> None:
    for title, lines in (("This machine", diagnosis.checks), ("Backends", diagnosis.backends)):
        table = Table(title, [Column(name, numeric=False) for name in ("Check", "Status", "Found")])
        for line in lines:
            table.add(line.name, line.status, line.found)
        table.print(console.out)
    for line in (*diagnosis.checks, *diagnosis.backends):
        if line.hint:
            text = Text.assemble((f"{line.status:6}", _STYLES[line.status]), f" {line.name}: {line.hint}")
            console.out.print(text)
    verdict = ("This machine is fit.", "green") if diagnosis.is_fit else ("Something is missing or broken.", "bold red")
    console.out.print(Text(*verdict))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(prog="fine-edge doctor", description="one page on this machine")
    add_json(parser)
    parser.add_argument("--root", type=Path, default=Path("/"), help="look at a recorded tree of /sys, /proc and /etc")
    return parser


def main(argv: list[str]) -> int:
    """Print the page; return 1 when something that matters is missing or broken."""
    arguments = make_parser().parse_args(argv)
    with console.status("looking at this machine"):
        diagnosis = diagnose(Board(arguments.root), Path.cwd())
    # No tables here: what is printed has coloured hints below them.
    deliver(arguments, diagnosis.to_json(), [])
    if arguments.json != STDOUT:
        _print(diagnosis)
    return 0 if diagnosis.is_fit else 1
