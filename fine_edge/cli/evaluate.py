"""``fine-edge evaluate``: AP and errors of an artifact on labelled data; ``compare`` and ``drift`` of two of them."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL.Image import Image

from fine_edge import console
from fine_edge.cli.arguments import Parser, add_json, deliver, sub_command
from fine_edge.cli.target import add_target_options, open_target, refuse_unheeded
from fine_edge.contract import Contract
from fine_edge.drawing import write_drawing
from fine_edge.errors import ConfigError, DataError
from fine_edge.evaluate import comparison_page, drift_page
from fine_edge.evaluate.boxes import evaluate_boxes, evaluate_results
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.comparison import Comparison, compare
from fine_edge.evaluate.drift import drift
from fine_edge.evaluate.evaluation import Evaluation
from fine_edge.evaluate.matching import CONFIDENCE
from fine_edge.evaluate.panels import sheet
from fine_edge.evaluate.resampling import RESAMPLES
from fine_edge.evaluate.run import stem
from fine_edge.evaluate.segment_comparison import SegmentComparison, compare_segments
from fine_edge.evaluate.segment_data import Data, SegmentData, read_boxes, read_data
from fine_edge.evaluate.segment_panels import segment_sheet
from fine_edge.evaluate.segments import SegmentEvaluation, evaluate_segments
from fine_edge.evaluate.sides import StoredEvaluation, read_sides, require_one_model
from fine_edge.evaluate.tables import (
    error_change_table,
    error_table,
    image_change_table,
    precision_change_table,
    precision_table,
    segment_change_table,
    segment_drift_table,
    segment_table,
)
from fine_edge.files import write_text
from fine_edge.table import Table
from fine_edge.text import printable

# ``fine-edge evaluate compare`` and ``drift``: what differs between two evaluations.

_MOST_PANELS = 100


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


def _compare_parser() -> argparse.ArgumentParser:
    parser = _pair_parser(
        "compare",
        "Two evaluations on the same data: B against A, by boxes and masks, by classes of pixels or by segments.",
        ("A", "B"),
    )
    parser.add_argument(
        "--threshold",
        type=_share,
        metavar="SCORE",
        help=f"lowest score of a detection that is right or wrong (default: {CONFIDENCE:g}); the paper's pictures: 0.8",
    )
    parser.add_argument(
        "--only",
        choices=("fp", "fn", "masks"),
        help="draw false positives (fp) or missed objects (fn), by boxes or panoptic segments, or masks of objects that"
        " both find, magnified (masks)",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="what --only names, A left and B right; of segments without --only, where the two differ (PNG)",
    )
    parser.add_argument(
        "--panels",
        type=_panels,
        default=comparison_page.PICTURES,
        metavar="N",
        help="most images or objects that are drawn (default: %(default)s)",
    )
    return parser


def _compared(
    args: argparse.Namespace, sides: tuple[StoredEvaluation, StoredEvaluation], threshold: float = CONFIDENCE
) -> Comparison | SegmentComparison:
    with console.progress() as bar:
        task = bar.add_task("resampling images", total=args.resamples)

        def advance() -> None:
            bar.advance(task)

        # Both sides are on one data set by now, so the kind of the first is that of both.
        if isinstance(sides[0].data, SegmentData):
            return compare_segments(*sides, resamples=args.resamples, advance=advance)
        return compare(*sides, threshold=threshold, resamples=args.resamples, advance=advance)


def _deliver(args: argparse.Namespace, page: Callable[[], str], data: dict[str, Any], tables: list[Table]) -> None:
    """Write the page if it was asked for, then JSON or tables."""
    if args.html:
        # Before the tables: a page that cannot be drawn or written ends the command without half of a result.
        with console.status("drawing"):
            text = page()
        write_text(args.html, text)
        console.remark(f"written: {args.html}")
    deliver(args, data, tables)


def _draw(args: argparse.Namespace, drawn: Callable[[], Image]) -> None:
    with console.status("drawing"):
        write_drawing(drawn(), args.picture)
    console.remark(f"picture: {args.picture}")


def _refuse_undrawable(args: argparse.Namespace, data: Data) -> None:
    """Refuse what cannot be drawn of such data, before images are resampled."""
    if not isinstance(data, SegmentData):
        if args.picture and not args.only:
            raise ConfigError("nothing says what to draw", where="--picture", hint="add --only fp, fn or masks")
        return
    if args.threshold is not None:
        hint = "segments have no scores: leave it out"
        raise ConfigError("the evaluations are of segments", where="--threshold", hint=hint)
    if args.only and data.segments is None:
        what = "classes of pixels are no objects: what is false for one class is missed for another"
        raise ConfigError(what, where="--only", hint="leave it out: --picture draws where the classes differ")
    if args.only == "masks":
        hint = "give fp or fn, or leave it out: --picture draws where the segments differ"
        raise ConfigError("segments have no masks of their own", where="--only masks", hint=hint)


def compare_command(argv: list[str]) -> int:
    """Run ``evaluate compare``; return the exit code."""
    args = _compare_parser().parse_args(argv)
    if args.only and not (args.picture or args.html):
        raise ConfigError("draws nothing without a file", where="--only", hint="add --picture FILE or --html FILE")
    # Read before anything is resampled, which takes minutes for large data sets.
    sides = read_sides(args.a, args.b)
    _refuse_undrawable(args, sides[0].data)
    found = _compared(args, sides, CONFIDENCE if args.threshold is None else args.threshold)
    if isinstance(found, SegmentComparison):
        if args.picture:
            _draw(args, lambda: segment_sheet(found, args.only, args.panels))
        tables = [segment_change_table(found), image_change_table(found)]
        a, b = found.names
        title = f"{b} against {a}"

        def page() -> str:
            return comparison_page.segments_to_html(found, title, tables, args.only, args.panels)

        _deliver(args, page, found.to_json(), tables)
        return 0
    if args.picture:
        _draw(args, lambda: sheet(found, args.only, args.panels))
    only = None if args.only == "masks" else args.only
    tables = [precision_change_table(found), *(error_change_table(found, kind) for kind in found.kinds)]
    _deliver(args, lambda: comparison_page.to_html(found, only, args.panels), found.to_json(), tables)
    return 0


def drift_command(argv: list[str]) -> int:
    """Run ``evaluate drift``; return the exit code."""
    description = (
        "Two artifacts of one model on the same data: what another precision or backend changes. Exit code 1 when AP"
        " (of boxes or masks), mean IoU or PQ drops by more than allowed."
    )
    parser = _pair_parser("drift", description, ("REFERENCE", "OTHER"))
    parser.add_argument(
        "--max-ap-drop",
        type=float,
        metavar="POINTS",
        help="largest drop of AP, mean IoU or PQ for exit code 0, as a release gate (default: no limit)",
    )
    args = parser.parse_args(argv)
    # Against NaN every drop fails, against infinity every drop passes: neither is a gate.
    if args.max_ap_drop is not None and not math.isfinite(args.max_ap_drop):
        raise ConfigError(f"{args.max_ap_drop} is not a finite number", where="--max-ap-drop", hint="such as 0.1")
    both = _compared(args, read_sides(args.a, args.b))
    if isinstance(both, SegmentComparison):
        return _segment_drift(args, both)
    found = drift(both)
    tables = [precision_change_table(found.comparison), drift_page.drift_table(found, args.max_ap_drop)]
    _deliver(args, lambda: drift_page.to_html(found, args.max_ap_drop), found.to_json(), tables)
    return _gate("AP", found.ap_drop, args.max_ap_drop)


def _segment_drift(args: argparse.Namespace, found: SegmentComparison) -> int:
    # Boxes are checked for it by drift(); segments have no step of that name.
    require_one_model(found.a.origin, found.b.origin)
    tables = [segment_change_table(found), segment_drift_table(found, args.max_ap_drop), image_change_table(found)]
    a, b = found.names
    data = {**found.to_json(), "drift": {f"{found.main}_drop": found.drop, "changed_at_least": found.moved_share}}
    _deliver(args, lambda: comparison_page.segments_to_html(found, f"Drift of {b} from {a}", tables), data, tables)
    return _gate("mIoU" if found.is_semantic else "PQ", found.drop, args.max_ap_drop)


def _gate(title: str, drop: float | None, most: float | None) -> int:
    """Return 1, with a warning, when a figure drops by more than allowed or is not defined."""
    # A figure that is not defined fails: a gate must not pass what was not measured.
    if most is None or (drop is not None and drop <= most):
        return 0
    dropped = "is not defined" if drop is None else f"dropped by {drop:.3f} points"
    console.warn(f"{title} {dropped}, at most {most:g} allowed")
    return 1


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _panels(text: str) -> int:
    number = _count(text)
    if number > _MOST_PANELS:
        raise argparse.ArgumentTypeError(f"must be at most {_MOST_PANELS}, not {number}")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {number:g}")
    return number


_OUT = Path("evaluations")
# Options that say how a model is run, and where what it finds is kept; results have all of it behind them.
# Beside --detections they would have no effect, and the figures would be taken for theirs.
_OF_A_MODEL = ("fine", "weights", "precision", "input_size", "rounded", "same", "exact_preprocessing", "out")
# Number of unreadable pictures that are named.
_NAMED = 10


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
        # At the first sign, so that a class of the model may hold one.
        category, equals, name = pair.partition("=")
        if not (category and equals and name):
            raise ConfigError(f"{pair!r} is no pair of names", where="--same", hint="write CATEGORY=CLASS")
        same[category] = name
    return same


def _run(args: argparse.Namespace, data: Data) -> Evaluation | SegmentEvaluation:
    out = args.out or _OUT
    if not args.images:
        raise ConfigError("the pictures are missing", where="--images", hint="give their folder, or --detections FILE")
    # Opened first: whether labels and model fit is told by the contract, before a picture is read.
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
    # Named by the artifact's hash, the data and the preprocessing: no evaluation takes the place of another.
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
    # By hand: argparse's exclusive group of the other three is shared with commands that know no --detections.
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
        # Set here, not by argparse: beside --detections one that was given is refused.
        args.out = args.out or _OUT
        evaluation = _run(args, read_data(args.data))
    _warn_of_skipped(evaluation.skipped)
    if isinstance(evaluation, Evaluation):
        tables = [precision_table(evaluation), error_table(evaluation)]
    else:
        tables = [segment_table(evaluation)]
    deliver(args, evaluation.to_json(), tables)
    # A figure over fewer pictures than were asked for must not pass in a script.
    return 1 if evaluation.skipped else 0
