"""A benchmark record: raw samples, the machine, and the artifacts' hashes. Every statistic is derived from it.

The JSON holds the derived figures too, for readers that want no code of ours; reading
checks them against the samples, so a record that was edited or cut is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fine_edge import atomic
from fine_edge.bench import statistics
from fine_edge.bench.measure import HarnessCost, Slice
from fine_edge.bench.memory import RtxMemory
from fine_edge.bench.statistics import Ratio
from fine_edge.errors import RecordError

FORMAT = 1
_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """One artifact's measurements.

    Attributes:
        model: unique within the record.
        attention: FINE's strategy, ``None`` without FINE.
        complexity: of the attention, as Table 3 prints it.
        params_m: parameters in millions, from the contract; ``None`` without one.
        flops_g: FLOPs in units of 10^9, from the contract; ``None`` without one.
        mem_mib: peak of a fresh ONNX Runtime process, see :mod:`fine_edge.bench.memory`.
        weights_mib: initialisers of the file.
        rtx: TensorRT-RTX's figures of the FP16 graph, where they were asked for.
        artifact_sha256: of the ONNX file.
        random_weights: whether the weights are random.
        samples_ms: latency by round.
        throughput: back-to-back slices.
        ap: COCO AP of the same artifact.
        paper: the paper's ``mem_mb``, ``fps``, ``latency_ms`` and ``ap``, where the row is one of its.
    """

    model: str
    attention: str | None
    complexity: str
    params_m: float | None
    flops_g: float | None
    mem_mib: float
    weights_mib: float
    rtx: RtxMemory | None
    artifact_sha256: str
    random_weights: bool
    samples_ms: tuple[float, ...]
    throughput: tuple[Slice, ...]
    ap: float | None = None
    paper: dict[str, float | None] | None = None

    @property
    def latency_ms(self) -> float:
        """Median over rounds."""
        return statistics.median(self.samples_ms)

    @property
    def fps(self) -> float:
        """Queries over wall time of all throughput slices."""
        return sum(part.queries for part in self.throughput) / sum(part.wall_s for part in self.throughput)

    @property
    def is_unstable(self) -> bool:
        """Whether the samples scatter too much."""
        return statistics.is_unstable(self.samples_ms)


@dataclass(frozen=True)
class Record:
    """Rows measured together, the baseline first, and all that must be known to compare them with others.

    Attributes:
        suite: name of what was measured.
        title: of that, for people.
        backend: as the runner names itself.
        precision: of the artifacts.
        input_hw: height and width, pixels.
        machine: :func:`fine_edge.machine.describe`.
        images: names of the pictures, in the order of their rounds.
        rounds: samples per row.
        threads: asked of the backend; ``None``: its own default.
        quick: whether this was a quick look.
        measured_at: UTC, ISO 8601.
        harness: what measuring itself costs.
        rows: the baseline first.
    """

    suite: str
    title: str
    backend: str
    precision: str
    input_hw: tuple[int, int]
    machine: dict[str, Any]
    images: tuple[str, ...]
    rounds: int
    threads: int | None
    quick: bool
    measured_at: str
    harness: HarnessCost
    rows: tuple[Row, ...]

    @property
    def baseline(self) -> Row:
        """What every ratio refers to."""
        return self.rows[0]

    def ratio(self, row: Row) -> Ratio:
        """Latency of a row relative to the baseline, paired by round."""
        return statistics.paired_ratio(row.samples_ms, self.baseline.samples_ms)

    def warnings(self) -> list[str]:
        """What is shaky in this record."""
        found = (statistics.stability_warning(row.model, row.samples_ms, self.ratio(row)) for row in self.rows)
        return [text for text in found if text]

    def to_json(self) -> dict[str, Any]:
        """As it stands in a file, derived figures included."""
        return {
            "format": FORMAT,
            "suite": self.suite,
            "title": self.title,
            "backend": self.backend,
            "precision": self.precision,
            "input_hw": list(self.input_hw),
            "machine": self.machine,
            "images": list(self.images),
            "rounds": self.rounds,
            "threads": self.threads,
            "quick": self.quick,
            "measured_at": self.measured_at,
            "harness": {
                **vars(self.harness),
                "percent_of_baseline": 100 * self.harness.worst_ms / self.baseline.latency_ms,
            },
            "rows": [self._row_json(row) for row in self.rows],
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        ratio = self.ratio(row)
        return {
            **vars(row),
            "rtx": vars(row.rtx) if row.rtx else None,
            "fps": row.fps,
            "latency_ms": row.latency_ms,
            "latency_p90_ms": statistics.percentile(row.samples_ms, 90),
            "latency_p99_ms": statistics.percentile(row.samples_ms, 99),
            "ratio": ratio.value,
            "ratio_ci": [ratio.low, ratio.high],
            "unstable": row.is_unstable,
            "samples_ms": list(row.samples_ms),
            "throughput": [vars(part) for part in row.throughput],
        }


def write_record(record: Record, path: Path) -> None:
    """Write a record's JSON, whole or not at all."""
    atomic.write_text(path, json.dumps(record.to_json(), indent=1) + "\n")


