"""``python -m fine_edge.evaluate``: AP and errors of an artifact on a labelled data set."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from fine_edge import command, console, subject
from fine_edge.atomic import write_text
from fine_edge.errors import ConfigError
from fine_edge.evaluate import comparison_tables
from fine_edge.evaluate.coco_data import CocoData, read_coco
from fine_edge.evaluate.comparison import compare
from fine_edge.evaluate.comparison_page import to_html
from fine_edge.evaluate.evaluation import Evaluation, write_evaluation
from fine_edge.evaluate.render import error_table, precision_table
from fine_edge.evaluate.resampling import RESAMPLES
from fine_edge.evaluate.run import run, run_results, stem


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.evaluate",
        description="Run a detector on a labelled data set, through the runner that the bench times, and score it."
        " A run that was interrupted goes on where it stopped. Exit code 1 when an image could not be read.",
        epilog="Also: compare A.json B.json (two evaluations side by side); with --help.",
    )
    subject.add_arguments(parser, required=False)
    parser.add_argument("--data", type=Path, required=True, metavar="ANN.json", help="annotations in COCO's format")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of its pictures")
    parser.add_argument(
        "--detections", type=Path, metavar="FILE", help="score COCO results instead of running a model; no pictures"
    )
    parser.add_argument(
        "--same",
        action="append",
        default=[],
        metavar="CATEGORY=CLASS",
        help="a category of the data set and the model's name for it, where they differ; can be given several times",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("evaluations"), help="folder of results (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the evaluation as JSON")
    return parser


def _same(pairs: list[str]) -> dict[str, str]:
    same = {}
    for pair in pairs:
        category, equals, name = pair.partition("=")
        if not (category and equals and name):
            raise ConfigError(f"{pair!r} is no pair of names", where="--same", mend="write CATEGORY=CLASS")
        same[category] = name
    return same


def _run(args: argparse.Namespace, data: CocoData) -> Evaluation:
    if not args.images:
        raise ConfigError("the pictures are missing", where="--images", mend="give their folder, or --detections FILE")
    opened = subject.open_subject(args)
    with contextlib.closing(opened.runner):
        evaluation = run(opened, data, args.images, args.out, _same(args.same))
    path = args.out / f"{stem(opened, data)}.json"
    write_evaluation(path, evaluation)
    console.remark(f"written: {path}")
    return evaluation


def _given(args: argparse.Namespace) -> int:
    return sum(value is not None for value in (args.model, args.onnx, args.engine, args.detections))


def _compare(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.evaluate compare", description="Two evaluations on the same data, side by side."
    )
    parser.add_argument("a", type=Path, metavar="A.json")
    parser.add_argument("b", type=Path, metavar="B.json", help="whose gain is shown")
    parser.add_argument("--html", type=Path, metavar="FILE", help="one page with the pictures that tell most")
    parser.add_argument(
        "--resamples", type=_count, default=RESAMPLES, metavar="N", help="draws of images (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as JSON")
    args = parser.parse_args(argv)
    with console.progress() as bar:
        task = bar.add_task("drawing images again", total=args.resamples)
        found = compare(args.a, args.b, resamples=args.resamples, advance=lambda: bar.advance(task))
    if args.html:
        with console.status("drawing"):
            page = to_html(found)
        write_text(args.html, page)
        console.remark(f"written: {args.html}")
    if args.json:
        console.print_json(found.to_json())
    else:
        for table in (comparison_tables.precision_table(found), comparison_tables.error_table(found)):
            table.print(console.out)
    return 0


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is no number of draws")
    return number


def main(argv: list[str]) -> int:
    """``compare`` by name, evaluating otherwise; returns the exit code."""
    if argv[:1] == ["compare"]:
        return _compare(argv[1:])
    args = _parser().parse_args(argv)
    if _given(args) != 1:
        raise ConfigError("give one of --model, --onnx, --engine and --detections")
    data = read_coco(args.data)
    evaluation = run_results(args.detections, data, args.images) if args.detections else _run(args, data)
    for name, reason in evaluation.skipped.items():
        console.warn(f"not in any figure: {name}: {reason}")
    if args.json:
        console.print_json(evaluation.to_json())
    else:
        precision_table(evaluation).print(console.out)
        error_table(evaluation).print(console.out)
    return 1 if evaluation.skipped else 0


if __name__ == "__main__":
    command.run(main)
