"""``python -m fine_edge.estimate``: what a model would take on a board that is not here."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fine_edge import atomic, command, console
from fine_edge.bench.prepare import export_row
from fine_edge.bench.suites import SuiteRow
from fine_edge.estimate.arguments import add_board, read_board
from fine_edge.estimate.commands import add_outputs, calibrate, validate_command
from fine_edge.estimate.engine import engine_work
from fine_edge.estimate.latency import Estimate, estimate
from fine_edge.estimate.picture import write_estimate
from fine_edge.estimate.render import estimate_table, kernels_table
from fine_edge.estimate.sweep import sweep
from fine_edge.zoo.catalog import find

_STDOUT = Path("-")
_COMMANDS = {"sweep": sweep, "calibrate": calibrate, "validate": validate_command}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.estimate",
        description="ESTIMATE a model's latency on a board: NVIDIA's compiler says here, on a CPU, which kernels it"
        " becomes, and a roofline says how long they take there. Nothing is measured.",
        epilog="Also: sweep --over AXIS, calibrate RECORD..., validate TABLE1; each with --help.",
    )
    parser.add_argument("model", metavar="FILE.onnx|MODEL", help="an ONNX file as it is, or a model of the zoo in FP16")
    add_board(parser)
    parser.add_argument("--kernels", type=int, default=10, metavar="N", help="dearest kernels to list (default: 10)")
    parser.add_argument(
        "--out", type=Path, default=Path("engines"), metavar="DIR", help="ONNX files of models (default: engines)"
    )
    add_outputs(parser)
    return parser


def _estimate(given: argparse.Namespace) -> Estimate:
    device, mode, calibration = read_board(given)
    path, name = Path(given.model), ""
    if path.suffix != ".onnx":
        name = find(given.model).name
        path = export_row(SuiteRow(name), given.out, precision="fp16")
    return estimate(engine_work(path, device, name), device, mode, calibration)


def main(argv: list[str]) -> int:
    """The other commands by name, an estimate otherwise."""
    if argv and argv[0] in _COMMANDS:
        return _COMMANDS[argv[0]](argv[1:])
    given = _parser().parse_args(argv)
    found = _estimate(given)
    if given.json == _STDOUT:
        console.print_json(found.to_json())
    else:
        estimate_table(found).print(console.out)
        kernels_table(found, given.kernels).print(console.out)
    if given.json and given.json != _STDOUT:
        atomic.write_text(given.json, json.dumps(found.to_json(), indent=1) + "\n")
    if given.picture:
        write_estimate(found, given.picture)
        console.remark(f"picture: {given.picture}")
    return 0


if __name__ == "__main__":
    command.run(main)
