"""Where people read: tables on standard output, progress and remarks on standard error.

Standard output carries only results, so that ``--json`` can be piped.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

out = Console()
err = Console(stderr=True)


def print_json(data: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(data, indent=1) + "\n")


def remark(text: str) -> None:
    """A remark on standard error that does not belong to the result."""
    err.print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """A warning on standard error."""
    err.print(f"warning: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A progress bar on standard error; silent when that is not a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        yield bar


@contextlib.contextmanager
def status(text: str) -> Iterator[None]:
    """A spinner while something of unknown length runs; silent when standard error is not a terminal."""
    if err.is_terminal:
        with err.status(text):
            yield
    else:
        yield
