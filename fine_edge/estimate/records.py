"""Calibrate on what a board took for engines: records of the bench, imported records, and logs of trtexec."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import TensorProto

from fine_edge.bench.imported import ImportedRecord, ImportedRow
from fine_edge.bench.paper import power_modes
from fine_edge.bench.record import Record
from fine_edge.bench.sources import Measurements, read_measurements
from fine_edge.errors import ArtifactError, ConfigError, RecordError
from fine_edge.estimate.calibration import Calibration
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.engine import EngineWork, engine_work
from fine_edge.estimate.least_squares import FitRow, Rows, fit, interval, left_out_errors, relative, rounded
from fine_edge.graph.identity import identity_of
from fine_edge.graph.model_file import read_model
from fine_edge.graph.view import GraphView, is_static
from fine_edge.samples import median

# Fewer rows say more of one network than of the board.
FEWEST_ROWS = 4


# What rows of one board in FP16 can tell; the start of the fit holds the others.
OWN_CONSTANTS = ("tensor_share", "memory_share", "gather_share", "kernel_clocks")


GRAPH_HINT = "name it: calibrate LOG=FILE.onnx, or --graph MODEL=FILE.onnx"


@dataclass(frozen=True)
class TimingSource:
    """A record or log, and the graph of the one row that it holds, where the file does not name it itself."""

    path: Path
    graph: Path | None = None

    @classmethod
    def parse(cls, text: str) -> TimingSource:
        """Return the source that ``FILE`` or ``FILE=GRAPH.onnx`` names."""
        path, equals, graph = text.rpartition("=")
        is_pair = equals and graph.endswith(".onnx") and not Path(text).exists()
        return cls(Path(path), Path(graph)) if is_pair else cls(Path(text))


@dataclass(frozen=True)
class _TimedModel:
    """A measured engine: its graph, the median times of kernels and, where they are known, of copies, and the call."""

    name: str
    graph: Path
    compute_ms: float
    copied_ms: float | None
    cuda_graph: bool


def calibrate_on_records(
    sources: Sequence[TimingSource],
    device: Device,
    mode: Mode,
    folder: Path,
    known: Calibration,
    graphs: Mapping[str, Path] | None = None,
) -> Calibration:
    """Fit the constants to GPU compute times.

    Args:
        sources: records and logs of one board in one power mode.
        device: the board's profile.
        mode: power mode of the records.
        folder: where the ONNX files of the bench's rows are, at any depth.
        known: a calibration whose constants hold where the rows say nothing of one.
        graphs: ONNX files of imported rows by model.

    Raises:
        RecordError: when a file holds no GPU compute times, or those of another mode or device.
        ArtifactError: when a row's ONNX file is not in the folder, or is not what the log is of.
        ConfigError: when an imported row's graph is not named, or there are too few rows.
    """
    found = [(source, read_measurements(source.path)) for source in sources]
    for source, record in found:
        _require_mode(record, device, mode, source.path)
    # Of a model that was measured twice the last row counts.
    models = {identity_of(model.graph): model for model in _timed_models(found, folder, graphs or {})}
    named = _told_apart(list(models.values()))
    if len(named) < FEWEST_ROWS:
        raise ConfigError(f"{len(named)} measured rows cannot tell how fast a board is", hint="measure more models")
    engines = [engine_work(model.graph, device, model.name) for model in named]
    measured = Rows(
        [
            FitRow(model.name, engine.works, model.compute_ms, device, mode, graph=model.cuda_graph)
            for model, engine in zip(named, engines, strict=True)
        ]
    )
    rates = [
        _copy_gb_s(model.copied_ms, engine)
        for model, engine in zip(named, engines, strict=True)
        if model.copied_ms is not None
    ]
    copy_gb_s = float(f"{median(rates):.4g}") if rates else known.constants.copy_gb_s
    start = replace(known.constants, copy_gb_s=copy_gb_s)
    constants = rounded(fit(measured, start, OWN_CONSTANTS, near=True))
    unseen = left_out_errors(measured, start, OWN_CONSTANTS, lambda row: row.name, near=True)
    names = [model.name for model in named]
    return Calibration(
        devices=(device.name,),
        mode=mode.name,
        constants=constants,
        origin=f"{_origin(found)} ({len(named)} models)",
        rows=dict(zip(names, relative(measured.errors(constants)), strict=True)),
        left_out=dict(zip(names, relative(unseen), strict=True)),
        compiler=engines[0].compiler,
        intervals={**known.intervals, "fp16": {device.family: interval(list(unseen))}},
    )


def _origin(found: Sequence[tuple[TimingSource, Measurements]]) -> str:
    own = [source.path.name for source, record in found if isinstance(record, Record)]
    others = [source.path.name for source, record in found if isinstance(record, ImportedRecord)]
    parts = [f"own records {', '.join(own)}"] if own else []
    parts += [f"trtexec's figures in {', '.join(others)}"] if others else []
    return " and ".join(parts)


def _require_mode(record: Measurements, device: Device, mode: Mode, path: Path) -> None:
    """Refuse rows that say that they are of another power mode or another kind of GPU."""
    if isinstance(record, ImportedRecord):
        modes = {row.power_mode for row in record.timed if row.power_mode}
        kinds = {f"sm_{row.platform.sm}" for row in record.timed if row.platform.sm}
    else:
        modes, kinds = set(power_modes(record)), set()
    if modes - {mode.name}:
        what = f"was measured in {', '.join(sorted(modes))}, not in {mode.name}"
        raise RecordError(what, where=path, hint="give the --mode that all of them were measured in")
    if kinds - {device.sm}:
        raise RecordError(
            f"is of {', '.join(sorted(kinds))}, {device.name} is {device.sm}", where=path, hint="--device"
        )


def _timed_models(
    found: Sequence[tuple[TimingSource, Measurements]], folder: Path, graphs: Mapping[str, Path]
) -> Iterator[_TimedModel]:
    artifacts = _by_identity(folder) if any(isinstance(record, Record) for _, record in found) else {}
    for source, record in found:
        if isinstance(record, Record):
            yield from _measured(record, source, artifacts, folder)
        else:
            yield from _imported(record, source, graphs)


def _measured(
    record: Record, source: TimingSource, artifacts: Mapping[str, Path], folder: Path
) -> Iterator[_TimedModel]:
    rows = [row for row in record.rows if row.compute_ms]
    if record.backend != "tensorrt" or record.estimate or not rows:
        what = f"holds no GPU times of TensorRT (backend {record.backend})"
        raise RecordError(
            what, where=source.path, hint="on the board: python -m fine_edge bench --backend trt --json FILE"
        )
    if source.graph:
        raise ConfigError("a record of the bench names its graphs by itself", where=source.path, hint="--artifacts DIR")
    for row in rows:
        if row.artifact_sha256 not in artifacts:
            raise ArtifactError(
                f"the ONNX file of {row.model} is not here (sha256 {row.artifact_sha256[:12]}...)",
                where=folder,
                hint="copy the board's engines folder here, or name it with --artifacts",
            )
        compute_ms = median(row.compute_ms or ())
        copied_ms = row.latency_ms - compute_ms
        yield _TimedModel(row.model, artifacts[row.artifact_sha256], compute_ms, copied_ms, record.cuda_graph)


def _imported(record: ImportedRecord, source: TimingSource, graphs: Mapping[str, Path]) -> Iterator[_TimedModel]:
    if not record.timed:
        raise RecordError("holds builds of engines and no times", where=source.path, hint="give logs of timed runs")
    if source.graph and len(record.timed) > 1:
        what = f"holds {len(record.timed)} runs, {source.graph.name} is the graph of one"
        raise ConfigError(what, where=source.path, hint="name each: --graph MODEL=FILE.onnx")
    for row in record.timed:
        graph = source.graph or graphs.get(row.model)
        if graph is None or row.compute_ms is None:
            what = f"does not say which graph {row.model} is of"
            raise ConfigError(what, where=source.path, hint=GRAPH_HINT)
        _require_same(row, graph, source.path)
        copied_ms = None if row.latency_ms is None else row.latency_ms - row.compute_ms
        yield _TimedModel(row.model, graph, row.compute_ms, copied_ms, row.cuda_graph is not False)


def _require_same(row: ImportedRow, graph: Path, where: Path) -> None:
    """Refuse a graph that the log cannot be of, as far as both tell, and times of several inferences at once."""
    if row.streams and row.streams > 1:
        raise RecordError(f"{row.model} is of {row.streams} inferences at a time", where=where, hint="--infStreams=1")
    view = GraphView(read_model(graph, weights=False), graph)
    for name, shape in row.inputs.items():
        there = view.shape(name)
        if there is not None and is_static(there) and tuple(there) != shape:
            what = f"input {name} is {_shape_text(there)}, the log of {row.model} is of {_shape_text(shape)}"
            raise ArtifactError(what, where=graph, hint="give the graph that the engine was built from")
    is_half = any(view.dtype(name) == TensorProto.FLOAT16 for node in view.nodes for name in node.output if name)
    if row.precision in ("fp16", "fp32") and is_half != (row.precision == "fp16"):
        what = f"computes in {'FP16' if is_half else 'FP32'}, the engine of {row.model} in {row.precision.upper()}"
        raise ArtifactError(what, where=graph, hint="python -m fine_edge graph fp16 FILE --out FILE writes it in FP16")


def _shape_text(shape: Sequence[object]) -> str:
    return "x".join(map(str, shape))


def _told_apart(models: list[_TimedModel]) -> list[_TimedModel]:
    """Return the models with names of their own: two graphs can be called alike in two files."""
    count = Counter(model.name for model in models)
    return [replace(model, name=f"{model.name}, {model.graph}") if count[model.name] > 1 else model for model in models]


def _by_identity(folder: Path) -> dict[str, Path]:
    """Return the ONNX files below a folder by identity; files that cannot be read are skipped."""
    found = {}
    for path in sorted(folder.rglob("*.onnx")):
        with contextlib.suppress(ArtifactError):
            found[identity_of(path)] = path
    return found


def _copy_gb_s(copied_ms: float, engine: EngineWork) -> float:
    """Return the rate of copies: bytes of inputs and outputs over the latency beyond the kernels' time."""
    # A record whose copies take no time cannot tell their rate; a microsecond keeps it finite.
    return engine.io_bytes / 1e6 / max(copied_ms, 1e-3)
