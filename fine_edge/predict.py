"""``python -m fine_edge.predict``: an exported detector on pictures, boxes drawn. Needs no torch once exported."""

from __future__ import annotations

import argparse
import colorsys
import contextlib
import itertools
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fine_edge import command, console
from fine_edge.atomic import write_bytes
from fine_edge.contract import Contract, bound_contract
from fine_edge.detections import Detections, from_outputs, from_raw
from fine_edge.errors import ArtifactError
from fine_edge.images import NamedImage, find_images, read_image
from fine_edge.preprocess import preprocess
from fine_edge.runners.base import Runner
from fine_edge.table import Column, Table


def detect(image: NamedImage, contract: Contract, runner: Runner) -> Detections:
    """All detections of one picture, boxes in its own pixels."""
    height, width = contract.input_hw
    tensor, placement = preprocess(image.pixels, height, width, contract.preprocessing)
    feed = np.repeat(tensor, contract.batch, axis=0)  # a static batch is filled with the same picture
    outputs = runner.run({contract.inputs[0].name: feed})
    needed = ("labels", "boxes_xyxy", "scores") if contract.postprocessed else ("logits", "boxes")
    if missing := [name for name in needed if name not in outputs]:
        raise ArtifactError(f"the model gives no {', '.join(missing)}: not a detector", where=contract.model)
    found = from_outputs(outputs) if contract.postprocessed else from_raw(outputs, height, width)
    return Detections(found.labels, placement.to_picture(found.boxes_xyxy_px), found.scores)


def _color(label: int) -> tuple[int, int, int]:
    """Neighbouring class indices get distant hues."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618 % 1, 0.75, 1.0)
    return int(red * 255), int(green * 255), int(blue * 255)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> list[str]:
    """The text in lines that fit, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def draw(pixels: NDArray[np.uint8], found: Detections, labels: tuple[str, ...], caption: str) -> Image.Image:
    """The picture with boxes, class names and scores, and a caption below that says what produced it."""
    height, width = pixels.shape[:2]
    size = max(12, min(height, width) // 40)
    font = ImageFont.load_default(size)
    lines = _wrapped(caption, font, width - size)
    canvas = Image.new("RGB", (width, height + (len(lines) + 1) * size * 5 // 4), "black")
    canvas.paste(Image.fromarray(pixels), (0, 0))
    pen = ImageDraw.Draw(canvas)
    for label, box, score in reversed(list(zip(found.labels, found.boxes_xyxy_px, found.scores, strict=True))):
        color = _color(int(label))
        x0, y0, x1, y1 = (float(v) for v in box)
        pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=color, width=max(2, size // 8))
        name = labels[int(label)] if int(label) < len(labels) else f"class {int(label)}"
        text = f"{name} {score:.2f}"
        top = max(0.0, y0 - size - 4)
        left = min(x0, max(0.0, width - pen.textlength(text, font=font) - 4))
        pen.rectangle((left, top, left + pen.textlength(text, font=font) + 4, top + size + 4), fill=color)
        pen.text((left + 2, top), text, fill="black", font=font)
    pen.multiline_text((size // 2, height + size // 2), "\n".join(lines), fill="white", font=font)
    return canvas


def _rows(name: str, found: Detections, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "image": name,
            "label": labels[int(label)] if int(label) < len(labels) else str(int(label)),
            "label_index": int(label),
            "score": round(float(score), 5),
            "box_xyxy_px": [round(float(v), 2) for v in box],
        }
        for label, box, score in zip(found.labels, found.boxes_xyxy_px, found.scores, strict=True)
    ]


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
        prog="python -m fine_edge.predict", description="Detect objects in pictures and draw their boxes."
    )
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="pictures, or folders of pictures")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="a model of the zoo, exported if needed")
    source.add_argument("--onnx", type=Path, help="an exported ONNX file, its contract beside it")
    source.add_argument("--engine", type=Path, help="a TensorRT engine of this machine, its manifest beside it")
    parser.add_argument("--weights", type=Path, help="checkpoint for --model (default: random weights)")
    parser.add_argument("--precision", choices=("fp32", "fp16"), default="fp32", help="for --model")
    parser.add_argument("--input-size", default="640", metavar="SIDE|HxW", help="for --model")
    parser.add_argument("--artifacts", type=Path, default=Path("engines"), help="where --model is exported to")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score that is drawn (default: 0.5)")
    parser.add_argument("--out", type=Path, default=Path("predictions"), help="folder of the drawn pictures")
    parser.add_argument("--json", action="store_true", help="print the detections as JSON")
    return parser


def _onnx_path(args: argparse.Namespace) -> Path:
    if args.onnx:
        return Path(args.onnx)
    from fine_edge.export.artifacts import ensure_exported
    from fine_edge.export.request import ExportRequest, parse_size

    height, width = parse_size(args.input_size)
    request = ExportRequest(args.model, args.weights, args.precision, height=height, width=width)
    return ensure_exported(request, args.artifacts)


@dataclass(frozen=True)
class _Opened:
    """A runner, what its outputs mean, how it computes, and the sha256 of the ONNX that it comes from."""

    runner: Runner
    contract: Contract
    precision: str
    sha256: str


def _open(args: argparse.Namespace) -> _Opened:
    if args.engine:
        from fine_edge.engine.plan_file import contract_of
        from fine_edge.runners.trt import TrtRunner

        contract = contract_of(args.engine)
        engine = TrtRunner(args.engine)
        return _Opened(engine, contract, engine.manifest.precision, engine.manifest.onnx_sha256)
    from fine_edge.runners.ort import OrtRunner

    onnx_path = _onnx_path(args)
    contract, artifact = bound_contract(onnx_path)
    return _Opened(OrtRunner(onnx_path), contract, artifact.precision, artifact.sha256)


def main(argv: list[str]) -> int:
    """Entry point; returns the exit code."""
    args = _parser().parse_args(argv)
    pictures = [read_image(path) for path in find_images(args.images)]
    opened = _open(args)
    with contextlib.closing(opened.runner):
        _predict(opened, pictures, args)
    return 0


def _predict(opened: _Opened, pictures: list[NamedImage], args: argparse.Namespace) -> None:
    runner, contract = opened.runner, opened.contract
    weights = ", random weights: the boxes mean nothing" if contract.random_weights else ""
    caption = f"{contract.model} {opened.precision}, {runner.name}, sha256 {opened.sha256[:12]}{weights}"
    rows: list[dict[str, Any]] = []
    taken: set[Path] = set()
    view = Table(
        caption, [Column("image", False), Column("label", False), Column("score"), Column("box x0 y0 x1 y1 (px)")]
    )
    for picture in pictures:
        found = detect(picture, contract, runner).above(args.threshold)
        target = _target(args.out, picture, contract.model, taken)
        _save(draw(picture.pixels, found, contract.labels, caption), target)
        console.remark(f"{picture.name}: {len(found)} detections at {args.threshold:g} or more -> {target}")
        rows += _rows(picture.name, found, contract.labels)
    for row in rows:
        view.add(row["image"], row["label"], f"{row['score']:.3f}", " ".join(f"{v:.0f}" for v in row["box_xyxy_px"]))
    if args.json:
        console.print_json(
            {"model": contract.model, "artifact_sha256": opened.sha256, "backend": runner.name, "detections": rows}
        )
    else:
        view.print(console.out)


if __name__ == "__main__":
    command.run(main)
