"""``fine-edge quantize``: INT8 for an exported detector, and whether it pays."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from fine_edge import console
from fine_edge.cli.arguments import (
    STDOUT,
    Parser,
    add_artifacts,
    add_explain,
    add_fine,
    add_input_size,
    add_json,
    deliver,
)
from fine_edge.cli.estimate import add_conditions, read_conditions
from fine_edge.cli.target import ONNX_TARGET, Target, refuse_options_of_models
from fine_edge.errors import ConfigError
from fine_edge.evaluate.segment_data import read_boxes
from fine_edge.fp16.network import Network, read_network
from fine_edge.graph.input_size import InputSize
from fine_edge.images import Pictures, find_images, is_folder
from fine_edge.int8.picture import write_picture
from fine_edge.int8.placement import PLACEMENTS
from fine_edge.int8.scales import METHODS, Calibrated, calibration_pictures
from fine_edge.int8.study import MOST_DRIFT_PICTURES, Int8Study, Plan, study
from fine_edge.int8.trials import BLOCK_STEP, Budget, Labelled, Trial
from fine_edge.int8.write import check_folder, write_int8
from fine_edge.table import Column, Table

# Pictures that ranges are taken from; more change little.
MOST_PICTURES = 64

AUTO = "auto"
_Item = TypeVar("_Item")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = Parser(
        prog="fine-edge quantize",
        description="Make an INT8 file of an exported detector, judged before a board: kernels and memory by NVIDIA's"
        " compiler, ESTIMATED latency, drift of the detections, and AP on labelled data."
        " Exit code 1 when a limit is given and the verdict is fp16.",
    )
    parser.add_argument("target", metavar=ONNX_TARGET, help="a model of the zoo, or its FP32 file")
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="pictures to calibrate on, or folders")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of MODEL.int8.onnx")
    add_fine(parser)
    parser.add_argument("--weights", type=Path, help="checkpoint for a model (default: random weights)")
    add_input_size(parser, "a model, or of a graph whose input is dynamic")
    parser.add_argument(
        "--method", choices=METHODS, default="percentile", help="how ranges are found (default: percentile)"
    )
    parser.add_argument(
        "--placement",
        choices=(AUTO, *PLACEMENTS),
        default=AUTO,
        help="what computes in INT8 (default: auto, the fastest within the limits)",
    )
    parser.add_argument("--keep", nargs="+", default=[], metavar="NODE", help="nodes that stay FP16")
    parser.add_argument("--data", type=Path, metavar="ANN.json", help="labelled boxes, for AP in FP32 and INT8")
    parser.add_argument(
        "--data-images", type=Path, metavar="DIR", help="folder of their pictures (default: that of --images)"
    )
    parser.add_argument("--max-ap-drop", type=float, metavar="AP", help="largest loss of AP, of 100; needs --data")
    parser.add_argument("--max-box-drift-px", type=float, metavar="PX", help="largest median drift of boxes")
    # Each kernel costs its launch: INT8 that cuts a graph into many more of them is not faster.
    parser.add_argument(
        "--max-kernels", type=float, default=1.2, metavar="X", help="times those of FP16 (default: %(default)s)"
    )
    parser.add_argument("--require", choices=("int8",), help="exit code 1 unless this is the verdict")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw loss by block and cost by placement (PNG)")
    add_conditions(parser)
    add_artifacts(parser)
    add_json(parser)
    add_explain(parser)
    return parser


def main(argv: list[str]) -> int:
    """Quantise, print the verdict, write the file; return the exit code."""
    given = make_parser().parse_args(argv)
    # Limits that cannot be are told before the network is read or exported.
    budget = _budget(given)
    network = _network(given)
    check_folder(network.path, network.contract, given.out)
    labelled = _labelled(given)
    calibrated, drift_images = _pictures(given.images, labelled)
    placement = None if given.placement == AUTO else given.placement
    plan = Plan(calibrated, drift_images, given.method, placement, tuple(given.keep), budget)
    found, model = study(network, plan, read_conditions(given), labelled)
    deliver(given, found.to_json(), [placement_table(found), block_table(found)])
    if given.json != STDOUT:
        console.print_lines(verdict(found))
    if given.picture:
        write_picture(found, given.picture)
    if found.fits:
        console.remark(f"INT8, {len(found.chosen.chosen)} convolutions -> {write_int8(found, model, given.out)}")
    else:
        console.warn("no INT8 file is written: it loses too much")
    # Without a limit the verdict is an answer, not a failure.
    return 1 if found.verdict == "fp16" and (budget.given or given.require) else 0


def _network(given: argparse.Namespace) -> Network:
    """Read the file, or export the model, at the size that was asked for."""
    size = InputSize.parse(given.input_size, given.batch)
    target = Target.parse(given.target, given.fine)
    refuse_options_of_models(target, given, "weights")
    if target.onnx:
        # Folded: of a graph with open dimensions, shapes are constants once it has a size.
        return read_network(target.onnx, size, fold=True)
    asked = {"height": size.height, "width": size.width, "batch": size.batch} if size else {}
    return read_network(target.onnx_path(given.artifacts, given.weights, **asked))


def _budget(given: argparse.Namespace) -> Budget:
    limits = {
        "--max-ap-drop": given.max_ap_drop,
        "--max-box-drift-px": given.max_box_drift_px,
        "--max-kernels": given.max_kernels,
    }
    for option, limit in limits.items():
        # NaN fails this comparison too; as a limit it would let everything pass.
        if limit is not None and not 0 <= limit < float("inf"):
            raise ConfigError(f"{limit:g} is no limit", where=option, hint="give a number from 0 up")
    if given.max_ap_drop is not None and given.data is None:
        raise ConfigError("AP needs labelled data", where="--max-ap-drop", hint="add --data ANN.json")
    return Budget(given.max_box_drift_px, given.max_ap_drop, given.max_kernels)


def _labelled(given: argparse.Namespace) -> Labelled | None:
    if given.data is None:
        if given.data_images is not None:
            raise ConfigError("is the folder of labelled pictures", where="--data-images", hint="add --data ANN.json")
        return None
    # One folder to calibrate on is mostly that of the labelled pictures, too.
    folder = given.data_images or (given.images[0] if len(given.images) == 1 else None)
    if folder is None or not is_folder(folder):
        raise ConfigError("the folder of its pictures is missing", where="--data", hint="give --data-images DIR")
    return Labelled(read_boxes(given.data), folder)


def _pictures(paths: list[Path], labelled: Labelled | None) -> tuple[Calibrated, tuple[Path, ...]]:
    """Return pictures to calibrate on and to measure drift on; none that AP is measured on is among the first."""
    # Ranges that saw the pictures of the test would make its AP too good.
    tested = {(labelled.images / name).resolve() for name in labelled.data.images.values()} if labelled else set()
    every = [path for path in find_images(paths) if path.resolve() not in tested]
    chosen = _evenly(every, MOST_PICTURES)
    calibrated = calibration_pictures(Pictures(chosen) if chosen else ())
    # Drift shows on pictures that gave no range; only where there are too few of them, on some that did.
    others = [path for path in every if path not in chosen]
    unseen = Pictures(_evenly(others, MOST_DRIFT_PICTURES)).readable() if others else []
    return calibrated, (*unseen, *_evenly(calibrated.paths, MOST_DRIFT_PICTURES - len(unseen)))


def _evenly(items: Sequence[_Item], most: int) -> list[_Item]:
    """Return at most ``most`` items at even distances."""
    if len(items) <= most:
        return list(items)
    # Folders are sorted, and often hold one scene after the other: evenly, every scene has its share.
    return [items[index * len(items) // most] for index in range(most)]


def placement_table(found: Int8Study) -> Table:
    """Return one row for FP16, then one a placement."""
    boxes = [] if found.half.drift.of_pixels else ["Box px"]
    titles = ["Convs", "Pairs", "Kernels", "Act. MiB", "Weights MiB", "ms", "ms here", *boxes, "Flipped"]
    table = Table(
        f"{found.network.path.name} in INT8: ESTIMATED latency, compiled for SM86, drift against FP32",
        [Column("Placement", numeric=False), *map(Column, titles)],
    )
    # The one chosen is mostly one of the candidates, and stands there once.
    rows = dict.fromkeys((found.half, *found.candidates, found.chosen))
    for trial in rows:
        mark = " *" if trial.title == found.chosen.title else ""
        table.add(f"{trial.title}{mark}", len(trial.chosen), trial.pairs, *_costs(trial), *_losses(trial))
    table.notes = [
        "* is the one chosen. ms is the latency on the board where a convolution and what follows it are one kernel, as"
        " TensorRT documents; ms here that of the kernels that TensorRT-RTX compiles, two for each INT8 convolution.",
        "Box px is the median difference of a box coordinate; Flipped counts detections without a partner, or"
        " pixels that change class. FP16 parts are rounded as on a device. Measured on"
        f" {len(found.plan.drift_images)} pictures.",
        f"Ranges: {found.plan.method} on {len(found.plan.calibrated.paths)} pictures.",
    ]
    table.brief = ["* is the one chosen. No latency was measured."]
    return table


def _costs(trial: Trial) -> list[str | int | None]:
    cost = trial.compiled
    if cost is None:
        return [None] * 5
    figures = (cost.activation_mib, cost.weights_mib, cost.fused_estimate_ms, cost.estimate_ms)
    return [cost.kernels, f"{figures[0]:.1f}", f"{figures[1]:.1f}", f"{figures[2]:.2f}", f"{figures[3]:.2f}"]


def _losses(trial: Trial) -> list[str | None]:
    flipped = f"{trial.drift.flipped_share:.1%}"
    if trial.drift.of_pixels:
        return [flipped]
    return [f"{trial.drift.box_px[0]:.2f}" if trial.drift.box_px else None, flipped]


def block_table(found: Int8Study) -> Table:
    """Return one row for each block alone in INT8."""
    of_pixels = found.half.drift.of_pixels
    titles = ["Convs", *([] if of_pixels else ["Box median px", "Box p90 px", "Score p90"]), "Flipped"]
    pictures = len(found.plan.drift_images[::BLOCK_STEP])
    table = Table(
        f"One block in INT8 at a time, on {pictures} pictures", [Column("Block", numeric=False), *map(Column, titles)]
    )
    for name, trial in found.blocks.items():
        moved = () if of_pixels else _moved(trial)
        table.add(name, len(trial.chosen), *moved, f"{trial.drift.flipped_share:.1%}")
    return table


def _moved(trial: Trial) -> tuple[str | None, ...]:
    boxes = [f"{value:.2f}" for value in trial.drift.box_px[:2]] if trial.drift.box_px else [None] * 2
    return *boxes, f"{trial.drift.score[1]:.4f}" if trial.drift.score else None


def verdict(found: Int8Study) -> str:
    """Return the verdict and its reasons as text."""
    return "\n".join([f"verdict: {found.verdict}", *(f"  {reason}" for reason in found.reasons)])
