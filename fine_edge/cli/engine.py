"""``fine-edge engine``: build engines, check them, take over trtexec's, compile without a GPU."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from fine_edge import console
from fine_edge.cli.arguments import (
    STDOUT,
    Parser,
    add_artifacts,
    add_fine,
    add_input_size,
    add_json,
    deliver,
    input_size_of,
)
from fine_edge.cli.target import ONNX_TARGET, Target
from fine_edge.contract import Batches
from fine_edge.engine import adopt as adoption
from fine_edge.engine.build import Engine, obtain_engine
from fine_edge.engine.inspect import TIMEOUT_S, Inspection, inspect
from fine_edge.engine.manifest import check_bytes, check_onnx, check_platform, read_manifest, read_plan
from fine_edge.engine.options import (
    PRECISIONS,
    TARGETS,
    VERBOSITIES,
    BuildOptions,
    EnginePrecision,
    profile_of,
    read_recipe,
    resolved,
    trtexec_flags,
)
from fine_edge.engine.platform import here, require_tensorrt
from fine_edge.engine.preflight import require_release
from fine_edge.engine.source import graph_precision, model_of, read_source, sized
from fine_edge.errors import ConfigError
from fine_edge.export.artifacts import ensure_exported
from fine_edge.export.request import ExportRequest, parse_batches
from fine_edge.fp16.keep_list import read_keep_list
from fine_edge.graph.input_size import InputSize, picture_size
from fine_edge.graph.model_file import read_model
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


def _engine_table(engine: Engine, onnx_path: Path) -> Table:
    manifest = engine.manifest
    platform = manifest.platform
    is_rtx = manifest.target != "tensorrt"
    table = _figures(f"{engine.path}" + (": already there, nothing to do" if engine.reused else ": built"))
    table.add("model", manifest.model)
    table.add("precision", manifest.precision)
    if manifest.options.input_size:
        table.add("input size", str(manifest.options.input_size))
    if manifest.options.batches:
        table.add("batch: smallest, optimum, largest", ", ".join(map(str, manifest.options.batches)))
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
    table.notes = [*_profile_notes(engine, onnx_path), *(RTX_NOTES if is_rtx else ())]
    return table


def _profile_notes(engine: Engine, onnx_path: Path) -> list[str]:
    """Return what a range of batches comes to, and how trtexec is told of it."""
    options = engine.manifest.options
    if options.batches is None:
        return []
    # As the builder sees it: other open dimensions have got their size, and the batch alone is left open.
    model = sized(read_model(onnx_path, weights=False), onnx_path, options.input_size, options.batches)
    flags = " ".join(trtexec_flags(profile_of(model, options.batches)))
    best, most = options.batches[1:]
    return [f"Kernels are picked for batch {best}, memory is planned for {most}. The same to trtexec: {flags}"]


def _sizes(given: argparse.Namespace, path: Path | None) -> tuple[InputSize | None, Batches | None]:
    """Return the size and the range of batches that the command line asks for; a graph alone takes a batch alone."""
    if given.batch is None:
        return InputSize.parse(given.input_size), None
    largest, batches = parse_batches(given.batch)
    # A range stands beside the size, which then has its largest batch; one batch is a part of the size.
    if batches or given.input_size is not None:
        return (InputSize.parse(given.input_size, largest) if given.input_size is not None else None), batches
    # Of a model there is no graph yet to take the size from: this asks for --input-size.
    if path is None:
        return InputSize.parse(None, largest), None
    return picture_size(read_model(path, weights=False), largest, path), None


def _options(given: argparse.Namespace, recipe: BuildOptions, path: Path | None) -> BuildOptions:
    """Return the recipe, overridden by what the command line says; ``path`` is that of a graph that was named."""
    size, batches = _sizes(given, path)
    given_options = {
        "precision": given.precision,
        "target": given.target,
        "optimization_level": given.optimization_level,
        "max_aux_streams": given.max_aux_streams,
        "workspace_mib": given.workspace_mib,
        "keep_fp32": read_keep_list(given.keep_fp32) if given.keep_fp32 else None,
        "profiling_verbosity": given.profiling_verbosity,
        # Absolute, since the builder's process and later the runtime may work in other folders; none: the recipe's
        # hold.
        "plugins": tuple(str(path.absolute()) for path in given.plugin_library) or None,
        "input_size": size,
        "batches": batches,
    }
    # A batch on the command line replaces the recipe's range, also where it is one number.
    if given.batch is not None:
        recipe = replace(recipe, batches=None)
    return replace(recipe, **{name: value for name, value in given_options.items() if value is not None})


def _resolve(given: argparse.Namespace) -> tuple[Path, BuildOptions]:
    """Return the ONNX file and the options to build it with."""
    target = Target.parse(given.source, given.fine)
    if target.model is None:
        path = target.onnx_path(given.artifacts)
        # Before the precision is read: the graph is looked at in the sizes that it will be built in.
        options = resolved(path, _options(given, read_recipe(model_of(path), given.recipes), path))
        if given.precision is None:
            options = replace(options, precision=read_source(path, options.input_size, options.batches).precision)
        return path, options
    options = _options(given, read_recipe(target.model, given.recipes), None)
    if options.target == "tensorrt":  # before an export that takes a minute
        platform = here()
        require_tensorrt(platform, target.model)
        require_release(platform, options)
    return exported_for(target.model, options.precision, options.batches, given.artifacts), options


def exported_for(model: str, precision: EnginePrecision, batches: Batches | None, artifacts: Path) -> Path:
    """Return the file of a model that an engine is built from, exported unless it is there."""
    request = ExportRequest(model, precision=graph_precision(precision))
    if batches:
        request = replace(request, batch=batches[2], batches=batches)
    path = artifacts / request.onnx_name()
    # One that is there is taken, whatever weights it was exported with.
    return path if path.is_file() else ensure_exported(request, artifacts)


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
    deliver(given, engine.to_json(), [_engine_table(engine, path)])
    return 0


def _adopt(given: argparse.Namespace) -> int:
    options = _options(given, BuildOptions(), given.onnx)
    # trtexec wrote the profile into the plan; a batch stated here could only contradict it.
    if options.batches:
        raise ConfigError("a plan says itself which batches it takes", where="--batch", hint="leave it out")
    checked = resolved(given.onnx, options)
    source = read_source(given.onnx, checked.input_size, checked.batches)
    # An FP32 graph gives an FP32 or, by --fp16, a weakly typed engine, and the plan does not tell which.
    if given.precision is None and not source.holds_fp16:
        raise ConfigError(
            "an FP32 graph does not say how trtexec built its engine",
            where=given.plan,
            hint="--precision fp16-weak if trtexec was given --fp16, --precision fp32 if not",
        )
    options = replace(options, precision=given.precision or source.precision)
    engine = adoption.adopt(given.plan, given.onnx, options, given.artifacts)
    deliver(given, engine.to_json(), [_engine_table(engine, given.onnx)])
    return 0


def _verify(given: argparse.Namespace) -> int:
    plan, manifest = read_plan(given.engine), read_manifest(given.engine)
    check_bytes(given.engine, manifest, plan)
    compared = check_onnx(given.engine, manifest)
    # The compile check for SM86 is not for running, so by default it is not held against this machine.
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
    # TensorRT-RTX has no FP16 flag: what shall compute in FP16 must be FP16 in the graph, and attention in FP32 is
    # never fused.
    path = Target.parse(given.target, given.fine).onnx_path(given.artifacts, precision="fp16")
    size = input_size_of(given, path)
    inspection = inspect(path, given.timeout_s or TIMEOUT_S, size)
    deliver(given, inspection.to_json(), [_inspection_table(path, inspection)])
    return 0


def _seconds(text: str) -> float:
    value = float(text)
    # 1e6 s are eleven days. Written so that it refuses NaN as well.
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
    add_input_size(parser, ranges=True)
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
    # trtexec builds for TensorRT alone, so there is no option.
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