def read_record(path: Path) -> Record:
    """Read a record and check that its figures follow from its samples.

    Raises:
        RecordError: when it is missing, broken, of another format, or says what its samples do not.
    """
    mend = "measure again: python -m fine_edge.bench --json FILE"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise RecordError(f"record format {data['format']}, this version reads {FORMAT}", where=path, mend=mend)
        record = _record_from(data)
        _check(record, data)
    except OSError as error:
        raise RecordError(f"cannot be read ({error.strerror})", where=path, mend=mend) from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RecursionError) as error:
        raise RecordError(f"the record is broken ({type(error).__name__}: {error})", where=path, mend=mend) from error
    return record


def _record_from(data: dict[str, Any]) -> Record:
    height, width = data["input_hw"]
    harness = data["harness"]
    return Record(
        suite=str(data["suite"]),
        title=str(data["title"]),
        backend=str(data["backend"]),
        precision=str(data["precision"]),
        input_hw=(int(height), int(width)),
        machine=dict(data["machine"]),
        images=tuple(str(name) for name in data["images"]),
        rounds=int(data["rounds"]),
        threads=_optional(int, data["threads"]),
        quick=bool(data["quick"]),
        measured_at=str(data["measured_at"]),
        harness=HarnessCost(float(harness["latency_ms"]), float(harness["query_ms"])),
        rows=tuple(_row_from(row) for row in data["rows"]),
    )


def _row_from(data: dict[str, Any]) -> Row:
    rtx = data["rtx"]
    paper = data["paper"]
    return Row(
        model=str(data["model"]),
        attention=_optional(str, data["attention"]),
        complexity=str(data["complexity"]),
        params_m=_optional(float, data["params_m"]),
        flops_g=_optional(float, data["flops_g"]),
        mem_mib=float(data["mem_mib"]),
        weights_mib=float(data["weights_mib"]),
        rtx=RtxMemory(float(rtx["activation_mib"]), float(rtx["weights_mib"])) if rtx else None,
        artifact_sha256=str(data["artifact_sha256"]),
        random_weights=bool(data["random_weights"]),
        samples_ms=tuple(_positive(sample) for sample in data["samples_ms"]),
        throughput=tuple(Slice(int(_positive(p["queries"])), _positive(p["wall_s"])) for p in data["throughput"]),
        ap=_optional(float, data["ap"]),
        paper={str(key): _optional(float, value) for key, value in paper.items()} if paper else None,
    )


def _optional(kind: Callable[[Any], _T], value: Any) -> _T | None:
    return None if value is None else kind(value)


def _positive(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{value} is no duration or count")
    return number


def _check(record: Record, data: dict[str, Any]) -> None:
    """Raise ``ValueError`` where the record contradicts itself."""
    names = [row.model for row in record.rows]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"rows must be named once each, found {names}")
    for row, said in zip(record.rows, data["rows"], strict=True):
        if len(row.samples_ms) != record.rounds:
            raise ValueError(f"{row.model} has {len(row.samples_ms)} samples for {record.rounds} rounds")
        for key, derived in (("latency_ms", row.latency_ms), ("fps", row.fps), ("ratio", record.ratio(row).value)):
            if not math.isclose(float(said[key]), derived, rel_tol=1e-6):
                raise ValueError(f"{row.model}: {key} says {said[key]}, the samples say {derived:.6g}")
