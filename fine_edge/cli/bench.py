"""``fine-edge bench``: measure a suite, what is named, or one artifact at several batches; import, show, compare."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from fine_edge import console, files
from fine_edge.bench import device
from fine_edge.bench.backends import BACKENDS, ESTIMATES, PRECISIONS, QUICK_ROUNDS, ROUNDS, BenchOptions
from fine_edge.bench.batches import SUITE, parse_batches, run_batches
from fine_edge.bench.compare import compare_any
from fine_edge.bench.imported import ImportedRecord
from fine_edge.bench.imported_table import imported_table, write_imported_picture
from fine_edge.bench.named import labels, run_named
from fine_edge.bench.picture import write_picture, write_stages
from fine_edge.bench.record import Record
from fine_edge.bench.row import Row
from fine_edge.bench.session import run_bench
from fine_edge.bench.sources import read_logs, read_measurements
from fine_edge.bench.suites import DEFAULT_SUITE, SUITES, find
from fine_edge.bench.table import to_table
from fine_edge.cli.arguments import (
    STDOUT,
    Parser,
    add_artifacts,
    add_explain,
    add_json,
    add_table_files,
    deliver,
    deliver_files,
    sub_command,
)
from fine_edge.cli.estimate import add_conditions, add_outputs, deliver_all, read_conditions, validate_tables
from fine_edge.cli.target import ANY_TARGET, Target
from fine_edge.engine.build import ensure_engine
from fine_edge.engine.options import EnginePrecision, read_recipe
from fine_edge.engine.source import graph_precision, model_of
from fine_edge.errors import ConfigError
from fine_edge.estimate.picture import write_suite
from fine_edge.estimate.tables import suite_table
from fine_edge.estimate.validate import estimate_suite, timed_rows
from fine_edge.evaluate.evaluation import PastEvaluation, of_one_data_set, read_evaluations
from fine_edge.export.request import parse_frame, parse_size

# ``fine-edge bench TARGET --batches 1,2,4,8``: one artifact at several batches.

# Of all backends, each once and in their order; which backend takes which is checked when both are known.
_ALL_PRECISIONS = tuple(dict.fromkeys(name for names in PRECISIONS.values() for name in names))


def wants_batches(argv: list[str]) -> bool:
    """Return whether the command line asks for batches."""
    return any(word.partition("=")[0] == "--batches" for word in argv)


def make_batches_parser() -> argparse.ArgumentParser:
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
    # One export serves all batches that are measured. Its optimum is the largest, as where an export names none.
    asked |= {"batch": batches[-1], "batches": (batches[0], batches[-1], batches[-1])}
    return target.onnx_path(given.artifacts, **asked)


def _file(target: Target, options: BenchOptions, given: argparse.Namespace) -> Path:
    """Return the file to measure: the one that was named, or one that is exported and built of it."""
    if target.engine:
        return target.engine
    path = onnx_file(target, options, given)
    if options.backend == "ort":
        return path
    # The same options as engine build, so that an engine that is there is measured and not another one built.
    recipe = read_recipe(model_of(path), given.artifacts)
    return ensure_engine(path, replace(recipe, precision=options.chosen_precision), given.artifacts)


def read_batch_options(given: argparse.Namespace, target: Target) -> BenchOptions:
    """Return how to measure.

    Raises:
        ConfigError: for options that contradict each other or the target.
    """
    if target.engine and given.backend == "ort":
        raise ConfigError("an engine runs in TensorRT", where="--backend", hint="leave it out")
    # With trt a precision is the engine's, which is built here; an FP32 file can become several.
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
    given = make_batches_parser().parse_args(argv)
    batches, target = parse_batches(given.batches), Target.parse(given.target)
    options = read_batch_options(given, target)
    # Refused here, before minutes of measuring.
    given.picture = given.picture or given.artifacts / f"bench_{SUITE}.png"
    files.refuse_unwritable([given.picture])
    return run_batches(_file(target, options, given), batches, options), given


# ``fine-edge bench TARGET...``: what was named, as files that can be measured.


@dataclass(frozen=True)
class NamedTargets:
    """What was named on the command line, in order."""

    targets: tuple[Target, ...]

    @classmethod
    def parse(cls, given: argparse.Namespace) -> NamedTargets:
        """Read the targets, and refuse options that have no effect on them.

        Raises:
            ConfigError: for an option of suites or of models alone, or an engine where ONNX Runtime is asked for.
            UnknownModelError: when one is neither a file nor a model.
        """
        targets = tuple(Target.parse(text) for text in given.targets)
        of_suites = {"--suite": given.suite is not None, "--only": bool(given.only), "--rtx": given.rtx}
        of_models = {"--precision": given.precision is not None, "--frame": given.frame is not None}
        # One model among the targets is enough for its options to have an effect.
        unused = of_suites if any(target.model for target in targets) else of_suites | of_models
        for option, is_given in unused.items():
            if is_given:
                what = "is of a suite" if option in of_suites else "is of a MODEL; a file has its own"
                raise ConfigError(what, where=option, hint="leave it out")
        engine = next((target.engine for target in targets if target.engine), None)
        if engine and given.backend not in (None, "trt"):
            raise ConfigError("an engine runs in TensorRT", where=engine, hint="--backend trt, or its ONNX file")
        if given.picture and len(targets) < 2 and not given.end_to_end:
            what = "the picture compares targets, and one is named"
            raise ConfigError(what, where="--picture", hint="name two, or draw its stages with --end-to-end")
        return cls(targets)

    @property
    def backend(self) -> str:
        """The backend that runs them unless another is asked for."""
        # An engine runs in nothing else, and all targets share one backend and its rounds.
        return "trt" if any(target.engine for target in self.targets) else "ort"

    def files(self, options: BenchOptions) -> tuple[list[Path], list[str]]:
        """Return the files and what tables call them; those of models are exported unless they are there.

        Raises:
            ConfigError: when something is named twice.
            ArtifactError: when a model cannot be exported.
        """
        height, width = options.input_hw
        asked: dict[str, Any] = {"precision": options.onnx_precision, "frame": options.frame}
        asked |= {"height": height, "width": width}
        paths = [target.engine or target.onnx_path(options.folder, **asked) for target in self.targets]
        # Files get names that tell them apart, models keep their own.
        named = labels(paths)
        return paths, [target.model or name for target, name in zip(self.targets, named, strict=True)]


def _timed_sha256(row: Row) -> str:
    """Return the hash of the file that ran: an engine can compute otherwise than the ONNX file it was built from."""
    return row.engine.engine_sha256 if row.engine else row.artifact_sha256


def with_accuracy(record: Record, evaluations: Iterable[PastEvaluation]) -> Record:
    """Return the record with the accuracy of every row that was evaluated, by sha256; other rows stay as they are."""
    found = of_one_data_set(evaluations, {_timed_sha256(row) for row in record.rows})
    # One artifact at several batches: each row would say the same.
    if not found or record.is_over_batches:  # which leaves the accuracy as it is
        return record
    rows = tuple(
        replace(row, accuracy=found[_timed_sha256(row)].figures) if _timed_sha256(row) in found else row
        for row in record.rows
    )
    some = next(iter(found.values()))
    return replace(record, rows=rows, accuracy_data=f"{some.data} ({some.images} images)")


VALIDATION = "validate-predictor"
_PICTURE = "the latency overhead as PNG; the stages, where --end-to-end measured them"


def _wants_estimates(argv: Sequence[str]) -> bool:
    # Before any parser: "--backend predict" and "--backend=predict" alike choose which parser reads the rest.
    words = " ".join(argv).replace("=", " ").split()
    pairs = list(itertools.pairwise(words))
    return ("--backend", ESTIMATES) in pairs or ("--suite", VALIDATION) in pairs


def _estimate_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"fine-edge bench --backend {ESTIMATES}",
        description="ESTIMATE a suite's latencies on a board that is not here; nothing is measured.",
    )
    parser.add_argument("--backend", default=ESTIMATES, choices=[ESTIMATES], help="this one")
    parser.add_argument(
        "--suite", default="table3", help=f"{', '.join(SUITES)}; {VALIDATION}: against the paper's Tables 1 and 3"
    )
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="groups, such as 'yolo*'")
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="of all inputs, pixels (default: each detector's own)")
    add_conditions(parser)
    add_artifacts(parser, or_out=True)
    add_outputs(parser)
    return parser


def _estimate(argv: list[str]) -> int:
    given = _estimate_parser().parse_args(argv)
    if given.suite == VALIDATION:
        # Published figures are of these tables as they are.
        if given.only or given.input_size:
            raise ConfigError("the whole of Tables 1 and 3 at 640x640 is compared", where="--only, --input-size")
        validate_tables(given)
        return 0
    at = read_conditions(given)
    size = parse_size(given.input_size)
    record = estimate_suite(given.suite, at, given.artifacts, given.only, size)
    # The paper's figures are of one size.
    published = {} if any(size) else {row.model: row for row in timed_rows(find(given.suite).paper_table)}
    table = suite_table(record.title, record.rows, published)
    deliver_all(given, record.to_json(), [table], lambda path: write_suite(record.title, record.rows, published, path))
    return 0


def _add_evaluations(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--evaluations",
        type=Path,
        default=Path("evaluations"),
        metavar="DIR",
        help="what fine-edge evaluate wrote; accuracies are of the same file by sha256 (default: evaluations)",
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of a measurement."""
    parser = Parser(
        prog="fine-edge bench",
        description="Measure files, models, or a suite of models against each other on real images. The first file, or"
        " the first model of each group, is the baseline.",
        epilog="A FILE without a contract is measured on pictures stretched to its input, or on noise."
        " Also: show RECORD (render it again), compare RECORD RECORD, import LOG (of trtexec); each with --help."
        " Where a RECORD is asked for, a log of trtexec will do. --backend predict and --suite validate-predictor"
        " ESTIMATE instead of measuring and have options of their own: --backend predict --help; so has one artifact at"
        " several batches: MODEL|FILE --batches 1,2,4,8 --help.",
    )
    parser.add_argument("targets", nargs="*", metavar=ANY_TARGET, help="what to measure, in the place of a suite")
    parser.add_argument("--suite", help=f"{', '.join(SUITES)} (default: {DEFAULT_SUITE})")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="groups of the suite by their detector's name, such as 'yolo*'; can be given several times (default: all)",
    )
    parser.add_argument(
        "--backend", help=f"{', '.join(BACKENDS)}, {ESTIMATES} (default: ort; trt where an engine is named)"
    )
    takes = "; ".join(f"{name}: {', '.join(precisions)}" for name, precisions in PRECISIONS.items())
    parser.add_argument("--precision", help=f"of models; a file has its own ({takes}; default: the first)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs (default: those of scikit-image)")
    length = parser.add_mutually_exclusive_group()
    on_device = f"{device.ROUNDS}, and at least {device.LATENCY_S:g} s of each model"
    length.add_argument(
        "--rounds", type=int, metavar="N", help=f"samples per model (default: ort {ROUNDS}; trt {on_device})"
    )
    length.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds: too few to quote")
    parser.add_argument(
        "--end-to-end", action="store_true", help="also the stages from a JPEG in memory to detections, and their FPS"
    )
    parser.add_argument("--input-size", metavar="SIDE|HxW", help="of all inputs, pixels (default: each detector's own)")
    parser.add_argument(
        "--frame", metavar="HxW", help="measure graphs that take frames of this size and preprocess them themselves"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="ort: of ONNX Runtime (default: its own choice)")
    parser.add_argument("--cuda-graph", action="store_true", help="trt: replay inferences from CUDA graphs")
    parser.add_argument("--spin", action="store_true", help="trt: burn a core while waiting for the GPU")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="trt: also write the time by layer, as trtexec --exportProfile"
    )
    parser.add_argument("--rtx", action="store_true", help="add TensorRT-RTX's memory of the FP16 graphs (extra rtx)")
    add_artifacts(parser, or_out=True)
    add_json(parser)
    add_explain(parser)
    add_table_files(parser, _PICTURE)
    _add_evaluations(parser)
    return parser


