"""``fine-edge train``: train a detector of the zoo on boxes in COCO's format."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from fine_edge import console
from fine_edge.cli.arguments import STDOUT, Parser, add_fine, add_json, add_seed, count, deliver
from fine_edge.errors import MissingExtraError
from fine_edge.evaluate.segment_data import read_boxes
from fine_edge.export.request import multiples_above, parse_size
from fine_edge.train.recipe import FLIPS, Recipe
from fine_edge.zoo.catalog import with_fine


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="fine-edge train", description="Train a detector of the zoo on boxes in COCO's format.")
    parser.add_argument("model", help="an RT-DETR or a detector of torchvision in the zoo, with or without FINE")
    add_fine(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="annotations in COCO's format")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="its pictures")
    parser.add_argument(
        "--weights", type=Path, help="checkpoint to start from, with any classes (default: random weights)"
    )
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="pixels (default: the detector's own)")
    parser.add_argument("--epochs", type=int, default=20, help="number of passes over the data (default: 20)")
    parser.add_argument("--batch", type=int, default=8, help="number of pictures in a step (default: 8)")
    parser.add_argument(
        "--learning-rate", type=float, default=1e-3, help="highest learning rate of AdamW (default: 0.001)"
    )
    parser.add_argument(
        "--flips",
        default="horizontal",
        help=f"{', '.join(FLIPS)}; both is for pictures without a natural up (default: horizontal)",
    )
    add_seed(parser, "of weights, order of pictures and flips")
    parser.add_argument("--half", action="store_true", help="write the weights in FP16, which halves the file")
    parser.add_argument("--threads", type=count, metavar="N", help="number of CPU threads (default: all)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/train"),
        metavar="DIR",
        help="folder of results, where an interrupted run goes on (default: runs/train)",
    )
    add_json(parser)
    return parser


def main(argv: list[str]) -> int:
    """Train, and name the command that evaluates the checkpoint."""
    given = _parser().parse_args(argv)
    entry = with_fine(given.model, given.fine)
    height, width = parse_size(given.input_size)
    recipe = Recipe(
        model=entry.name,
        height=height or entry.detector.input_hw[0],
        width=width or entry.detector.input_hw[1],
        epochs=given.epochs,
        batch=given.batch,
        learning_rate=given.learning_rate,
        flips=given.flips,
        seed=given.seed,
    )
    # Before torch is imported: a wrong file is told in no time.
    data = read_boxes(given.data)
    for package in ("torch", "transformers", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train")
    # Here: --help and wrong options need no torch.
    import torch

    from fine_edge.train.run import train

    if given.threads:
        torch.set_num_threads(given.threads)
    trained = train(recipe, data, given.images, given.out, given.weights, half=given.half)
    losses = trained.record["losses"]
    if given.json != STDOUT:
        said = f"{trained.checkpoint}: loss {losses[0]['loss']:.3f} to {losses[-1]['loss']:.3f}"
        console.out.print(said, highlight=False, soft_wrap=True)
    checkpoint = {"file": str(trained.checkpoint), **trained.record["checkpoint"]}
    deliver(given, {**trained.record, "checkpoint": checkpoint}, [])
    # Trainings take any size, graphs multiples of 32: the next larger one shows all of the picture.
    height, width = multiples_above(recipe.height, recipe.width)
    weights = f"--weights {trained.checkpoint} --input-size {height}x{width}"
    console.remark(f"next: python -m fine_edge evaluate --model {entry.name} {weights} --data FILE --images DIR")
    return 0
