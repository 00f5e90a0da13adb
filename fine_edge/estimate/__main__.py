"""``python -m fine_edge.estimate``: what a model would take on a board that is not here."""

from __future__ import annotations

import argparse
from pathlib import Path

from fine_edge import command
from fine_edge.bench.prepare import export_row
from fine_edge.bench.suites import SuiteRow
from fine_edge.errors import ConfigError
from fine_edge.estimate.arguments import add_board, read_board
from fine_edge.estimate.commands import calibrate, validate_command
from fine_edge.estimate.engine import engine_work
from fine_edge.estimate.latency import Estimate, estimate
from fine_edge.estimate.outputs import add_outputs, check_outputs, deliver
from fine_edge.estimate.picture import write_estimate
from fine_edge.estimate.render import estimate_table, kernels_table
from fine_edge.estimate.sweep import sweep
from fine_edge.graph.input_size import InputSize, add_input_size
from fine_edge.zoo.catalog import find

_COMMANDS = {"sweep": sweep, "calibrate": calibrate, "validate": validate_command}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.estimate",
        description="ESTIMATE a model's latency on a board: NVIDIA's compiler says here, on a CPU, which kernels it"
        " becomes, and a roofline says how long they take there. Nothing is measured.",
        epilog="Also: sweep --over AXIS, calibrate RECORD..., validate; each with --help.",
    )
    parser.add_argument("model", metavar="FILE.onnx|MODEL", help="an ONNX file as it is, or a model of the zoo in FP16")
    add_board(parser)
    add_input_size(parser, "a model, or of a graph whose input is dynamic")
    parser.add_argument("--kernels", type=int, default=10, metavar="N", help="dearest kernels to list (default: 10)")
    parser.add_argument(
        "--out", type=Path, default=Path("engines"), metavar="DIR", help="ONNX files of models (default: engines)"
    )
    add_outputs(parser)
    return parser


def _estimate(given: argparse.Namespace) -> Estimate:
    device, mode, calibration = read_board(given)
    path, size = Path(given.model), InputSize.parse(given.input_size, given.batch)
    if path.suffix == ".onnx":
        return estimate(engine_work(path, device, size=size), device, mode, calibration)
    name = find(given.model).name
    if size and size.batch != 1:
        raise ConfigError("a model is exported for one picture at a time", where="--batch", mend="give a FILE.onnx")
    path = export_row(SuiteRow(name), given.out, (size.height, size.width) if size else (0, 0), precision="fp16")
    return estimate(engine_work(path, device, name), device, mode, calibration)


def main(argv: list[str]) -> int:
    """The other commands by name, an estimate otherwise."""
    if argv and argv[0] in _COMMANDS:
        return _COMMANDS[argv[0]](argv[1:])
    given = _parser().parse_args(argv)
    check_outputs(given)
    found = _estimate(given)
    tables = [estimate_table(found), kernels_table(found, given.kernels)]
    deliver(given, found.to_json(), tables, lambda path: write_estimate(found, path))
    return 0


if __name__ == "__main__":
    command.run(main)