def read_options(given: argparse.Namespace, backend: str) -> BenchOptions:
    """Return how to measure."""
    return BenchOptions(
        suite=given.suite or DEFAULT_SUITE,
        only=tuple(given.only),
        backend=given.backend or backend,
        precision=given.precision,
        images=given.images,
        rounds=given.rounds,
        quick=given.quick,
        end_to_end=given.end_to_end,
        input_hw=parse_size(given.input_size),
        frame=None if given.frame is None else parse_frame(given.frame),
        threads=given.threads,
        folder=given.artifacts,
        rtx=given.rtx,
        cuda_graph=given.cuda_graph,
        spin=given.spin,
        profile=given.profile,
    )


def _measure(argv: list[str]) -> int:
    # parse_args takes targets in one piece alone: of "a.onnx --quick b.onnx" it would refuse b.onnx.
    given = make_parser().parse_intermixed_args(argv)
    named = NamedTargets.parse(given) if given.targets else None
    options = read_options(given, named.backend if named else "ort")
    if named is None:
        given.picture = given.picture or given.artifacts / f"bench_{options.suite}.png"
    # A folder: that a file can be written into it is tried with a name of that form.
    profile = given.profile / "x.profile.json" if given.profile else None
    files.refuse_unwritable([given.picture, profile])
    # Before the measurement, which a broken evaluation would otherwise throw away.
    evaluations = read_evaluations(given.evaluations)
    record = run_named(*named.files(options), options) if named else run_bench(options)
    _deliver(with_accuracy(record, evaluations), given)
    return 0


