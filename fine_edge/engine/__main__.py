"""``python -m fine_edge.engine inspect FILE.onnx``: compile a model with TensorRT-RTX on the CPU."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.markup import escape

from fine_edge import console
from fine_edge.command import run
from fine_edge.engine.inspect import TIMEOUT_S, Inspection, inspect
from fine_edge.table import Column, Table


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
    arguments = parser.parse_args(argv)

    with console.status(f"compiling {escape(arguments.onnx.name)}"):
        inspection = inspect(arguments.onnx, arguments.timeout_s)
    if arguments.json:
        console.print_json(inspection.to_json())
    else:
        _table(arguments.onnx, inspection).print(console.out)
    return 0


if __name__ == "__main__":
    run(main)
