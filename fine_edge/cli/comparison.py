"""``fine-edge evaluate compare`` and ``drift``: what differs between two evaluations."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL.Image import Image

from fine_edge import console
from fine_edge.cli.arguments import Parser, add_json, deliver
from fine_edge.drawing import write_drawing
from fine_edge.errors import ConfigError
from fine_edge.evaluate import comparison_page, drift_page
from fine_edge.evaluate.change_tables import (
    error_change_table,
    image_change_table,
    precision_change_table,
    segment_change_table,
    segment_drift_table,
)
from fine_edge.evaluate.comparison import Comparison, compare
from fine_edge.evaluate.drift import drift
from fine_edge.evaluate.matching import CONFIDENCE
from fine_edge.evaluate.panels import sheet
from fine_edge.evaluate.resampling import RESAMPLES
from fine_edge.evaluate.segment_comparison import SegmentComparison, compare_segments
from fine_edge.evaluate.segment_data import Data, SegmentData
from fine_edge.evaluate.segment_panels import segment_sheet
from fine_edge.evaluate.sides import StoredEvaluation, read_sides, require_one_model
from fine_edge.files import write_text
from fine_edge.table import Table

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

        if isinstance(sides[0].data, SegmentData):
            return compare_segments(*sides, resamples=args.resamples, advance=advance)
        return compare(*sides, threshold=threshold, resamples=args.resamples, advance=advance)


def _deliver(args: argparse.Namespace, page: Callable[[], str], data: dict[str, Any], tables: list[Table]) -> None:
    """Write the page if it was asked for, then JSON or tables."""
    if args.html:
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
    require_one_model(found.a.origin, found.b.origin)
    tables = [segment_change_table(found), segment_drift_table(found, args.max_ap_drop), image_change_table(found)]
    a, b = found.names
    data = {**found.to_json(), "drift": {f"{found.main}_drop": found.drop, "changed_at_least": found.moved_share}}
    _deliver(args, lambda: comparison_page.segments_to_html(found, f"Drift of {b} from {a}", tables), data, tables)
    return _gate("mIoU" if found.is_semantic else "PQ", found.drop, args.max_ap_drop)


def _gate(title: str, drop: float | None, most: float | None) -> int:
    """Return 1, with a warning, when a figure drops by more than allowed or is not defined."""
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
