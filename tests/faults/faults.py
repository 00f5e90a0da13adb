"""Bad input and bad luck as a table: what is given to which command, and how it must end.

Each file of this folder holds the faults of one part as ``FAULTS``. They run inside the test's process, so that a
fault costs milliseconds; what only a process of its own shows is tested beside the part.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fine_edge import command
from fine_edge.cli.program import main


@dataclass(frozen=True)
class Fault:
    """One way in which a command meets something bad.

    Attributes:
        name: of the test.
        command: such as ``evaluate``.
        arguments: writes the input into an empty folder and returns the command's arguments.
        words: what standard error must say, each of them.
        code: exit code.
        output: what standard output must say, each of them.
    """

    name: str
    command: str
    arguments: Callable[[Path], list[str]]
    words: tuple[str, ...]
    code: int = 2
    output: tuple[str, ...] = ()


def each(faults: list[Fault]) -> pytest.MarkDecorator:
    """Return the mark that runs a test on every fault of a table."""
    assert len({fault.name for fault in faults}) == len(faults)
    return pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in faults])


def check(fault: Fault, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the command on the fault's input: it must end as the table says, with one line of error and no traceback."""
    arguments = fault.arguments(folder)
    before = {path for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    code = command.exit_code(main, [fault.command, *arguments])
    out, err = capsys.readouterr()
    assert code == fault.code, f"{err}\n{out}"
    for words in fault.words:
        assert words in err
    for words in fault.output:
        assert words in out
    assert "Traceback" not in err
    if code == 2:
        assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
        assert not out
        assert not set(folder.rglob("*.partial-*")), "half a file was left"
        assert before <= {path for path in folder.rglob("*") if path.is_file()}, "a file was lost"
    sys.stdout.flush()
