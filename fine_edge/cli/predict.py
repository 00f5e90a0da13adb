"""``fine-edge predict``: run an exported detector on pictures and draw what it finds; needs no torch."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
from pathlib import Path
from typing import Any

from fine_edge import console
from fine_edge.cli.arguments import Parser, add_json, deliver
from fine_edge.cli.target import add_target_options, open_target
from fine_edge.contract import Contract
from fine_edge.decode import find, summary
from fine_edge.decode import rows as of_picture
from fine_edge.drawing import draw, write_drawing
from fine_edge.errors import ConfigError, OutputError
from fine_edge.files import output_errors, refuse_unwritable
from fine_edge.images import NamedImage, Pictures
from fine_edge.runners.opened import Opened
from fine_edge.table import Column, Table
from fine_edge.text import file_stem, printable


class _Targets:
    """The files of drawn pictures below a folder: no two are the same, and none is a picture that is read."""

    def __init__(self, folder: Path, model: str, pictures: Pictures) -> None:
        self._folder, self._model = folder, model
        self._real: dict[Path, str] = {}
        # A drawing that stands among the pictures that are read would replace one of them.
        self._taken = {self._key(file) for file in pictures.files}

    def _key(self, path: Path) -> str:
        """Return a key that all paths of one file share, also through links and on file systems that ignore case."""
        # Kept by folder: realpath asks the file system for every part of a path.
        if path.parent not in self._real:
            self._real[path.parent] = os.path.realpath(path.parent)
        return f"{self._real[path.parent]}/{path.name}".casefold()

    def of(self, picture: NamedImage) -> Path:
        """Return the file for a picture; pictures with the same name, from several folders, get numbers."""
        # Names of pictures may hold line breaks, escapes or bytes that are no text.
        stem = file_stem(Path(picture.name).stem)
        for number in itertools.count(1):
            path = self._folder / f"{stem}{f'-{number}' if number > 1 else ''}.{self._model}.png"
            if self._key(path) not in self._taken:
                break
        self._taken.add(self._key(path))
        return path


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog="fine-edge predict",
        description="Run a model on pictures, and draw the objects or segments that it finds. Exit code 1 when a"
        " picture of a folder could not be read.",
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures, or folders of pictures")
    add_target_options(parser)
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score of a drawn object (default: 0.5)")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder of the drawn pictures")
    add_json(parser)
    return parser


def _refuse_useless(args: argparse.Namespace) -> None:
    """Refuse options whose error would otherwise show after the first inference only."""
    if not 0 <= args.threshold <= 1:
        raise ConfigError(f"{args.threshold:g} is not a score", where="--threshold", hint="give a number from 0 to 1")
    with output_errors(args.out):  # such as a name that is too long for the file system
        if (args.out.exists() or args.out.is_symlink()) and not args.out.is_dir():
            raise OutputError("cannot be written (it is no folder)", where=args.out, hint="choose a folder with --out")
        refuse_unwritable([args.out / "picture.png"])


def main(argv: list[str]) -> int:
    """Run the detector on every picture; return 1 when a picture could not be read."""
    args = make_parser().parse_args(argv)
    _refuse_useless(args)
    # Before the model is opened or exported: a picture that is missing is told in no time.
    pictures = Pictures(args.images)
    opened = open_target(args)
    with contextlib.closing(opened.runner):
        _predict(opened, pictures, args)
    return 1 if pictures.skipped else 0


def _predict(opened: Opened, pictures: Pictures, args: argparse.Namespace) -> None:
    runner, contract = opened.runner, opened.contract
    weights = ", random weights: the results are meaningless" if contract.random_weights else ""
    caption = f"{contract.model} {opened.precision}, {runner.name}, sha256 {opened.onnx_sha256[:12]}{weights}"
    rows: list[dict[str, Any]] = []
    targets = _Targets(args.out, contract.model, pictures)
    with console.progress() as bar:
        task = bar.add_task("pictures", total=len(pictures))
        for picture in pictures:
            found = find(picture, contract, runner, args.threshold)
            target = targets.of(picture)
            write_drawing(draw(picture.pixels, found, contract.labels, caption), target)
            console.remark(f"{printable(picture.name)}: {summary(found, args.threshold)} -> {target}")
            rows += of_picture(found, picture.name, contract.labels)
            # Not one more each time: pictures that were skipped are done as well.
            bar.update(task, completed=pictures.done)
            del picture  # frees its memory before the next one is decoded
    data = {
        "model": contract.model,
        "task": contract.task,
        "precision": opened.precision,
        "random_weights": contract.random_weights,
        "artifact_sha256": opened.onnx_sha256,
        "backend": runner.name,
        "threshold": args.threshold,
        "skipped": {str(path): reason for path, reason in pictures.skipped.items()},
        "detections" if contract.task in ("detection", "instance") else "segments": rows,
    }
    deliver(args, data, [_table(caption, rows, contract)])


def _table(caption: str, rows: list[dict[str, Any]], contract: Contract) -> Table:
    first = [Column("image", False), Column("label", False)]
    if contract.task in ("detection", "instance"):
        view = Table(caption, [*first, Column("score"), Column("box x0 y0 x1 y1 (px)")])
        for row in rows:
            box = " ".join(f"{v:.0f}" for v in row["box_xyxy_px"])
            view.add(row["image"], row["label"], f"{row['score']:.3f}", box)
        return view
    view = Table(caption, [*first, Column("score"), Column("area (px)"), Column("of the picture")])
    for row in rows:
        score = None if row["score"] is None else f"{row['score']:.3f}"
        view.add(row["image"], row["label"], score, row["area_px"], f"{row['share']:.1%}")
    return view
