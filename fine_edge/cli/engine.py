"""``fine-edge engine``: build engines, check them, take over trtexec's, compile without a GPU."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from fine_edge import console
from fine_edge.cli.arguments import STDOUT, Parser, add_artifacts, add_fine, add_input_size, add_json, deliver
from fine_edge.cli.target import ONNX_TARGET, Target
from fine_edge.engine import adopt as adoption
from fine_edge.engine.build import Engine, obtain_engine
from fine_edge.engine.inspect import TIMEOUT_S, Inspection, inspect
from fine_edge.engine.manifest import read_manifest
from fine_edge.engine.options import PRECISIONS, TARGETS, VERBOSITIES, BuildOptions, read_recipe
from fine_edge.engine.plan_file import check_bytes, check_onnx, check_platform, read_plan
from fine_edge.engine.platform import here, require_tensorrt
from fine_edge.engine.preflight import require_release
from fine_edge.engine.source import graph_precision, model_of, onnx_name, read_source
from fine_edge.errors import ConfigError
from fine_edge.fp16.keep_list import read_keep_list
from fine_edge.graph.input_size import InputSize
from fine_edge.table import Column, Table

RTX_NOTES = [
    "Compiled ahead of time for SM86 on this machine's CPU. Nothing ran on a GPU, and this is not an Orin figure:"
    " Orin is SM87 and its TensorRT another compiler. It shows how a graph fuses, not how fast it is there.",
]


def _figures(title: str) -> Table:
    return Table(title, [Column("Figure", numeric=False), Column("Value")])


def _inspection_table(path: Path, inspection: Inspection) -> Table:
    table = _figures(f"{path.name}: compiled for SM86")
    compiled = inspection.compiled
    table.add("inputs", inspection.inputs)
    table.add("kernels", len(compiled.kernels))
    table.add("fused attentions", compiled.fused_attention)
    table.add("activation, MiB", f"{compiled.activation_mib:.2f}")
    table.add("weights, MiB", f"{compiled.weights_mib:.2f}")
    table.add("compile time, s", f"{inspection.compile_s:.1f}")
    table.add("compiler", inspection.compiler)
    table.add("ONNX sha256", inspection.onnx_sha256[:12])
    table.notes = RTX_NOTES
    return table


def _engine_table(engine: Engine) -> Table:
    manifest = engine.manifest
    platform = manifest.platform
    is_rtx = manifest.target != "tensorrt"
    table = _figures(f"{engine.path}" + (": already there, nothing to do" if engine.reused else ": built"))
    table.add("model", manifest.model)
    table.add("precision", manifest.precision)
    if manifest.options.input_size:
        table.add("input size", str(manifest.options.input_size))
    table.add("for", "SM86, ahead of time" if is_rtx else f"{platform.gpu}, SM{platform.sm}, L4T {platform.l4t or '-'}")
    table.add("builder", f"TensorRT-RTX {platform.rtx}" if is_rtx else f"TensorRT {platform.tensorrt}")
    if manifest.power_mode:
        table.add("built in power mode", manifest.power_mode)
    table.add("kernels", manifest.kernels)
    table.add("fused attentions", manifest.fused_attention)
    table.add("activation, MiB", f"{manifest.activation_mib:.2f}")
    table.add("weights, MiB", None if manifest.weights_mib is None else f"{manifest.weights_mib:.2f}")
    table.add("build time, s", None if manifest.build_s is None else f"{manifest.build_s:.1f}")
    table.add("ONNX sha256", manifest.onnx_sha256[:12])
    table.add("engine sha256", manifest.engine_sha256[:12])
    if is_rtx:
        table.notes = RTX_NOTES
    return table


def _options(given: argparse.Namespace, recipe: BuildOptions) -> BuildOptions:
    """Return the recipe, overridden by what the command line says."""
    given_options = {
        "precision": given.precision,
        "target": given.target,
        "optimization_level": given.optimization_level,
        "max_aux_streams": given.max_aux_streams,
        "workspace_mib": given.workspace_mib,
        "keep_fp32": read_keep_list(given.keep_fp32) if given.keep_fp32 else None,
        "profiling_verbosity": given.profiling_verbosity,
        "plugins": tuple(str(path.absolute()) for path in given.plugin_library) or None,
        "input_size": InputSize.parse(given.input_size, given.batch),
    }
    return replace(recipe, **{name: value for name, value in given_options.items() if value is not None})


def _resolve(given: argparse.Namespace) -> tuple[Path, BuildOptions]:
    """Return the ONNX file and the options to build it with."""
    target = Target.parse(given.source, given.fine)
    if target.model is None:
        path = target.onnx_path(given.artifacts)
        size = InputSize.parse(given.input_size, given.batch)
        recipe = read_recipe(model_of(path), given.recipes)
        if given.precision is None:
            given.precision = read_source(path, size or recipe.input_size).precision
        return path, _options(given, recipe)
    options = _options(given, read_recipe(target.model, given.recipes))
    if options.target == "tensorrt":  # before an export that takes a minute
        platform = here()
        require_tensorrt(platform, target.model)
        require_release(platform, options)
    path = given.artifacts / onnx_name(target.model, options.precision)
    if not path.is_file():  # one that is there is taken, whatever weights it was exported with
        path = target.onnx_path(given.artifacts, precision=graph_precision(options.precision))
    return path, options


def _build(given: argparse.Namespace) -> int:
    path, options = _resolve(given)
    engine = obtain_engine(
        path,
        options,
        given.artifacts,
        rebuild=given.rebuild,
        skip_preflight=given.skip_preflight,
        timeout_s=given.timeout_s,
    )
    deliver(given, engine.to_json(), [_engine_table(engine)])
    return 0


def _adopt(given: argparse.Namespace) -> int:
    source = read_source(given.onnx, InputSize.parse(given.input_size, given.batch))
    if given.precision is None and not source.holds_fp16:
        raise ConfigError(
            "an FP32 graph does not say how trtexec built its engine",
            where=given.plan,
            hint="--precision fp16-weak if trtexec was given --fp16, --precision fp32 if not",
        )
    given.precision = given.precision or source.precision
    options = _options(given, BuildOptions())
    engine = adoption.adopt(given.plan, given.onnx, options, given.artifacts)
    deliver(given, engine.to_json(), [_engine_table(engine)])
    return 0


def _verify(given: argparse.Namespace) -> int:
    plan, manifest = read_plan(given.engine), read_manifest(given.engine)
    check_bytes(given.engine, manifest, plan)
    compared = check_onnx(given.engine, manifest)
    if manifest.target == "tensorrt" or given.for_this_machine:
        check_platform(given.engine, manifest, here())
    usable = "may run here" if manifest.target == "tensorrt" else "whole; a compile check for SM86, not for running"
    if not compared:
        usable += f" (not compared with {manifest.onnx_file}, which does not lie beside it)"
    deliver(given, Engine(given.engine, manifest, reused=True).to_json() | {"ok": True, "verdict": usable}, [])
    if given.json != STDOUT:
        console.out.print(f"{given.engine}: {usable}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _inspect(given: argparse.Namespace) -> int:
    size = InputSize.parse(given.input_size, given.batch)
    path = Target.parse(given.target, given.fine).onnx_path(given.artifacts, precision="fp16")
    inspection = inspect(path, given.timeout_s or TIMEOUT_S, size)
    deliver(given, inspection.to_json(), [_inspection_table(path, inspection)])
    return 0


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a time limit in seconds")
    return value


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=PRECISIONS, help="default: the recipe's, or what the graph is")
    parser.add_argument("--optimization-level", type=int, metavar="0..5", help="of the builder (default: 3)")
    parser.add_argument(
        "--max-aux-streams", type=int, metavar="N", help="0: one stream, which needs least memory (default: its choice)"
    )
    parser.add_argument("--workspace-mib", type=int, metavar="MIB", help="scratch memory (default: from free memory)")
    parser.add_argument("--profiling-verbosity", choices=VERBOSITIES, help="default: detailed")
    parser.add_argument("--plugin-library", type=Path, action="append", default=[], metavar="FILE.so")
    parser.add_argument("--keep-fp32", type=Path, metavar="FILE", help="nodes kept in FP32, with fp16-weak")
    add_input_size(parser)
    add_artifacts(parser, or_out=True)
    add_json(parser)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command and its sub-commands."""
    parser = Parser(
        prog="fine-edge engine", description="Build engines, check them, take over trtexec's, compile without a GPU."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="build the engine of a model, or do nothing if it is there")
    build.add_argument("source", metavar=ONNX_TARGET, help="a model of the zoo, or an ONNX file")
    add_fine(build)
    build.add_argument("--target", choices=TARGETS, help="tensorrt: this machine's GPU; rtx-sm86: no GPU needed")
    _add_settings(build)
    build.add_argument("--recipes", type=Path, default=Path("engines"), help="folder of MODEL.json (default: engines)")
    build.add_argument("--rebuild", action="store_true", help="build even if the engine is there")
    build.add_argument("--skip-preflight", action="store_true", help="build even where memory looks too small")
    build.add_argument("--timeout-s", type=_seconds, help="stop the builder after this long (default: never)")
    build.set_defaults(run=_build)
    verify = commands.add_parser("verify", help="check an engine against its manifest and this machine")
    verify.add_argument("engine", type=Path)
    verify.add_argument("--for-this-machine", action="store_true", help="refuse a compile check for SM86 as well")
    add_json(verify)
    verify.set_defaults(run=_verify)
    adopt = commands.add_parser("adopt", help="take over a plan that trtexec built on this machine")
    adopt.add_argument("plan", type=Path, help="what trtexec --saveEngine wrote")
    adopt.add_argument("--onnx", type=Path, required=True, help="what trtexec --onnx was given")
    _add_settings(adopt)
    adopt.set_defaults(run=_adopt, target="tensorrt")
    inspector = commands.add_parser("inspect", help="compile for SM86 without a GPU and show kernels and memory")
    inspector.add_argument(
        "target", metavar=ONNX_TARGET, help="a model of the zoo in FP16, or an ONNX file (FP16 to see fused attention)"
    )
    add_fine(inspector)
    add_artifacts(inspector)
    add_json(inspector)
    add_input_size(inspector)
    inspector.add_argument("--timeout-s", type=_seconds, help="stop the compiler after this long")
    inspector.set_defaults(run=_inspect)
    return parser


def main(argv: list[str]) -> int:
    """Run the sub-command; return its exit code."""
    given = make_parser().parse_args(argv)
    return int(given.run(given))
