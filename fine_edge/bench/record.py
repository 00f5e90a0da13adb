"""A benchmark record: raw samples, the machine, and the artifacts' hashes. Every statistic is derived from it.

The JSON holds the derived figures too, for readers that want no code of ours; reading
checks them against the samples, so a record that was edited or cut is refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge import atomic
from fine_edge.bench import statistics
from fine_edge.bench.measure import HarnessCost
from fine_edge.bench.row import EngineFigures, Row, RowState, optional
from fine_edge.bench.statistics import Ratio
from fine_edge.errors import RecordError

__all__ = ["EngineFigures", "Record", "Row", "RowState", "read_record", "write_record"]

FORMAT = 2
"""Written. Format 1 lacks what came with TensorRT: platform, engine figures, machine state, compute and end-to-end."""
READABLE = (1, FORMAT)


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
        platform: :class:`fine_edge.engine.platform.Platform` as JSON; ``None`` where no TensorRT took part.
        cuda_graph: whether inferences were replayed from a CUDA graph.
        estimate: whether the samples were computed by a model instead of measured.
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
    platform: dict[str, Any] | None = None
    cuda_graph: bool = False
    estimate: bool = False

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
            "platform": self.platform,
            "cuda_graph": self.cuda_graph,
            "estimate": self.estimate,
            "harness": {
                **vars(self.harness),
                "percent_of_baseline": 100 * self.harness.worst_ms / self.baseline.latency_ms,
            },
            "rows": [self._row_json(row) for row in self.rows],
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        ratio = self.ratio(row)
        return {**row.to_json(), "ratio": ratio.value, "ratio_ci": [ratio.low, ratio.high]}


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
        if data["format"] not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise RecordError(f"record format {data['format']}, this version reads {known}", where=path, mend=mend)
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
        threads=optional(int, data["threads"]),
        quick=bool(data["quick"]),
        measured_at=str(data["measured_at"]),
        harness=HarnessCost(float(harness["latency_ms"]), float(harness["query_ms"])),
        rows=tuple(Row.from_json(row) for row in data["rows"]),
        platform=optional(dict, data.get("platform")),
        cuda_graph=bool(data.get("cuda_graph", False)),
        estimate=bool(data.get("estimate", False)),
    )


def _check(record: Record, data: dict[str, Any]) -> None:
    """Raise ``ValueError`` where the record contradicts itself."""
    names = [row.model for row in record.rows]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"rows must be named once each, found {names}")
    ends = {len(row.end_to_end_ms) for row in record.rows if row.end_to_end_ms is not None}
    if len(ends) > 1 or 0 in ends:
        raise ValueError(f"rows have {sorted(ends)} end-to-end samples, all need as many")
    for row, said in zip(record.rows, data["rows"], strict=True):
        _check_counts(row, record.rounds)
        derived = {
            "latency_ms": row.latency_ms,
            "fps": row.fps,
            "ratio": record.ratio(row).value,
            "compute_median_ms": row.compute_median_ms,
            "end_to_end_median_ms": row.end_to_end_median_ms,
        }
        for key, value in derived.items():
            if not _agree(said.get(key), value):
                raise ValueError(f"{row.model}: {key} says {said.get(key)}, the samples say {value}")


def _check_counts(row: Row, rounds: int) -> None:
    taken = {"": row.samples_ms, "compute ": row.compute_ms}
    for kind, samples in taken.items():
        if samples is not None and len(samples) != rounds:
            raise ValueError(f"{row.model} has {len(samples)} {kind}samples for {rounds} rounds")


def _agree(said: Any, derived: float | None) -> bool:
    if said is None or derived is None:
        return said is derived
    return math.isclose(float(said), derived, rel_tol=1e-6)
