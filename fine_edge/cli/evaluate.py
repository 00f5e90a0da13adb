"""``fine-edge evaluate``: AP and errors of an artifact on a labelled data set."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
from pathlib import Path

from fine_edge import console
from fine_edge.cli.arguments import Parser, add_json, deliver, sub_command
from fine_edge.cli.comparison import compare_command, drift_command
from fine_edge.cli.target import add_target_options, open_target, refuse_unheeded
from fine_edge.contract import Contract
from fine_edge.errors import ConfigError, DataError
from fine_edge.evaluate.boxes import evaluate_boxes, evaluate_results
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.evaluation import Evaluation
from fine_edge.evaluate.run import stem
from fine_edge.evaluate.segment_data import Data, read_boxes, read_data
from fine_edge.evaluate.segments import SegmentEvaluation, evaluate_segments
from fine_edge.evaluate.tables import (
    error_table,
    precision_table,
    segment_table,
)
from fine_edge.files import write_text
from fine_edge.text import printable

_OUT = Path("evaluations")
_OF_A_MODEL = ("fine", "weights", "precision", "input_size", "rounded", "same", "exact_preprocessing", "out")
"""Options that say how a model is run, and where what it finds is kept; results have all of it behind them."""
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
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"folder of results of a model (default: {_OUT})")
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
    out = args.out or _OUT
    if not args.images:
        raise ConfigError("the pictures are missing", where="--images", hint="give their folder, or --detections FILE")
    opened = open_target(args)
    with contextlib.closing(opened.runner):
        _require_match(opened.contract, data)
        same, exact = _same(args.same), args.exact_preprocessing
        _refuse_useless(opened.contract, exact=exact)
        evaluation = (
            evaluate_boxes(opened, data, args.images, out, same, exact=exact)
            if isinstance(data, CocoData)
            else evaluate_segments(opened, data, args.images, out, same, exact=exact)
        )
    path = out / f"{stem(opened, data, exact=exact)}.json"
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


def _warn_of_skipped(skipped: dict[str, str]) -> None:
    for name, reason in itertools.islice(skipped.items(), _NAMED):
        console.warn(f"not in any figure: {printable(name)}: {reason}")
    if len(skipped) > _NAMED:
        console.warn(f"not in any figure: {len(skipped) - _NAMED} more pictures, which the evaluation's file names")


def main(argv: list[str]) -> int:
    """Run ``compare`` or ``drift`` if named, else evaluate; return the exit code."""
    if run := sub_command(argv, {"compare": compare_command, "drift": drift_command}):
        return run()
    args = make_parser().parse_args(argv)
    if _given(args) != 1:
        raise ConfigError("give one of --model, --onnx, --engine and --detections")
    if args.detections:
        refuse_unheeded(args, f"is for a model, and {args.detections.name} is what one found", *_OF_A_MODEL)
        evaluation: Evaluation | SegmentEvaluation = evaluate_results(
            args.detections, read_boxes(args.data, pictures=args.images is not None), args.images
        )
    else:
        args.out = args.out or _OUT
        evaluation = _run(args, read_data(args.data))
    _warn_of_skipped(evaluation.skipped)
    if isinstance(evaluation, Evaluation):
        tables = [precision_table(evaluation), error_table(evaluation)]
    else:
        tables = [segment_table(evaluation)]
    deliver(args, evaluation.to_json(), tables)
    return 1 if evaluation.skipped else 0
