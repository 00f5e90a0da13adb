"""``python -m fine_edge.doctor``: one page on this machine, and what to do about what it lacks.

Exit code 0 when at least one backend works and nothing is broken; 1 when something that matters here is not:
TensorRT or the GPU on a Jetson, a package that is installed and does not load.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.text import Text

from fine_edge import command, console, machine
from fine_edge.doctor.backends import backends
from fine_edge.doctor.check import Diagnosis, Status
from fine_edge.doctor.hardware import hardware
from fine_edge.doctor.software import software
from fine_edge.jetson.board import Board
from fine_edge.table import Column, Table

_STYLES: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "bold red", "absent": "dim"}


def diagnose(board: Board, folder: Path) -> Diagnosis:
    """Look at everything. ``folder`` is where engines and records would be written."""
    state = board.snapshot()
    about = {**machine.describe(), "board": board.model, "l4t": board.l4t, "state": state.to_json()}
    checks = (*software(board), *hardware(board, state, folder))
    return Diagnosis(about, checks, tuple(backends(board)))


def _print(diagnosis: Diagnosis) -> None:
    for title, lines in (("This machine", diagnosis.checks), ("Backends", diagnosis.backends)):
        table = Table(title, [Column(name, numeric=False) for name in ("Check", "Status", "Found")])
        for line in lines:
            table.add(line.name, line.status, line.found)
        table.print(console.out)
    for line in (*diagnosis.checks, *diagnosis.backends):
        if line.mend:
            text = Text.assemble((f"{line.status:6}", _STYLES[line.status]), f" {line.name}: {line.mend}")
            console.out.print(text, soft_wrap=True)
    verdict = ("This machine is fit.", "green") if diagnosis.is_fit else ("Something is missing or broken.", "bold red")
    console.out.print(Text(*verdict))


def main(argv: list[str]) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m fine_edge.doctor", description="one page on this machine")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--root", type=Path, default=Path("/"), help="look at a recorded tree of /sys, /proc and /etc")
    arguments = parser.parse_args(argv)
    with console.status("looking at this machine"):
        diagnosis = diagnose(Board(arguments.root), Path.cwd())
    if arguments.json:
        console.print_json(diagnosis.to_json())
    else:
        _print(diagnosis)
    return 0 if diagnosis.is_fit else 1


if __name__ == "__main__":
    command.run(main)
