"""Figures that others measured with trtexec, imported from its logs: medians and averages, never samples.

They are a record of their own kind, told by ``"backend": "trtexec"``, so that no ratio with an interval and no stamp is
made of them. What a log does not say is ``None``.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fine_edge.engine.platform import Platform
from fine_edge.errors import ConfigError, RecordError
from fine_edge.fields import Amount, Count, Positive, Sha256, Text, Whole, from_data, to_data
from fine_edge.files import contents_checked, require_format, sha256_of
from fine_edge.text import printable, printable_all
from fine_edge.trtexec.log import LogStatistic, RunAverages, TrtexecLog, flags_of, power_mode, power_mode_source
from fine_edge.trtexec.reading import read_trtexec_logs

BACKEND: Literal["trtexec"] = "trtexec"
FORMAT = 1
HINT = "import again: python -m fine_edge bench import LOG --json FILE"
# Names that many engines have; the folder tells them apart.
_COMMON_STEM = re.compile(r"(?:model|engine|network|best|last|output)\b.*|(?:model|engine)_.*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ImportedRow:
    """One run of trtexec or one build; ``None`` for what its log does not say.

    Attributes:
        model: of the engine's file; unique within the record.
        latency_ms: median of H2D + compute + D2H; ``None`` where the log's figure is not that.
        compute_ms: median time of the kernels.
        fps: queries per second, those of all streams together.
        activation_mib: of the execution context, or of the builder.
        weights_mib: inside the engine, by the builder.
        scratch_mib: the largest of a step, by the builder.
        persistent_mib: of the device beside it, by the builder.
        engine_mib: the plan.
        power_mode: of the board.
        power_mode_source: how it is known.
        tensorrt: release.
        precision: of the build options.
        platform: TensorRT and device.
        sms: multiprocessors of the device.
        memory_mib: of the device.
        inputs: shapes by name.
        batch: first dimension of the largest input.
        streams: inferences at a time.
        cuda_graph: whether inferences were replayed from a CUDA graph.
        spin_wait: whether the host spun while it waited.
        transfers: whether inputs and outputs were copied.
        queries: timed ones.
        warmup_ms: before them.
        walltime_s: of the timed queries.
        step_ms: smallest difference of two times at the run's end.
        aux_streams: auxiliary streams.
        steps: of the engine.
        build_s: of the engine.
        latency: as the log has it; ``None`` where it is no latency.
        compute: as the log has it.
        h2d: likewise; it may hold a wait, then a warning says so.
        d2h: likewise.
        enqueue: likewise.
        variance_percent: coefficient of variance of the compute time, where trtexec called it unstable.
        averages: over several queries each.
        warnings: ours, then trtexec's.
        command: of trtexec; empty for a log of the Python builder.
        log: name of the file.
        run: number of the run in it, from 1.
        artifact_sha256: of the log.
    """

    model: Text
    latency_ms: Positive | None
    compute_ms: Positive | None
    fps: Positive | None
    activation_mib: Amount | None
    weights_mib: Amount | None
    scratch_mib: Amount | None
    persistent_mib: Amount | None
    engine_mib: Amount | None
    power_mode: Text | None
    power_mode_source: Text | None
    tensorrt: Text | None
    precision: Text | None
    platform: Platform
    sms: Whole | None
    memory_mib: Whole | None
    inputs: dict[str, tuple[Whole, ...]]
    batch: Whole | None
    streams: Whole | None
    cuda_graph: bool | None
    spin_wait: bool | None
    transfers: bool | None
    queries: Whole | None
    warmup_ms: Amount | None
    walltime_s: Amount | None
    step_ms: Amount | None
    aux_streams: Whole | None
    steps: Whole | None
    build_s: Amount | None
    latency: LogStatistic | None
    compute: LogStatistic | None
    h2d: LogStatistic | None
    d2h: LogStatistic | None
    enqueue: LogStatistic | None
    variance_percent: Amount | None
    averages: RunAverages | None
    warnings: tuple[Text, ...]
    command: Text
    log: Text
    run: Count
    artifact_sha256: Sha256

    @property
    def is_timed(self) -> bool:
        """Return whether the row has times; that of a build has none."""
        return self.compute_ms is not None

    @property
    def is_unstable(self) -> bool:
        """Return whether one of our warnings says so."""
        return any(text.startswith("unstable") for text in self.warnings)


@dataclass(frozen=True, kw_only=True)
class ImportedRecord:
    """Imported rows in the order of their logs."""

    title: Text
    rows: tuple[ImportedRow, ...]
    backend: Literal["trtexec"] = BACKEND

    @property
    def timed(self) -> tuple[ImportedRow, ...]:
        """Return the rows that have times."""
        return tuple(row for row in self.rows if row.is_timed)

    @property
    def platform(self) -> Platform | None:
        """Return the platform of all rows; ``None`` where they differ."""
        first = self.rows[0].platform
        return first if all(row.platform == first for row in self.rows) else None

    def to_json(self) -> dict[str, Any]:
        """Return the record as a file holds it."""
        platform = to_data(self.platform) if self.platform else None
        return {"format": FORMAT, "backend": self.backend, "imported": True, "platform": platform, **to_data(self)}


def import_logs(paths: Sequence[Path], names: Sequence[str] = ()) -> ImportedRecord:
    """Return a row for every run in the logs.

    Args:
        paths: of logs.
        names: of the rows, in order; without them rows are named after the engine's file, or else the log's.

    Raises:
        RecordError: when a log cannot be read, failed or was cut.
        ConfigError: when there are not as many names as runs, or a name or log stands there twice.
    """
    runs = [(path, number, log) for path in paths for number, log in enumerate(_usable(path), 1)]
    if names and len(names) != len(runs):
        raise ConfigError(f"{len(names)} names for {len(runs)} runs", where="--name", hint="give one for each run")
    named = [printable(name) for name in names] or _own_names(runs)
    twice = [name for name, count in Counter(named).items() if count > 1]
    if twice:
        what = f"there is more than one {twice[0]}"
        raise ConfigError(what, where="--name" if names else "logs", hint="give each run a --name, each log once")
    hashes = {path: sha256_of(path) for path in paths}
    rows = tuple(_row(log, name, path, run, hashes[path]) for name, (path, run, log) in zip(named, runs, strict=True))
    more = f" and {len(hashes) - 1} more" if len(hashes) > 1 else ""
    return ImportedRecord(title=f"{printable(paths[0].name)}{more}", rows=rows)


def _usable(path: Path) -> tuple[TrtexecLog, ...]:
    found = read_trtexec_logs(path)
    for number, log in enumerate(found, 1):
        is_whole_build = log.is_build and (log.passed or not log.command)
        if log.why_untimed and not is_whole_build:
            run = f"run {number} of {len(found)} " if len(found) > 1 else ""
            raise RecordError(f"{run}{log.why_untimed}", where=path, hint="give a log of runs that ended with PASSED")
    return found


def _own_names(runs: Sequence[tuple[Path, int, TrtexecLog]]) -> list[str]:
    """Return the rows' names; those of the same engine are told apart by their logs and numbers."""
    names = [_engine_name(log) or path.stem for path, _, log in runs]
    for tell in (lambda path, _: path.stem, lambda _, number: f"run {number}"):
        count = Counter(names)
        names = [
            f"{name}, {tell(path, number)}" if count[name] > 1 else name
            for name, (path, number, _) in zip(names, runs, strict=True)
        ]
    return names


