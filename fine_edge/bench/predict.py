"""``--backend predict`` and ``--suite validate-predictor``: estimates, which are no measurements and make no record.

What they need is imported when they run: a measurement on a device needs none of it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from fine_edge.bench.suites import SUITES, find
from fine_edge.errors import ConfigError
from fine_edge.export.request import parse_size

BACKEND, VALIDATION = "predict", "validate-predictor"


def is_asked_for(argv: Sequence[str]) -> bool:
    """Whether a command line of the bench wants estimates."""
    words = " ".join(argv).replace("=", " ").split()
    pairs = list(itertools.pairwise(words))
    return ("--backend", BACKEND) in pairs or ("--suite", VALIDATION) in pairs


def _parser() -> argparse.ArgumentParser:
    from fine_edge.estimate.arguments import add_board
    from fine_edge.estimate.outputs import add_outputs

    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.bench --backend predict",
        description="ESTIMATE a suite's latencies on a board that is not here; nothing is measured.",
    )
    parser.add_argument("--backend", default=BACKEND, choices=[BACKEND], help="this one")
    parser.add_argument(
        "--suite", default="table3", help=f"{', '.join(SUITES)}; {VALIDATION}: against the paper's Table 1"
    )
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="groups, such as 'yolo*'")
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="of all inputs, pixels (default: each detector's own)")
    add_board(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("engines"), metavar="DIR", help="ONNX files (default: engines)"
    )
    add_outputs(parser)
    return parser


def main(argv: list[str]) -> int:
    """Estimate a suite, or validate the estimates.

    Raises:
        FineEdgeError: when a model cannot be exported or compiled.
    """
    from fine_edge.estimate.outputs import check_outputs

    given = _parser().parse_args(argv)
    check_outputs(given)
    if given.suite == VALIDATION:
        return _validate(given)
    return _estimate(given)


def _validate(given: argparse.Namespace) -> int:
    from fine_edge.estimate.commands import validate_table1

    if given.only or given.input_size:
        raise ConfigError("the whole of Table 1 at 640x640 is compared", where="--only, --input-size")
    validate_table1(given)
    return 0


def _estimate(given: argparse.Namespace) -> int:
    from fine_edge.estimate.arguments import read_board
    from fine_edge.estimate.outputs import deliver
    from fine_edge.estimate.picture import write_suite
    from fine_edge.estimate.published import timed_rows
    from fine_edge.estimate.render import suite_table
    from fine_edge.estimate.suite import estimate_suite

    device, mode, calibration = read_board(given)
    size = parse_size(given.input_size)
    record = estimate_suite(given.suite, device, mode, calibration, given.out, given.only, size)
    # The paper's figures are of one size.
    published = {} if any(size) else {row.model: row for row in timed_rows(find(given.suite).paper_table)}
    table = suite_table(record.title, record.rows, published)
    deliver(given, record.to_json(), [table], lambda path: write_suite(record.title, record.rows, published, path))
    return 0