def _show(argv: list[str]) -> int:
    parser = Parser(prog="fine-edge bench show", description="Render a record again, or a log of trtexec.")
    parser.add_argument("record", type=Path, metavar="RECORD|LOG")
    add_json(parser)
    add_explain(parser)
    add_table_files(parser, _PICTURE)
    _add_evaluations(parser)
    given = parser.parse_args(argv)
    found = read_measurements(given.record)
    if isinstance(found, ImportedRecord):
        _deliver_imported(found, given)
    else:
        _deliver(with_accuracy(found, read_evaluations(given.evaluations)), given)
    return 0


def _compare(argv: list[str]) -> int:
    parser = Parser(prog="fine-edge bench compare", description="Ratios of two records, or of logs of trtexec.")
    parser.add_argument("a", type=Path, metavar="A", help="record or log of trtexec")
    parser.add_argument("b", type=Path, metavar="B", help="record or log of trtexec")
    add_json(parser)
    given = parser.parse_args(argv)
    found = compare_any(read_measurements(given.a), read_measurements(given.b))
    deliver(given, found.to_json(), [found.table])
    return 0


def _import(argv: list[str]) -> int:
    parser = Parser(
        prog="fine-edge bench import",
        description="Import logs of trtexec (8.6 to 10.16), or of TensorRT's Python builder, as a record.",
    )
    parser.add_argument("logs", nargs="+", type=Path, metavar="LOG", help="what trtexec printed")
    parser.add_argument(
        "--name", action="append", default=[], help="of a run, in order; repeat it (default: the engine's file)"
    )
    add_json(parser)
    add_explain(parser)
    add_table_files(parser, "what a query takes, as PNG")
    given = parser.parse_args(argv)
    _deliver_imported(read_logs(given.logs, given.name), given)
    return 0


