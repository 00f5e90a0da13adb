"""``fine-edge parity``: compare an exported detector with its PyTorch model."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import cast, get_args

from fine_edge import console
from fine_edge.cli.arguments import Parser, add_artifacts, add_fine, add_json, add_seed, deliver
from fine_edge.cli.target import ANY_TARGET, Target, refuse_options_of_models, refuse_unheeded
from fine_edge.contract import Precision, bound_contract
from fine_edge.engine.manifest import read_manifest
from fine_edge.errors import ArtifactError
from fine_edge.export.request import parse_size
from fine_edge.images import Pictures, sample_photographs
from fine_edge.parity.references import against_golden, against_pytorch, batches_tried
from fine_edge.parity.report import ParityReport
from fine_edge.runners.opened import Opened, open_engine, open_onnx
from fine_edge.table import Column, Table


def table(report: ParityReport) -> Table:
    """Return the report as a table."""
    weights = ", random weights" if report.random_weights else ""
    share = report.tolerance.quantile
    view = Table(
        f"{report.model} {report.precision}: {report.candidate} against {report.reference}{weights}",
        [
            Column("output", numeric=False),
            Column("max abs"),
            Column("max rel"),
            Column("every row within" if share == 1 else f"{share:.0%} of rows within"),
            Column("tolerance"),
            Column("verdict", numeric=False),
            Column("where the largest is", numeric=False),
        ],
    )
    for t in report.tensors:
        figures = (f"{value:.3g}" for value in (t.max_abs, t.max_rel, t.at_quantile, t.tolerance))
        view.add(t.output, *figures, "ok" if t.ok else "FAILS", t.where)
    d = report.detections
    if d:
        view.notes.append(
            f"Detections: {d.matched} matched, {d.flipped} flipped ({report.flipped_share:.2%}, at most"
            f" {report.tolerance.flipped:.1%} may), {d.ties} ties at the cut-off; largest drift"
            f" {d.max_score_drift:.2g} in score, {d.max_box_drift_px:.3g} px in a box coordinate."
        )
    view.notes.append(f"Inputs: {', '.join(report.inputs)}.")
    if report.near_ties:
        view.notes.append(
            f"Compared as detections alone: {', '.join(report.near_ties)}; two proposals at the end of the top-k are so"
            " close that rounding decides which becomes a query."
        )
    return view


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = Parser(
        prog="fine-edge parity",
        description="Compare an exported detector with its PyTorch model. Exit code 1 beyond tolerance.",
    )
    parser.add_argument(
        "target",
        metavar=ANY_TARGET,
        help="a model of the zoo (exported if needed), an ONNX file, or a TensorRT engine of this machine",
    )
    add_fine(parser)
    parser.add_argument("--precision", choices=get_args(Precision), help="of MODEL (default: fp32)")
    parser.add_argument("--golden", action="store_true", help="check against the stored outputs, without torch")
    parser.add_argument("--weights", type=Path, help="checkpoint the model was exported from (default: random weights)")
    add_seed(parser, "of the random weights")
    parser.add_argument(
        "--images", type=Path, nargs="+", help="pictures or folders (default: scikit-image's photographs)"
    )
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="of MODEL (default: its own)")
    parser.add_argument("--raw", action="store_true", help="export MODEL with logits and boxes, and compare those")
    add_artifacts(parser, or_out=True)
    add_json(parser)
    return parser


def _of_engine(engine: Path) -> tuple[Path, Opened]:
    """Open an engine; return it behind the ONNX file it was built from, which must lie beside it."""
    manifest = read_manifest(engine)
    onnx_path = engine.with_name(manifest.onnx_file)
    _, artifact = bound_contract(onnx_path)
    # A graph that was exported again since has other weights or names: the engine would fail for differences that are
    # none.
    if artifact.sha256 != manifest.onnx_sha256:
        what = f"was built from another ONNX ({manifest.onnx_sha256[:12]}) than {onnx_path.name} is now"
        raise ArtifactError(what, where=engine, hint=f"make engine MODEL={manifest.model}")
    return onnx_path, open_engine(engine)


def _open(args: argparse.Namespace) -> tuple[Path, Opened]:
    """Return the ONNX file that is compared, and what runs it; FP16 and INT8 are rounded as a device rounds."""
    target = Target.parse(args.target, args.fine)
    refuse_options_of_models(target, args, "precision", "input_size", "raw", "seed")
    if args.golden:
        # --weights of a model still says what is exported; beside a file it would have no effect.
        of_pytorch = ("images",) if target.model else ("images", "weights")
        refuse_unheeded(args, "is not used: the golden file holds the inputs and PyTorch's outputs", *of_pytorch)
    if target.engine:
        return _of_engine(target.engine)
    height, width = parse_size(args.input_size)
    asked = {"height": height, "width": width, "raw": args.raw, "seed": args.seed}
    onnx_path = target.onnx_path(args.artifacts, args.weights, precision=args.precision or "fp32", **asked)
    _, artifact = bound_contract(onnx_path)
    # ONNX Runtime computes FP16 in FP32 on x86 and hides overflows; rounded after every operator, they show.
    return onnx_path, open_onnx(onnx_path, rounded=artifact.precision != "fp32")


def main(argv: list[str]) -> int:
    """Print the comparison; return 1 beyond tolerance."""
    args = make_parser().parse_args(argv)
    onnx_path, opened = _open(args)
    # A weakly typed engine is held to the tolerance of FP16.
    precision: Precision = "fp16" if opened.precision == "fp16-weak" else cast("Precision", opened.precision)
    with contextlib.closing(opened.runner):
        if args.golden:
            report = against_golden(onnx_path, opened.runner, precision, opened.contract)
        else:
            images = Pictures(args.images) if args.images else sample_photographs()[:3]
            report = against_pytorch(onnx_path, opened.runner, images, args.weights, precision, opened.contract)
    shown = table(report)
    batches = opened.contract.batches
    if batches:
        tried = ", ".join(map(str, batches_tried(opened.contract)))
        shown.notes.append(
            f"Compared at batches of {tried}; it takes {batches[0]} to {batches[2]}, optimum {batches[1]}."
        )
    deliver(args, report.to_json(), [shown])
    if not report.ok:
        console.warn(f"parity fails: {report.failure}")
    return 0 if report.ok else 1
