"""``fine-edge evaluate``: AP and errors of an artifact on a labelled data set."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fine_edge import console
from fine_edge.cli.arguments import Parser, add_json, deliver, sub_command
from fine_edge.cli.target import add_target_options, open_target
from fine_edge.contract import Contract
from fine_edge.errors import ConfigError, DataError
from fine_edge.evaluate import comparison_page, drift_page
from fine_edge.evaluate.boxes import evaluate_boxes, evaluate_results
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.comparison import Comparison, compare
from fine_edge.evaluate.drift import drift
from fine_edge.evaluate.evaluation import Evaluation
from fine_edge.evaluate.resampling import RESAMPLES
from fine_edge.evaluate.run import stem
from fine_edge.evaluate.segment_data import Data, read_boxes, read_data
from fine_edge.evaluate.segments import SegmentEvaluation, evaluate_segments
from fine_edge.evaluate.tables import (
    error_change_table,
    error_table,
    precision_change_table,
    precision_table,
    segment_table,
)
from fine_edge.files import write_text
from fine_edge.table import Table
from fine_edge.text import printable

_NAMED = 10
"""Number of unreadable pictures that are named."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of a new evaluation."""
    parser = Parser(
        prog="fine-edge evaluate",
        description="Run a model on labelled data with the same runner as the bench, and score its detections."
        " An interrupted run goes on where it stopped. Exit code 1 when an image could not be read.",
        epilog="Also: compare A.json B.json (two models), drift A.json B.json (two artifacts of one); with --help.",
    )
    add_target_options(parser, required=False)
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="ANN.json",
        help="annotations: a file in one of COCO's formats, or a folder of VisDrone's or Cityscapes'",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of its pictures")
    parser.add_argument(
        "--detections",
        type=Path,
        metavar="FILE",
        help="score a file of COCO results instead of running a model; needs no pictures",
    )
    parser.add_argument(
        "--same",
        action="append",
        default=[],
        metavar="CATEGORY=CLASS",
        help="a category of the data set and the model's name for it, where the two differ; may be repeated",
    )
    parser.add_argument(
        "--exact-preprocessing",
        action="store_true",
        help="resize with the slow reference instead of OpenCV, to see in AP what the difference costs",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("evaluations"), help="folder of results (default: %(default)s)"
    )
    add_json(parser)
    return parser


def _same(pairs: list[str]) -> dict[str, str]:
    same = {}
    for pair in pairs:
        category, equals, name = pair.partition("=")
        if not (category and equals and name):
            raise ConfigError(f"{pair!r} is no pair of names", where="--same", hint="write CATEGORY=CLASS")
        same[category] = name
    return same


def _run(args: argparse.Namespace, data: Data) -> Evaluation | SegmentEvaluation:
    if not args.images:
        raise ConfigError("the pictures are missing", where="--images", hint="give their folder, or --detections FILE")
    opened = open_target(args)
    with contextlib.closing(opened.runner):
        _require_match(opened.contract, data)
        same, exact = _same(args.same), args.exact_preprocessing
        _refuse_useless(opened.contract, exact=exact)
        evaluation = (
            evaluate_boxes(opened, data, args.images, args.out, same, exact=exact)
            if isinstance(data, CocoData)
            else evaluate_segments(opened, data, args.images, args.out, same, exact=exact)
        )
    path = args.out / f"{stem(opened, data, exact=exact)}.json"
    write_text(path, json.dumps(evaluation.to_json(), indent=1) + "\n")
    console.remark(f"written: {path}")
    return evaluation


def _refuse_useless(contract: Contract, *, exact: bool) -> None:
    if exact and contract.preprocessing.in_graph:
        hint = "leave it out, or evaluate the export without --frame"
        raise ConfigError("the graph itself preprocesses its frames", where="--exact-preprocessing", hint=hint)


def _require_match(contract: Contract, data: Data) -> None:
    takes, kind = {"detection", "instance"}, "boxes"
    if not isinstance(data, CocoData):
        takes, kind = ({"semantic"}, "classes of pixels") if data.segments is None else ({"panoptic"}, "segments")
    if contract.task not in takes:
        raise DataError(
            f"holds {kind}, but {contract.model} is a model for {contract.task}",
            where=data.path,
            hint="give annotations of its task",
        )


def _given(args: argparse.Namespace) -> int:
    return sum(value is not None for value in (args.model, args.onnx, args.engine, args.detections))