def _engine_name(log: TrtexecLog) -> str | None:
    """Return the stem of the engine or ONNX file, with its folder where many are called so."""
    flags = flags_of(log.command)
    file = flags.get("loadEngine") or flags.get("saveEngine") or flags.get("onnx")
    if not file:
        return None
    *folders, last = re.split(r"[/\\]", file)
    stem = re.sub(r"\.(?:engine|plan|trt|onnx|bin)$", "", last)
    return f"{folders[-1]}/{stem}" if folders and folders[-1] and _COMMON_STEM.fullmatch(stem) else stem or None


def _row(log: TrtexecLog, name: str, path: Path, run: int, sha256: str) -> ImportedRow:
    compute = log.compute if log.is_timed else None
    latency = log.latency if log.is_timed and log.latency_ms else None
    return ImportedRow(
        model=name,
        latency_ms=latency.median_ms if latency else None,
        compute_ms=compute.median_ms if compute else None,
        fps=log.throughput_qps,
        activation_mib=log.activation_mib,
        weights_mib=log.weights_mib,
        scratch_mib=log.scratch_mib,
        persistent_mib=log.persistent_mib,
        engine_mib=log.engine_mib,
        power_mode=power_mode(log),
        power_mode_source=power_mode_source(log),
        tensorrt=log.tensorrt,
        precision=log.precision,
        platform=Platform(tensorrt=log.tensorrt, gpu=log.gpu, sm=log.sm),
        sms=log.sms,
        memory_mib=log.memory_mib,
        inputs=log.inputs,
        batch=log.batch,
        streams=log.streams,
        cuda_graph=log.cuda_graph,
        spin_wait=log.spin_wait,
        transfers=log.transfers,
        queries=log.queries,
        warmup_ms=log.warmup_ms,
        walltime_s=log.walltime_s,
        step_ms=log.step_ms,
        aux_streams=log.aux_streams,
        steps=log.steps,
        build_s=log.build_s,
        latency=latency,
        compute=compute,
        h2d=log.h2d,
        d2h=log.d2h,
        enqueue=log.enqueue,
        variance_percent=log.variance_percent,
        averages=log.averages,
        warnings=(*_own_warnings(log), *log.warnings),
        command=log.command,
        log=printable(path.name),
        run=run,
        artifact_sha256=sha256,
    )


def _own_warnings(log: TrtexecLog) -> list[str]:
    found = [log.why_no_latency] if log.is_timed and log.why_no_latency else []
    if log.is_unstable:
        found.append(f"unstable: compute scatters by {log.variance_percent:g} % (coefficient of variance)")
    if log.streams and log.streams > 1:
        found.append(f"{log.streams} streams: FPS is of all of them together, a query waits for those of the others")
    if log.batch and log.batch > 1:
        found.append(f"batch {log.batch}: a query is {log.batch} pictures")
    return found


def parse_imported(data: Any, path: Path) -> ImportedRecord:
    """Return the imported record that a JSON document holds.

    Raises:
        RecordError: when it is broken, of another format, or contradicts itself.
    """
    with contents_checked(path, RecordError, title="record", hint=HINT):
        require_format(data, "imported record", FORMAT)
        record = from_data(ImportedRecord, printable_all(data), complete=True)
        _check(record)
    return record


def _check(record: ImportedRecord) -> None:
    names = [row.model for row in record.rows]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"rows must be named once each, found {names}")
    for row in record.rows:
        for name, stated, whole in (
            ("latency_ms", row.latency_ms, row.latency),
            ("compute_ms", row.compute_ms, row.compute),
        ):
            median_ms = whole.median_ms if whole else None
            if (stated is None) != (median_ms is None) or not math.isclose(stated or 0, median_ms or 0, rel_tol=1e-6):
                raise ValueError(f"{row.model}: {name} says {stated}, the log's line {median_ms}")
