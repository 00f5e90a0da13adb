"""``python -m fine_edge.bench``: measure a suite, show a record again, or compare two."""

from __future__ import annotations

import argparse
from pathlib import Path

from fine_edge import atomic, command, console
from fine_edge.bench import device, predict
from fine_edge.bench.accuracy import with_accuracy
from fine_edge.bench.backends import BACKENDS, QUICK_ROUNDS, ROUNDS
from fine_edge.bench.compare import compare
from fine_edge.bench.options import PRECISIONS, BenchOptions
from fine_edge.bench.picture import write_picture
from fine_edge.bench.record import Record, read_record, write_record
from fine_edge.bench.render import to_table
from fine_edge.bench.session import run_bench
from fine_edge.bench.suites import SUITES
from fine_edge.evaluate.known import read_evaluations
from fine_edge.export.request import parse_size
from fine_edge.table import Table

_STDOUT = Path("-")


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table as CSV")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table as Markdown")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="the latency overhead as PNG")
    parser.add_argument(
        "--evaluations",
        type=Path,
        default=Path("evaluations"),
        metavar="DIR",
        help="what fine_edge.evaluate wrote; accuracies are of the same file by sha256 (default: evaluations)",
    )


def _measure_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fine_edge.bench",
        description="Measure a suite of models against each other on real images, group by group.",
        epilog="Also: show RECORD (render it again), compare RECORD RECORD; each with --help. --backend predict and"
        " --suite validate-predictor ESTIMATE instead of measuring and have options of their own:"
        " --backend predict --help.",
    )
    parser.add_argument("--suite", default="table3", help=f"{', '.join(SUITES)} (default: table3)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="groups of the suite by their detector's name, such as 'yolo*'; can be given several times (default: all)",
    )
    parser.add_argument("--backend", default="ort", help=f"{', '.join(BACKENDS)}, {predict.BACKEND} (default: ort)")
    takes = "; ".join(f"{name}: {', '.join(known)}" for name, known in PRECISIONS.items())
    parser.add_argument("--precision", help=f"of the artifacts ({takes}; default: the first)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs (default: those of scikit-image)")
    length = parser.add_mutually_exclusive_group()
    on_device = f"{device.ROUNDS}, and at least {device.LATENCY_S:g} s of each model"
    length.add_argument(
        "--rounds", type=int, metavar="N", help=f"samples per model (default: ort {ROUNDS}; trt {on_device})"
    )
    length.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds: a look, nothing to quote")
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="of all inputs, pixels (default: each detector's own)")
    parser.add_argument("--threads", type=int, metavar="N", help="ort: of ONNX Runtime (default: its own choice)")
    parser.add_argument("--cuda-graph", action="store_true", help="trt: replay inferences from CUDA graphs")
    parser.add_argument("--spin", action="store_true", help="trt: burn a core while waiting for the GPU")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="trt: also write the time by layer, as trtexec --exportProfile"
    )
    parser.add_argument("--rtx", action="store_true", help="add TensorRT-RTX's memory of the FP16 graphs (extra rtx)")
    parser.add_argument(
        "--out", type=Path, default=Path("engines"), metavar="DIR", help="ONNX files and engines (default: engines)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record; - for standard output")
    _add_outputs(parser)
    return parser


def _measure(argv: list[str]) -> int:
    given = _measure_parser().parse_args(argv)
    options = BenchOptions(
        suite=given.suite,
        only=tuple(given.only),
        backend=given.backend,
        precision=given.precision,
        images=given.images,
        rounds=given.rounds,
        quick=given.quick,
        input_hw=parse_size(given.input_size),
        threads=given.threads,
        folder=given.out,
        rtx=given.rtx,
        cuda_graph=given.cuda_graph,
        spin=given.spin,
        profile=given.profile,
    )
    given.picture = given.picture or given.out / f"bench_{given.suite}.png"
    profile = given.profile / "x.profile.json" if given.profile else None
    files = [given.csv, given.markdown, given.picture, None if given.json == _STDOUT else given.json, profile]
    atomic.refuse_unwritable(files)
    evaluations = read_evaluations(given.evaluations)
    record = with_accuracy(run_bench(options), evaluations)
    if given.json and given.json != _STDOUT:
        write_record(record, given.json)
    _deliver(record, given, as_json=given.json == _STDOUT)
    return 0


def _show(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m fine_edge.bench show", description="Render a record again.")
    parser.add_argument("record", type=Path)
    _add_outputs(parser)
    given = parser.parse_args(argv)
    atomic.refuse_unwritable([given.csv, given.markdown, given.picture])
    _deliver(with_accuracy(read_record(given.record), read_evaluations(given.evaluations)), given)
    return 0


def _compare(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m fine_edge.bench compare", description="Ratios of two records.")
    parser.add_argument("a", type=Path, metavar="A.json")
    parser.add_argument("b", type=Path, metavar="B.json")
    given = parser.parse_args(argv)
    compare(read_record(given.a), read_record(given.b)).print(console.out)
    return 0


def _deliver(record: Record, given: argparse.Namespace, *, as_json: bool = False) -> None:
    """Table or JSON to standard output, and the files that were asked for."""
    table = to_table(record)
    if as_json:
        console.print_json(record.to_json())
        for text in record.warnings():  # which the table says in its notes
            console.warn(text)
    else:
        table.print(console.out)
    _write_tables(table, given)
    if given.picture:
        write_picture(record, given.picture)
        console.remark(f"picture: {given.picture}")


def _write_tables(table: Table, given: argparse.Namespace) -> None:
    if given.csv:
        atomic.write_text(given.csv, table.to_csv())
    if given.markdown:
        atomic.write_text(given.markdown, table.to_markdown())


def main(argv: list[str]) -> int:
    """``show`` and ``compare`` by name, estimates where they are asked for, measuring otherwise."""
    if argv[:1] == ["show"]:
        return _show(argv[1:])
    if argv[:1] == ["compare"]:
        return _compare(argv[1:])
    if predict.is_asked_for(argv):
        return predict.main(argv)
    return _measure(argv)


if __name__ == "__main__":
    command.run(main)
