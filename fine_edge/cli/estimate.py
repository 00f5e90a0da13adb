"""``fine-edge estimate``: the latency of a model on a board that is not here."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fine_edge import console, files
from fine_edge.bench.prepare import export_row
from fine_edge.bench.suites import SuiteRow
from fine_edge.cli.arguments import (
    Parser,
    add_artifacts,
    add_explain,
    add_fine,
    add_input_size,
    add_json,
    add_table_files,
    count,
    deliver,
    deliver_files,
    input_size_of,
    sub_command,
)
from fine_edge.cli.target import ONNX_TARGET, Target
from fine_edge.errors import ConfigError
from fine_edge.estimate.calibration import PRECISIONS, Calibration, Precision, find_calibration, write_calibration
from fine_edge.estimate.device import DEFAULT, find_device, known_devices
from fine_edge.estimate.engine import engine_work, in_fp16, precision_of
from fine_edge.estimate.latency import Conditions, Estimate, estimate
from fine_edge.estimate.picture import write_estimate, write_sweep, write_validation
from fine_edge.estimate.published import fit_published
from fine_edge.estimate.records import GRAPH_HINT, TimingSource, calibrate_on_records
from fine_edge.estimate.tables import (
    MARK,
    constants_text,
    errors_table,
    estimate_table,
    kernels_table,
    notes,
    place,
    rows_table,
    write_published,
)
from fine_edge.estimate.validate import compile_tables, validate
from fine_edge.estimate.variants import AXES, BASELINE, DEFAULTS, MODEL, Variant, export_variant, variants
from fine_edge.graph.identity import identity_of
from fine_edge.graph.input_size import InputSize
from fine_edge.table import Column, Table

Export = Callable[[Variant, Path], Path]


def parser() -> argparse.ArgumentParser:
    """Return the parser of ``sweep``."""
    made = Parser(
        prog="fine-edge estimate sweep",
        description=f"Estimate {MODEL} with other choices in FINE; each is exported (needs torch) and compiled.",
    )
    made.add_argument(
        "--over", required=True, metavar="AXIS", help=f"{', '.join(AXES)}; width is that of the feed-forward"
    )
    usual = "; ".join(f"{axis}: {','.join(values)}" for axis, values in DEFAULTS.items())
    made.add_argument("--values", metavar="A,B,...", help=f"default: {usual}")
    add_conditions(made)
    folder = Path("engines/sweep")
    add_artifacts(made, folder, or_out=True)
    add_outputs(made, picture="PNG (default: among the artifacts)")
    return made


def sweep(argv: list[str], export: Export = export_variant) -> int:
    """Run ``sweep``; ``export`` writes the graph of one variant."""
    given = parser().parse_args(argv)
    chosen = variants(given.over, given.values)
    given.picture = given.picture or given.artifacts / f"sweep_{given.over}.png"
    files.refuse_unwritable([given.picture])
    at = read_conditions(given)
    # Each detector without FINE is estimated once, right before the variants that are compared with it.
    points = list(dict.fromkeys(point for variant in chosen for point in (variant.without_fine, variant)))
    found: dict[Variant, Estimate] = {}
    for number, point in enumerate(points, 1):
        console.remark(f"[{number}/{len(points)}] {point.label}")
        name = f"{MODEL if point.has_fine else BASELINE}, {point.label}"
        found[point] = estimate(engine_work(export(point, given.artifacts), at.device, name), at)
    title = f"{MODEL} over {given.over}"
    data = {"estimate": True, "title": title, "rows": [row.to_json() for row in found.values()]}
    deliver_all(given, data, [_table(title, found)], lambda path: write_sweep(title, found, path))
    return 0


def _table(title: str, found: Mapping[Variant, Estimate]) -> Table:
    first = next(iter(found.values()))
    columns = ["GFLOP", "Kernels", "Latency (ms)", "from", "to", "FPS", "FINE adds (ms)"]
    table = Table(
        f"{MARK}: {title}, on {place(first)}",
        [Column("Choice", numeric=False), *map(Column, columns)],
        notes=[
            *notes(first)[:2],
            "What FINE adds is the difference to the detector without it at the same input size.",
        ],
    )
    for point, row in found.items():
        times = (row.latency_ms, row.latency_ms_low, row.latency_ms_high)
        added_ms = row.latency_ms - found[point.without_fine].latency_ms
        table.add(
            point.label,
            f"{row.engine.graph_flops / 1e9:.2f}",
            len(row.kernels),
            *(f"{ms:.2f}" for ms in times),
            f"{row.fps:.1f}",
            f"{added_ms:+.2f}" if point.has_fine else None,
        )
    return table


def add_outputs(parser: argparse.ArgumentParser, picture: str = "also draw it (PNG)") -> None:
    """Add ``--json``, ``--csv``, ``--markdown`` and ``--picture``."""
    add_json(parser)
    add_explain(parser)
    add_table_files(parser, picture)


def deliver_all(
    given: argparse.Namespace, data: Mapping[str, Any], tables: Sequence[Table], draw: Callable[[Path], None]
) -> None:
    """Print tables or JSON, and write the files that were asked for, which hold the first table."""
    deliver(given, data, tables)
    deliver_files(given, tables[0], draw)


def calibrate(argv: list[str]) -> int:
    """Fit the constants to records, or without records to the latencies that others published."""
    parser = Parser(
        prog="fine-edge estimate calibrate",
        description="Fit the constants to latencies of a board: to your own TensorRT records and to logs of trtexec, or"
        " without any to those that others published of Orins, which come with the package.",
    )
    parser.add_argument(
        "records",
        nargs="*",
        type=TimingSource.parse,
        metavar="RECORD|LOG=FILE.onnx",
        help="of fine-edge bench --backend trt --json; a log of trtexec, or a record imported from one, with its graph",
    )
    parser.add_argument(
        "--graph",
        action="append",
        default=[],
        metavar="MODEL=FILE.onnx",
        help="the graph of a row of an imported record, by its model; may be repeated",
    )
    add_device(parser)
    add_artifacts(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the calibration")
    add_outputs(parser, picture="draw measured against estimated latencies (PNG; published ones alone)")
    given = parser.parse_args(argv)
    files.refuse_unwritable([given.out])
    device = find_device(given.device)
    mode = device.mode(given.mode)
    # The constants are rates at the mode's clocks: of another mode they would all be off.
    if given.records and not given.mode:
        raise ConfigError("say which mode the records were measured in", where="--mode", hint="--mode MAXN_SUPER")
    if given.records and given.picture:
        raise ConfigError("only published latencies are drawn", where="--picture", hint="leave the records out")
    if given.records:
        found = calibrate_on_records(
            given.records, device, mode, given.artifacts, find_calibration(device), _graphs(given.graph)
        )
        deliver_all(given, found.to_json(), [_calibration_table(found)], lambda _: None)
    else:
        fitted = fit_published()
        found = fitted.calibration()
        tables = [errors_table(fitted), rows_table(fitted)]
        deliver_all(given, found.to_json(), tables, lambda path: write_published(fitted, path))
    if given.out:
        write_calibration(found, given.out)
    return 0


def _graphs(pairs: Sequence[str]) -> dict[str, Path]:
    found = {}
    for pair in pairs:
        model, equals, path = pair.rpartition("=")
        if not model or not equals or not path:
            raise ConfigError(f"{pair} is no MODEL=FILE.onnx", where="--graph", hint=GRAPH_HINT)
        found[model] = Path(path)
    return found


def _calibration_table(found: Calibration) -> Table:
    columns = [Column("Row", numeric=False), Column("Error (%)"), Column("Error when left out (%)")]
    table = Table(f"Calibration of {', '.join(found.devices)}, {found.mode}, on {found.origin}", columns)
    for name, error in found.rows.items():
        table.add(name, f"{100 * error:+.1f}", f"{100 * found.left_out[name]:+.1f}")
    table.notes = [constants_text(found.constants)]
    return table


def validate_command(argv: list[str]) -> int:
    """Compare estimated with published FPS of Tables 1 and 3."""
    parser = Parser(
        prog="fine-edge estimate validate",
        description="Compare estimated with published FPS of the paper's Tables 1 and 3, which no constant is fitted"
        " to.",
    )
    add_board(parser)
    add_artifacts(parser, or_out=True)
    add_outputs(parser)
    validate_tables(parser.parse_args(argv))
    return 0


def validate_tables(given: argparse.Namespace) -> None:
    """Export, compile and estimate the models of Tables 1 and 3, and print them beside the published figures."""
    device = find_device(given.device)
    at = Conditions(device, device.mode(given.mode), find_calibration(device, given.calibration))
    found = validate(compile_tables(device, given.artifacts), at)
    deliver_all(given, found.to_json(), [found.table()], lambda path: write_validation(found, path))


def add_board(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``, ``--mode`` and ``--calibration``."""
    add_device(parser)
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="constants fitted to your own board")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device`` and ``--mode``."""
    names = ", ".join(known_devices())
    parser.add_argument("--device", default=DEFAULT, metavar="NAME|FILE", help=f"{names}, or a profile of your own")
    parser.add_argument("--mode", metavar="MODE", help="power mode (default: the device's fastest)")


def add_conditions(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`add_board` adds, and ``--no-cuda-graph``."""
    add_board(parser)
    parser.add_argument(
        "--cuda-graph",
        "--graph",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="kernels are replayed from a CUDA graph, or each is enqueued alone (default: replayed)",
    )


