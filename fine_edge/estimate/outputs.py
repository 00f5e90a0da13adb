"""Where estimates go: tables for people, JSON for machines, a picture."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fine_edge import atomic, console
from fine_edge.table import Table

_STDOUT = Path("-")


def add_outputs(parser: argparse.ArgumentParser, picture: str = "also draw it (PNG)") -> None:
    """Add ``--json``, ``--csv``, ``--markdown`` and ``--picture``."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write it as JSON; - for standard output")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table as CSV")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table as Markdown")
    parser.add_argument("--picture", type=Path, metavar="FILE", help=picture)


def check_outputs(given: argparse.Namespace) -> None:
    """Before models are exported and compiled, see whether the results can be written.

    Raises:
        OutputError: when they cannot.
    """
    atomic.refuse_unwritable([None if given.json == _STDOUT else given.json, given.csv, given.markdown, given.picture])


def deliver(
    given: argparse.Namespace, data: Mapping[str, Any], tables: Sequence[Table], draw: Callable[[Path], None]
) -> None:
    """Print tables, or JSON in their place; write the files that were asked for, the first table among them."""
    if given.json == _STDOUT:
        console.print_json(data)
    else:
        for table in tables:
            table.print(console.out)
    if given.json and given.json != _STDOUT:
        atomic.write_text(given.json, json.dumps(data, indent=1) + "\n")
    if given.csv:
        atomic.write_text(given.csv, tables[0].to_csv())
    if given.markdown:
        atomic.write_text(given.markdown, tables[0].to_markdown())
    if given.picture:
        draw(given.picture)
        console.remark(f"picture: {given.picture}")
