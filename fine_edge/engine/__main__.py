"""``python -m fine_edge.engine``: what NVIDIA's compiler makes of a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from rich.markup import escape

from fine_edge import console
from fine_edge.command import run
from fine_edge.engine.inspect import TIMEOUT_S, Inspection, inspect
from fine_edge.errors import BackendError
from fine_edge.table import Column, Table
from fine_edge.zoo.catalog import find


def _table(path: Path, inspection: Inspection) -> Table:
    table = Table(f"{path.name}: compiled for SM86", [Column("Figure", numeric=False), Column("Value")])
    compiled = inspection.compiled
    table.add("kernels", len(compiled.kernels))
    table.add("fused attentions", compiled.fused_attention)
    table.add("activation, MiB", f"{compiled.activation_mib:.2f}")
    table.add("weights, MiB", f"{compiled.weights_mib:.2f}")
    table.add("compile time, s", f"{inspection.compile_s:.1f}")
    table.add("compiler", inspection.compiler)
    table.add("ONNX sha256", inspection.onnx_sha256[:12])
    table.notes = [
        "Compiled ahead of time for SM86 on this machine's CPU. Nothing ran on a GPU, and this is not an Orin figure:",
        "Orin is SM87 and its TensorRT another compiler. It shows how a graph fuses, not how fast it is there.",
    ]
    return table


def _build(model: str, out: Path) -> NoReturn:
    """Engines are not built yet: say what there is and how to go on by hand."""
    onnx_path = out / f"{model}.fp16.onnx"
    have = "the ONNX is there" if onnx_path.is_file() else f"first: python -m fine_edge.export {model} --precision fp16"
    raise BackendError(
        "this version does not build TensorRT engines yet",
        where=model,
        mend=f"{have}; then on the device: trtexec --onnx={onnx_path} --stronglyTyped --saveEngine={model}.engine",
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a time limit in seconds")
    return value


def main(argv: list[str]) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m fine_edge.engine", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    inspector = commands.add_parser("inspect", help="compile for SM86 without a GPU and show kernels and memory")
    inspector.add_argument("onnx", type=Path, help="the ONNX file, FP16 to see fused attention")
    inspector.add_argument("--json", action="store_true", help="the figures as JSON")
    inspector.add_argument("--timeout-s", type=_seconds, default=TIMEOUT_S, help="stop the compiler after this long")
    builder = commands.add_parser("build", help="build a TensorRT engine (not in this version)")
    builder.add_argument("model", help="a model of the zoo")
    builder.add_argument("--out", type=Path, default=Path("engines"), help="folder of the artifacts")
    arguments = parser.parse_args(argv)

    if arguments.command == "build":
        _build(find(arguments.model).name, arguments.out)
    with console.status(f"compiling {escape(arguments.onnx.name)}"):
        inspection = inspect(arguments.onnx, arguments.timeout_s)
    if arguments.json:
        console.print_json(inspection.to_json())
    else:
        _table(arguments.onnx, inspection).print(console.out)
    return 0


if __name__ == "__main__":
    run(main)