def read_conditions(given: argparse.Namespace, precision: Precision = "fp16") -> Conditions:
    """Return the board that was asked for.

    Raises:
        FineEdgeError: when there is no such device, mode or calibration.
    """
    device = find_device(given.device)
    calibration = find_calibration(device, given.calibration)
    return Conditions(device, device.mode(given.mode), calibration, precision, given.cuda_graph)


_COMMANDS = {"sweep": sweep, "calibrate": calibrate, "validate": validate_command}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="fine-edge estimate",
        description="ESTIMATE a model's latency on a board: NVIDIA's compiler, which runs here on a CPU, lists its"
        " kernels, and a roofline model gives their times on the board. Nothing is measured.",
        epilog="Also: sweep --over AXIS, calibrate RECORD..., validate; each with --help.",
    )
    parser.add_argument("target", metavar=ONNX_TARGET, help="a model of the zoo, which is exported, or an ONNX file")
    add_fine(parser)
    add_conditions(parser)
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="of the engine; an FP32 graph is converted as a builder would (default: fp16, with Q/DQ int8)",
    )
    add_input_size(parser, "a model, or of a graph whose input is dynamic")
    parser.add_argument(
        "--kernels", type=count, default=10, metavar="N", help="number of slowest kernels to list (default: 10)"
    )
    add_artifacts(parser, or_out=True)
    add_outputs(parser)
    return parser


