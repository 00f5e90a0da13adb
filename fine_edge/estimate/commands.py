"""``calibrate`` and ``validate``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from fine_edge import atomic, console
from fine_edge.errors import ConfigError
from fine_edge.estimate.arguments import add_board, add_device, read_board
from fine_edge.estimate.calibration import Calibration, write_calibration
from fine_edge.estimate.device import find_device
from fine_edge.estimate.latency import estimate
from fine_edge.estimate.outputs import add_outputs, check_outputs, deliver
from fine_edge.estimate.own_records import calibrate_on_records
from fine_edge.estimate.picture import write_validation
from fine_edge.estimate.published import calibrate_on_table3, compile_table
from fine_edge.estimate.validate import Validation, validate
from fine_edge.table import Column, Table


def calibrate(argv: list[str]) -> int:
    """Fit the constants to records, or again to the paper's Table 3."""
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.estimate calibrate",
        description="Fit the constants to latencies of a board: to TensorRT records of your own, without any to the"
        " paper's Table 3.",
    )
    parser.add_argument("records", nargs="*", type=Path, metavar="RECORD", help="of fine_edge.bench --backend trt")
    add_device(parser)
    parser.add_argument(
        "--artifacts", type=Path, default=Path("engines"), metavar="DIR", help="ONNX files (default: engines)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the calibration")
    given = parser.parse_args(argv)
    atomic.refuse_unwritable([given.out])
    device = find_device(given.device)
    mode = device.mode(given.mode)
    if given.records and not given.mode:
        raise ConfigError("say which mode the records were measured in", where="--mode", mend="--mode MAXN_SUPER")
    if given.records:
        found = calibrate_on_records(given.records, device, mode, given.artifacts)
    else:
        found = calibrate_on_table3(compile_table("3", device, given.artifacts), device, mode)
    if given.out:
        write_calibration(found, given.out)
    _calibration_table(found).print(console.out)
    return 0


def _calibration_table(found: Calibration) -> Table:
    columns = [Column("Row", numeric=False), Column("Error (%)"), Column("Error when left out (%)")]
    table = Table(f"Calibration of {found.device}, {found.mode}, on {found.origin}", columns)
    for name, error in found.rows.items():
        unseen = found.left_out.get(name)
        table.add(name, f"{100 * error:+.1f}", None if unseen is None else f"{100 * unseen:+.1f}")
    table.notes = ["; ".join(f"{name} {value:g}" for name, value in vars(found.constants).items()) + "."]
    return table


def validate_command(argv: list[str]) -> int:
    """Predicted against published FPS on Table 1."""
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.estimate validate",
        description="Predicted against published FPS of the paper's Table 1, which is never fitted.",
    )
    add_board(parser)
    parser.add_argument("--out", type=Path, default=Path("engines"), metavar="DIR", help="ONNX files")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="the calibration, its intervals widened by what was found"
    )
    add_outputs(parser)
    given = parser.parse_args(argv)
    check_outputs(given)
    atomic.refuse_unwritable([given.write])
    found = validate_table1(given)
    if given.write:
        _, _, calibration = read_board(given)
        write_calibration(replace(calibration, validated=found.latency_errors), given.write)
    return 0


def validate_table1(given: argparse.Namespace) -> Validation:
    """Export, compile and estimate Table 1, and show it beside what was published."""
    device, mode, calibration = read_board(given)
    engines = compile_table("1", device, given.out)
    found = validate([estimate(engine, device, mode, calibration) for engine in engines])
    deliver(given, found.to_json(), [found.table()], lambda path: write_validation(found, path))
    return found
