"""``python -m fine_edge.predict``: an exported detector on pictures, drawn. Needs no torch once exported."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from fine_edge import command, console, subject
from fine_edge.atomic import write_bytes
from fine_edge.contract import Contract
from fine_edge.drawing import draw
from fine_edge.findings import find, summary
from fine_edge.findings import rows as of_picture
from fine_edge.images import NamedImage, find_images, read_image
from fine_edge.subject import Subject
from fine_edge.table import Column, Table


def _target(folder: Path, picture: NamedImage, model: str, taken: set[Path]) -> Path:
    """The file of a drawn picture; pictures of one name, from several folders, get a number."""
    stem = Path(picture.name).stem
    for number in itertools.count(1):
        path = folder / f"{stem}{f'-{number}' if number > 1 else ''}.{model}.png"
        if path not in taken:
            break
    taken.add(path)
    return path


def _save(image: Image.Image, path: Path) -> None:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    write_bytes(path, buffer.getvalue())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.predict", description="Find objects or segments in pictures and draw them."
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures, or folders of pictures")
    subject.add_arguments(parser)
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score that is drawn (default: 0.5)")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder of the drawn pictures")
    parser.add_argument("--json", action="store_true", help="print the detections as JSON")
    return parser


def main(argv: list[str]) -> int:
    """Entry point; returns the exit code."""
    args = _parser().parse_args(argv)
    pictures = [read_image(path) for path in find_images(args.images)]
    opened = subject.open_subject(args)
    with contextlib.closing(opened.runner):
        _predict(opened, pictures, args)
    return 0


def _predict(opened: Subject, pictures: list[NamedImage], args: argparse.Namespace) -> None:
    runner, contract = opened.runner, opened.contract
    weights = ", random weights: what it finds means nothing" if contract.random_weights else ""
    caption = f"{contract.model} {opened.precision}, {runner.name}, sha256 {opened.onnx_sha256[:12]}{weights}"
    rows: list[dict[str, Any]] = []
    taken: set[Path] = set()
    for picture in pictures:
        found = find(picture, contract, runner, args.threshold)
        target = _target(args.out, picture, contract.model, taken)
        _save(draw(picture.pixels, found, contract.labels, caption), target)
        console.remark(f"{picture.name}: {summary(found, args.threshold)} -> {target}")
        rows += of_picture(found, picture.name, contract.labels)
    if args.json:
        console.print_json(
            {
                "model": contract.model,
                "task": contract.task,
                "artifact_sha256": opened.onnx_sha256,
                "backend": runner.name,
                "detections" if contract.task in ("detection", "instance") else "segments": rows,
            }
        )
    else:
        _table(caption, rows, contract).print(console.out)


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


if __name__ == "__main__":
    command.run(main)