def _estimate(given: argparse.Namespace) -> Estimate:
    at = read_conditions(given)
    target = Target.parse(given.target, given.fine)
    if target.model is None:
        path = target.onnx_path(given.artifacts)
        return _estimate_file(path, given.precision, at, input_size_of(given, path))
    # No graph yet: it is exported at this size.
    size = input_size_of(given, None)
    if size and size.batch != 1:
        raise ConfigError("a model is exported for one picture at a time", where="--batch", hint="give a FILE.onnx")
    # As engines are built by default; an INT8 estimate is that of the FP16 graph's kernels at INT8's rates.
    at = replace(at, precision=given.precision or "fp16")
    shape = (size.height, size.width) if size else (0, 0)
    path = export_row(SuiteRow(target.model), given.artifacts, shape, "fp32" if at.precision == "fp32" else "fp16")
    return estimate(engine_work(path, at.device, target.model), at)


def _estimate_file(path: Path, asked: Precision | None, at: Conditions, size: InputSize | None) -> Estimate:
    precision, converts = precision_of(path, asked)
    at = replace(at, precision=precision)
    if not converts:
        return estimate(engine_work(path, at.device, size=size), at)
    with tempfile.TemporaryDirectory() as folder:
        # The compiler takes types from the graph alone, so it is converted first, as a builder with its FP16 flag
        # would.
        work = engine_work(in_fp16(path, Path(folder), size), at.device, path.name)
    # The record names the file that was asked about, not the converted one, which is gone.
    return estimate(replace(work, onnx_sha256=identity_of(path)), at)


def main(argv: list[str]) -> int:
    """Run another command if named, else estimate; return the exit code."""
    if run := sub_command(argv, _COMMANDS):
        return run()
    given = _parser().parse_args(argv)
    found = _estimate(given)
    tables = [estimate_table(found), kernels_table(found, given.kernels)]
    deliver_all(given, found.to_json(), tables, lambda path: write_estimate(found, path))
    return 0
