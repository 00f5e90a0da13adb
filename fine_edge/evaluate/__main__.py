"""``python -m fine_edge.evaluate``: AP and errors of an artifact on a labelled data set."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from fine_edge import command, console, subject
from fine_edge.errors import ConfigError
from fine_edge.evaluate.coco_data import CocoData, read_coco
from fine_edge.evaluate.evaluation import Evaluation, write_evaluation
from fine_edge.evaluate.render import error_table, precision_table
from fine_edge.evaluate.run import run, run_results, stem


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.evaluate",
        description="Run a detector on a labelled data set, through the runner that the bench times, and score it."
        " A run that was interrupted goes on where it stopped. Exit code 1 when an image could not be read.",
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


def main(argv: list[str]) -> int:
    """Entry point; returns the exit code."""
    args = _parser().parse_args(argv)
    if _given(args) != 1:
        raise ConfigError("give one of --model, --onnx, --engine and --detections")
    data = read_coco(args.data)
    evaluation = run_results(args.detections, data) if args.detections else _run(args, data)
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
