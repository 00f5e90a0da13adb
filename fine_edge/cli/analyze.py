"""``fine-edge analyze``: the paper's analyses of a detector, its effective receptive fields and its heatmaps."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge import console, files
from fine_edge.analyze.field_page import stage_table, token_table, write_stages, write_tokens
from fine_edge.analyze.heat_page import energy_table, gain_table, write_heat
from fine_edge.cli.arguments import Parser, add_explain, add_fine, add_json, deliver
from fine_edge.errors import ConfigError, MissingExtraError
from fine_edge.evaluate.segment_data import read_boxes
from fine_edge.export.request import ExportRequest, parse_size
from fine_edge.zoo.catalog import with_fine

if TYPE_CHECKING:
    from fine_edge.zoo.load import LoadedDetector

    # argparse gives this class no public name.
    Commands = argparse._SubParsersAction[Parser]

# The paper's ratios are 1 to 4. At 64 the map of 80 x 80 that a 640 x 640 input has at stride 8 is a single token.
_MOST_RATIO = 64


def _shared_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model of the zoo")
    add_fine(parser)
    parser.add_argument("--weights", type=Path, help="its checkpoint (default: random weights)")
    parser.add_argument(
        "--images", type=Path, required=True, metavar="DIR|FILE", help="folder of pictures, or one picture"
    )
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="pixels (default: the detector's own)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="torch's name of it (default: cpu)")
    add_json(parser)
    add_explain(parser)


def _add_erf(commands: Commands) -> None:
    made = commands.add_parser(
        "erf",
        help="effective receptive fields of the stages and of the fusions' tokens",
        description="Effective receptive fields: which pixels of the input the stages of the backbone and the tokens of"
        " the fusions depend on, and how far they reach (sigma of a fitted Gaussian).",
    )
    _shared_options(made)
    made.add_argument(
        "--at",
        metavar="X,Y|centre",
        help="position as shares of width and height (default: as in the paper, centre for stages, 0.1,0.1 for tokens)",
    )
    made.add_argument("--r", default="1,2,4", metavar="R,R,...", help="sampling ratios of the tokens (default: 1,2,4)")
    made.add_argument("--batch", type=int, default=1, metavar="N", help="pictures at a time (default: 1)")
    made.add_argument(
        "--out",
        type=Path,
        default=Path("runs/erf"),
        metavar="DIR",
        help="folder of pictures and running sums, where an interrupted run goes on (default: %(default)s)",
    )
    made.set_defaults(run=_erf)


def _position(text: str) -> tuple[float, float]:
    """Return a position as shares of width and height."""
    try:
        x, y = (0.5, 0.5) if text in ("centre", "center") else (float(part) for part in text.split(","))
        # Below 1: a share of 1 is the pixel behind the last one.
        if not (0 <= x < 1 and 0 <= y < 1):
            raise ValueError
    except ValueError:
        what = f"{text!r} is no position"
        raise ConfigError(what, where="--at", hint="two shares from 0 up to 1, such as 0.1,0.1, or centre") from None
    return x, y


def _ratios(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    # isdigit also takes digits of other scripts, such as a small 2, that int refuses; nine digits are enough to tell a
    # number from a ratio.
    if not all(part.isascii() and part.isdigit() and 1 <= int(part[:9]) <= _MOST_RATIO for part in parts):
        what = f"{text!r} is no list of sampling ratios"
        raise ConfigError(what, where="--r", hint=f"whole numbers from 1 to {_MOST_RATIO}, such as 1,2,4")
    return tuple(sorted({int(part) for part in parts}))


def _load(given: argparse.Namespace) -> tuple[LoadedDetector, int, int]:
    """Return the detector, and height and width of its input."""
    # Asked for before the imports, which take seconds and would name a module in place of the extra.
    for package in ("torch", "torchvision"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "export")
    # Here, so that --help and what is wrong with the options need no torch.
    import torch

    from fine_edge.zoo.load import load

    entry = with_fine(given.model, given.fine)
    # The size is checked, and found where it is not given, as for an export.
    request = ExportRequest(entry.name, given.weights, "fp32", *parse_size(given.input_size))
    detector = load(entry, given.weights)
    if detector.report is None:
        console.warn("random weights: the figures say nothing about a trained detector; give --weights")
    try:
        detector.model.to(torch.device(given.device))
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts that it has it
        what = f"cannot be used ({str(error).splitlines()[0]})"
        raise ConfigError(what, where=f"--device {given.device}", hint="use cpu") from error
    return detector, *request.input_hw


def _erf(given: argparse.Namespace) -> int:
    at = None if given.at is None else _position(given.at)
    ratios = _ratios(given.r)
    if given.batch < 1:
        raise ConfigError(f"batch {given.batch} is not positive", where="--batch", hint="use --batch 1")
    detector, height, width = _load(given)
    from fine_edge.analyze.receptive_field import ANCHOR, CENTRE, FieldOptions, receptive_fields

    options = FieldOptions(height, width, at or CENTRE, at or ANCHOR, ratios, given.batch)
    found = receptive_fields(detector, given.images, options, given.out)
    tables = [stage_table(found), *([token_table(found)] if found.tokens else [])]
    deliver(given, found.to_json(), tables)
    # Detectors without a fusion have stages alone.
    pictures = {"erf_stages.png": write_stages, **({"erf_tokens.png": write_tokens} if found.tokens else {})}
    for name, write in pictures.items():
        path = given.out / f"{detector.entry.name}_{name}"
        write(found, path)
        console.remark(f"picture: {path}")
    return 0


def _add_heatmap(commands: Commands) -> None:
    made = commands.add_parser(
        "heatmap",
        help="what a fusion takes and gives, drawn over pictures; with labels, how much of it lies on objects",
        description="Draw the maps of each fusion over pictures: high-level, low-level, modulation and aligned. With"
        " labels, compare their means inside and outside of the boxes.",
    )
    _shared_options(made)
    made.add_argument("--data", type=Path, metavar="FILE", help="annotations of the pictures in COCO's format")
    made.add_argument("--draw", type=int, metavar="N", help="draw the first N pictures alone (default: all)")
    made.add_argument(
        "--out",
        type=Path,
        default=Path("runs/heatmap"),
        metavar="DIR",
        help="of drawings (default: %(default)s)",
    )
    made.set_defaults(run=_heatmap)


def _heatmap(given: argparse.Namespace) -> int:
    if given.draw is not None and given.draw < 0:
        raise ConfigError(f"{given.draw} is no number of pictures", where="--draw", hint="0 draws none")
    # Labels and the folder of drawings before the detector is loaded, which takes seconds.
    data = read_boxes(given.data) if given.data else None
    files.refuse_unwritable([given.out / "drawing.png"])
    detector, height, width = _load(given)
    from fine_edge.analyze.heatmap import PictureHeat, heatmaps

    def draw(number: int, seen: PictureHeat) -> None:
        if given.draw is None or number < given.draw:
            write_heat(number, seen, given.out)

    found = heatmaps(detector, given.images, (height, width), data, draw)
    deliver(given, found.to_json(), [energy_table(found), gain_table(found)] if data else [])
    drawn = found.images if given.draw is None else min(found.images, given.draw)
    console.remark(f"{drawn * len(found.fusions)} drawings: {given.out}")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(prog="fine-edge analyze", description="The paper's analyses of a detector, on pictures of yours.")
    commands = parser.add_subparsers(dest="analysis", required=True)
    _add_erf(commands)
    _add_heatmap(commands)
    return parser


def main(argv: list[str]) -> int:
    """Run the analysis that the first argument names; return the exit code."""
    given = make_parser().parse_args(argv)
    return int(given.run(given))
