"""``fine-edge report``: records as one HTML file, or as Markdown."""

from __future__ import annotations

import argparse
from pathlib import Path

from fine_edge import console, files
from fine_edge.bench.sources import read_measurements
from fine_edge.cli.arguments import Parser
from fine_edge.errors import ConfigError
from fine_edge.layers.cost import read_layers
from fine_edge.report.bench_page import to_html
from fine_edge.report.markdown import to_markdown


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fine-edge report",
        description="Combine records of the bench, from any machines, into one HTML or Markdown file.",
    )
    parser.add_argument(
        "records", nargs="+", type=Path, metavar="RECORD", help="of fine-edge bench --json, or a log of trtexec"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one page that needs no other file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument(
        "--layers",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="written by fine-edge layers --json, for the page; may be repeated",
    )
    return parser


def main(argv: list[str]) -> int:
    """Read all files before the first one is written."""
    given = _parser().parse_args(argv)
    if not given.html and not given.markdown:
        raise ConfigError("nothing to write", where="report", hint="give --html FILE or --markdown FILE")
    records = [(path, read_measurements(path)) for path in given.records]
    layers = [read_layers(path) for path in given.layers]
    if given.html:
        with console.status("drawing"):
            page = to_html([record for _, record in records], layers)
        files.write_text(given.html, page)
        console.out.print(str(given.html), markup=False, highlight=False, soft_wrap=True)
    if given.markdown:
        files.write_text(given.markdown, to_markdown(records, given.markdown.parent))
        console.out.print(str(given.markdown), markup=False, highlight=False, soft_wrap=True)
    return 0
