"""``fine-edge bench TARGET --batches 1,2,4,8``: one artifact at several batches."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from fine_edge import files
from fine_edge.bench.backends import BACKENDS, PRECISIONS, QUICK_ROUNDS, BenchOptions
from fine_edge.bench.batches import SUITE, parse_batches, run_batches
from fine_edge.bench.record import Record
from fine_edge.cli.arguments import Parser, add_artifacts, add_explain, add_json, add_table_files
from fine_edge.cli.target import ANY_TARGET, Target
from fine_edge.engine.build import ensure_engine
from fine_edge.engine.options import EnginePrecision, read_recipe
from fine_edge.engine.source import graph_precision, model_of
from fine_edge.errors import ConfigError
from fine_edge.export.request import parse_size

_ALL_PRECISIONS = tuple(dict.fromkeys(name for names in PRECISIONS.values() for name in names))


def wants_batches(argv: list[str]) -> bool:
    """Return whether the command line asks for batches."""
    return any(word.partition("=")[0] == "--batches" for word in argv)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of a measurement over batches."""
    parser = Parser(
        prog="fine-edge bench",
        description="Measure one artifact at several batches: images per second, latency, memory.",
        epilog="A FILE takes the batches that export --batch MIN:MAX gave it; of a MODEL, such a file is exported.",
    )
    parser.add_argument("target", metavar=ANY_TARGET, help="what to measure")
    parser.add_argument("--batches", required=True, metavar="N,N,...", help="batches to measure, such as 1,2,4,8")
    parser.add_argument("--backend", choices=tuple(BACKENDS), help="default: trt for an engine, else ort")
    parser.add_argument("--precision", choices=_ALL_PRECISIONS, help="of a MODEL (default: ort fp32, trt fp16)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs (default: those of scikit-image)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--rounds", type=int, metavar="N", help="samples for each batch")
    length.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds: too few to quote")
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="of a MODEL (default: its own)")
    parser.add_argument("--threads", type=int, metavar="N", help="ort: of ONNX Runtime (default: its own choice)")
    parser.add_argument("--cuda-graph", action="store_true", help="trt: replay inferences from CUDA graphs")
    parser.add_argument("--spin", action="store_true", help="trt: burn a core while waiting for the GPU")
    add_artifacts(parser, or_out=True)
    add_json(parser)
    add_explain(parser)
    add_table_files(parser, "throughput and latency over the batch, as PNG")
    return parser


def onnx_file(target: Target, options: BenchOptions, given: argparse.Namespace) -> Path:
    """Return the ONNX file to measure, or to build an engine of; that of a model is exported unless it is there."""
    batches = parse_batches(given.batches)
    height, width = parse_size(given.input_size)
    asked: dict[str, Any] = {"precision": graph_precision(options.chosen_precision), "height": height, "width": width}
    asked |= {"batch": batches[-1], "batches": (batches[0], batches[-1], batches[-1])}
    return target.onnx_path(given.artifacts, **asked)


def _file(target: Target, options: BenchOptions, given: argparse.Namespace) -> Path:
    """Return the file to measure: the one that was named, or one that is exported and built of it."""
    if target.engine:
        return target.engine
    path = onnx_file(target, options, given)
    if options.backend == "ort":
        return path
    recipe = read_recipe(model_of(path), given.artifacts)
    return ensure_engine(path, replace(recipe, precision=options.chosen_precision), given.artifacts)


def read_options(given: argparse.Namespace, target: Target) -> BenchOptions:
    """Return how to measure.

    Raises:
        ConfigError: for options that contradict each other or the target.
    """
    if target.engine and given.backend == "ort":
        raise ConfigError("an engine runs in TensorRT", where="--backend", hint="leave it out")
    if target.model is None and (given.input_size or (given.precision and given.backend != "trt")):
        raise ConfigError("a file has its size and precision", where=given.target, hint="give them with MODEL alone")
    return BenchOptions(
        backend=given.backend or ("trt" if target.engine else "ort"),
        precision=cast("EnginePrecision | None", given.precision),
        images=given.images,
        rounds=given.rounds,
        quick=given.quick,
        threads=given.threads,
        folder=given.artifacts,
        cuda_graph=given.cuda_graph,
        spin=given.spin,
    )


def measure_batches(argv: list[str]) -> tuple[Record, argparse.Namespace]:
    """Return the record, and the options that say where it goes.

    Raises:
        FineEdgeError: for options that contradict each other, and as :func:`fine_edge.bench.batches.run_batches`.
    """
    given = make_parser().parse_args(argv)
    batches, target = parse_batches(given.batches), Target.parse(given.target)
    options = read_options(given, target)
    given.picture = given.picture or given.artifacts / f"bench_{SUITE}.png"
    files.refuse_unwritable([given.picture])
    return run_batches(_file(target, options, given), batches, options), given