def _deliver_imported(record: ImportedRecord, given: argparse.Namespace) -> None:
    table = imported_table(record)
    deliver(given, record.to_json(), [table])
    if given.json == STDOUT:
        # Standard output is JSON alone; the table's warnings go to standard error.
        for text in table.brief or ():
            console.warn(text)
    deliver_files(given, table, lambda path: write_imported_picture(record, path))


def _deliver(record: Record, given: argparse.Namespace) -> None:
    """Print the table or JSON, and write the files that were asked for."""
    table = to_table(record)
    deliver(given, record.to_json(), [table])
    if given.json == STDOUT:
        for text in record.warnings_in_short():  # which the table says in its notes
            console.warn(text)
    draw = write_stages if any(row.end_to_end for row in record.rows) else write_picture
    deliver_files(given, table, lambda path: draw(record, path))


def main(argv: list[str]) -> int:
    """Run ``show``, ``compare`` or ``import`` by name, estimate or go over batches where asked for, else measure."""
    if run := sub_command(argv, {"show": _show, "compare": _compare, "import": _import}):
        return run()
    # A parser of its own: most options of suites mean nothing for one artifact over batches.
    if wants_batches(argv):
        _deliver(*measure_batches(argv))
        return 0
    return _estimate(argv) if _wants_estimates(argv) else _measure(argv)