def _pair_parser(command: str, description: str, names: tuple[str, str]) -> argparse.ArgumentParser:
    parser = Parser(prog=f"fine-edge evaluate {command}", description=description)
    for place, name in zip(("a", "b"), names, strict=True):
        parser.add_argument(place, type=Path, metavar=f"{name}.json")
    parser.add_argument("--html", type=Path, metavar="FILE", help="one page with the pictures that differ most")
    parser.add_argument(
        "--resamples",
        type=_count,
        default=RESAMPLES,
        metavar="N",
        help="number of resampled image sets (default: %(default)s)",
    )
    add_json(parser)
    return parser


def _read_both(args: argparse.Namespace) -> Comparison:
    with console.progress() as bar:
        task = bar.add_task("resampling images", total=args.resamples)
        return compare(args.a, args.b, resamples=args.resamples, advance=lambda: bar.advance(task))


def _deliver(args: argparse.Namespace, page: Callable[[], str], data: dict[str, Any], tables: list[Table]) -> None:
    """Write the page if it was asked for, then JSON or tables."""
    if args.html:
        with console.status("drawing"):
            text = page()
        write_text(args.html, text)
        console.remark(f"written: {args.html}")
    deliver(args, data, tables)


def _compare(argv: list[str]) -> int:
    parser = _pair_parser("compare", "Two evaluations on the same data: B against A.", ("A", "B"))
    args = parser.parse_args(argv)
    found = _read_both(args)
    tables = [precision_change_table(found), error_change_table(found)]
    _deliver(args, lambda: comparison_page.to_html(found), found.to_json(), tables)
    return 0


def _drift(argv: list[str]) -> int:
    description = (
        "Two artifacts of one model on the same data: what another precision or backend changes. Exit code 1 when AP"
        " drops by more than allowed."
    )
    parser = _pair_parser("drift", description, ("REFERENCE", "OTHER"))
    parser.add_argument(
        "--max-ap-drop",
        type=float,
        metavar="POINTS",
        help="largest drop of AP for exit code 0, as a release gate (default: no limit)",
    )
    args = parser.parse_args(argv)
    if args.max_ap_drop is not None and not math.isfinite(args.max_ap_drop):
        raise ConfigError(f"{args.max_ap_drop} is not a finite number", where="--max-ap-drop", hint="such as 0.1")
    found = drift(_read_both(args))
    tables = [precision_change_table(found.comparison), drift_page.drift_table(found, args.max_ap_drop)]
    _deliver(args, lambda: drift_page.to_html(found, args.max_ap_drop), found.to_json(), tables)
    if found.found_nothing:
        console.warn("neither artifact has a detection in any image: nothing was compared")
        return 1
    if args.max_ap_drop is None or (found.ap_drop is not None and found.ap_drop <= args.max_ap_drop):
        return 0
    dropped = "is not defined" if found.ap_drop is None else f"dropped by {found.ap_drop:.3f} points"
    console.warn(f"AP {dropped}, at most {args.max_ap_drop:g} allowed")
    return 1


def _warn_of_skipped(skipped: dict[str, str]) -> None:
    for name, reason in itertools.islice(skipped.items(), _NAMED):
        console.warn(f"not in any figure: {printable(name)}: {reason}")
    if len(skipped) > _NAMED:
        console.warn(f"not in any figure: {len(skipped) - _NAMED} more pictures, which the evaluation's file names")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main(argv: list[str]) -> int:
    """Run ``compare`` or ``drift`` if named, else evaluate; return the exit code."""
    if run := sub_command(argv, {"compare": _compare, "drift": _drift}):
        return run()
    args = make_parser().parse_args(argv)
    if _given(args) != 1:
        raise ConfigError("give one of --model, --onnx, --engine and --detections")
    if args.detections:
        evaluation: Evaluation | SegmentEvaluation = evaluate_results(
            args.detections, read_boxes(args.data, pictures=args.images is not None), args.images
        )
    else:
        evaluation = _run(args, read_data(args.data))
    _warn_of_skipped(evaluation.skipped)
    if isinstance(evaluation, Evaluation):
        tables = [precision_table(evaluation), error_table(evaluation)]
    else:
        tables = [segment_table(evaluation)]
    deliver(args, evaluation.to_json(), tables)
    return 1 if evaluation.skipped else 0
