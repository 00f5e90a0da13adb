"""``fine-edge layers``: show an engine's time, kernels and memory by part, and what FINE adds to them."""

from __future__ import annotations

import argparse
from pathlib import Path

from fine_edge import console
from fine_edge.cli.arguments import (
    Parser,
    add_artifacts,
    add_explain,
    add_fine,
    add_input_size,
    add_json,
    deliver,
    input_size_of,
)
from fine_edge.cli.target import Target
from fine_edge.errors import ConfigError
from fine_edge.layers.cost import FineCost, to_json
from fine_edge.layers.layer import LayerProfile
from fine_edge.layers.sources import from_onnx, from_trtexec
from fine_edge.layers.tables import cost_table, parts_table, write_picture
from fine_edge.zoo.catalog import is_model


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fine-edge layers",
        description="Time, kernels and MiB of an engine by part of the detector.",
        epilog="For an ENGINE.layers.json, times come from the bench or from trtexec --exportProfile; for a MODEL"
        " (in FP16) or a FILE.onnx, TensorRT-RTX compiles it on this machine and there are no times.",
    )
    parser.add_argument("layers", type=Path, metavar="ENGINE.layers.json|MODEL|FILE.onnx", help="what to show")
    add_fine(parser)
    parser.add_argument("--profile", type=Path, metavar="FILE", help="of the bench, or of trtexec --exportProfile")
    parser.add_argument("--times", type=Path, metavar="FILE", help="of trtexec --exportTimes, or its log")
    parser.add_argument(
        "--baseline", type=Path, metavar="LAYERS|MODEL|ONNX", help="the model without FINE: shows what FINE costs"
    )
    parser.add_argument("--baseline-profile", type=Path, metavar="FILE", help="times of the baseline")
    add_input_size(parser)
    add_artifacts(parser)
    add_json(parser)
    add_explain(parser)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also write a picture (PNG)")
    return parser


def _is_compiled(layers: Path) -> bool:
    """Return whether a model or a graph was named; the layers of an engine are read otherwise."""
    # The option is a path, as it is mostly a file; the name of a model is turned back into text.
    return layers.suffix == ".onnx" or is_model(str(layers))


def _read(
    layers: Path, profile: Path | None, times: Path | None, options: str, given: argparse.Namespace
) -> LayerProfile:
    if not _is_compiled(layers):
        return from_trtexec(layers, profile, times)
    if profile or times:
        raise ConfigError("a model is only compiled here, it has no times", where=options)
    # FP16, since attention in FP32 is never fused and its kernels would be others than on a board.
    path = Target.parse(str(layers)).onnx_path(given.artifacts, precision="fp16")
    size = input_size_of(given, path)
    with console.status(f"compiling {path.name}"):
        return from_onnx(path, size)


def main(argv: list[str]) -> int:
    """Print one engine by part, and with a baseline what FINE costs."""
    given = _parser().parse_args(argv)
    if given.baseline_profile and not given.baseline:
        raise ConfigError("needs --baseline", where="--baseline-profile")
    # The model with its options has a name, by which all that follows knows it.
    if given.fine is not None:
        given.layers = Path(str(Target.parse(str(given.layers), given.fine).model))
    asked = given.input_size is not None or given.batch is not None
    if asked and not all(map(_is_compiled, filter(None, (given.layers, given.baseline)))):
        raise ConfigError("an engine has its size", where="--input-size", hint="give it with FILE.onnx alone")
    profile = _read(given.layers, given.profile, given.times, "--profile, --times", given)
    baseline = (
        _read(given.baseline, given.baseline_profile, None, "--baseline-profile", given) if given.baseline else None
    )
    tables = [parts_table(profile), *([cost_table(FineCost(profile, baseline))] if baseline else [])]
    deliver(given, to_json(profile, baseline), tables)
    if given.picture:
        write_picture(profile, given.picture)
        console.remark(f"picture: {given.picture}")
    return 0
