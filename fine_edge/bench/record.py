"""A benchmark record: raw samples, the machine, and the artifacts' hashes. Every statistic is derived from it.

The JSON holds the derived figures too, for readers that want no code of ours; reading
checks them against the samples, so a record that was edited or cut is refused.
"""

from __future__ import annotations

import functools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge import files, samples
from fine_edge.bench.measure import HarnessCost
from fine_edge.bench.row import EngineFigures, Row, RowState, Size
from fine_edge.errors import RecordError
from fine_edge.fields import Positive, Whole, from_data, to_data
from fine_edge.files import contents_checked, read_json, require_format
from fine_edge.samples import Ratio
from fine_edge.text import printable_all

__all__ = ["EngineFigures", "MeasuredGroup", "Record", "Row", "RowState", "read_record", "write_record"]

FORMAT = 3
HINT = "measure again: python -m fine_edge bench --json FILE"
# Bounds of FPS times latency in seconds, for a backend that runs one query after the other.
EQUAL_LOAD = (0.8, 1.25)
_WITHOUT_OVERLAP = "onnxruntime-cpu"
# A million samples of each of six rows.
MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class MeasuredGroup:
    """A group of rows that were loaded together and measured in the same rounds.

    Attributes:
        baseline: label of its first row.
        process_peak_mib: highest resident set of the measuring process while the group was loaded.
    """

    baseline: str
    process_peak_mib: Positive


@dataclass(frozen=True, kw_only=True)
class Record:
    """The rows of one measurement, group by group, and all that must be known to compare them with others.

    Attributes:
        suite: name of what was measured.
        title: of that, for people.
        backend: as the runner names itself.
        precision: of the artifacts.
        input_hw: height and width, pixels; ``None`` where the rows have unlike ones.
        machine: :func:`fine_edge.machine.describe`.
        images: names of the pictures, in the order of their rounds.
        rounds: samples per row; the fewest, where groups needed unlike numbers to be measured long enough.
        threads: asked of the backend; ``None``: its own default.
        quick: whether it was measured with few rounds, to try things out.
        measured_at: UTC, ISO 8601.
        platform: :class:`fine_edge.engine.platform.Platform` as JSON; ``None`` where no TensorRT took part.
        cuda_graph: whether inferences were replayed from a CUDA graph.
        estimate: whether the samples were computed by a model instead of measured.
        harness: what measuring itself costs.
        groups: in the order of measuring; empty in the oldest records, whose peaks were not measured.
        accuracy_data: the labelled data that accuracies are of; ``None`` where nothing was evaluated.
        rows: group by group, the baseline of each first.
    """

    suite: str
    title: str
    backend: str
    precision: str
    input_hw: Size | None
    machine: dict[str, Any]
    images: tuple[str, ...]
    rounds: Whole
    threads: Whole | None
    quick: bool
    measured_at: str
    platform: dict[str, Any] | None = None
    cuda_graph: bool = False
    estimate: bool = False
    harness: HarnessCost
    groups: tuple[MeasuredGroup, ...] = ()
    accuracy_data: str | None = None
    rows: tuple[Row, ...]

    @property
    def baselines(self) -> tuple[Row, ...]:
        """Return the rows that ratios refer to, one of each group."""
        return tuple(row for row in self.rows if self.is_baseline(row))

    @property
    def is_over_batches(self) -> bool:
        """Return whether the rows are one artifact at several batches."""
        return any(row.batch for row in self.rows)

    @property
    def is_grouped(self) -> bool:
        """Return whether there is more than one group."""
        return len(self.baselines) > 1

    def baseline_of(self, row: Row) -> Row:
        """Return the row that the ratio of a row refers to."""
        return next(other for other in self.rows if other.model == row.baseline)

    def is_baseline(self, row: Row) -> bool:
        """Return whether other rows are measured against this one."""
        return self.baseline_of(row).model == row.model

    def ratio(self, row: Row) -> Ratio:
        """Return the latency of a row relative to its baseline's, for each picture, paired by round."""
        base = self.baseline_of(row)
        found = _paired_ratio(row.samples_ms, base.samples_ms)
        share = base.images / row.images
        return found if share == 1 else Ratio(found.value * share, found.low * share, found.high * share)

    @property
    def harness_percent(self) -> float:
        """Return what measuring itself costs, in per cent of the fastest baseline's latency."""
        return 100 * self.harness.worst_ms / min(row.latency_ms for row in self.baselines)

    def warnings(self) -> list[str]:
        """Return a warning for every row whose figures scatter or were taken under unequal load."""
        found = (samples.stability_warning(row.model, row.samples_ms, self.ratio(row)) for row in self.rows)
        return [text for text in found if text] + self._load_warning()

    def warnings_in_short(self) -> list[str]:
        """Return one line for each kind of warning."""
        number = len(self.rows)
        unstable = sum(samples.is_unstable(row.samples_ms) for row in self.rows)
        compared = [row for row in self.rows if not self.is_baseline(row)]
        wide = sum(self.ratio(row).is_wide for row in compared)
        found = []
        if unstable:
            limit = f"{samples.UNSTABLE_SPREAD:.0%}".replace("%", " %")
            found.append(f"{unstable} of {number} rows scatter by more than {limit}: close other programs")
        if wide:
            limit = f"{samples.WIDE_INTERVAL:.0%}".replace("%", " %")
            found.append(f"{wide} of {len(compared)} ratios are not known to +-{limit}: take more --rounds")
        return found + self._load_warning()

    def _load_warning(self) -> list[str]:
        """Say where throughput and latency were taken while the machine was loaded differently.

        ONNX Runtime overlaps no queries, so FPS times latency is one second but for the loop around it.
        """
        if self.backend != _WITHOUT_OVERLAP:
            return []
        low, high = EQUAL_LOAD
        unequal = [row for row in self.rows if not low <= row.fps * row.image_ms / 1e3 <= high]
        if not unequal:
            return []
        worst = max(unequal, key=lambda row: abs(math.log(row.fps * row.image_ms / 1e3)))
        return [
            f"{len(unequal)} of {len(self.rows)} rows: FPS and latency are of unlike load"
            f" ({worst.fps:.2f} FPS, {worst.image_ms:.1f} ms): measure again"
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the record as a file holds it, derived figures included."""
        return {
            "format": FORMAT,
            **to_data(self),
            "harness": {**vars(self.harness), "percent_of_baseline": self.harness_percent},
            "rows": [self._row_json(row) for row in self.rows],
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        ratio = self.ratio(row)
        return {**row.to_json(), "ratio": ratio.value, "ratio_ci": [ratio.low, ratio.high]}


# Tables, pictures and checks ask for the same few ratios again and again, and a bootstrap takes a while.
_paired_ratio = functools.lru_cache(maxsize=128)(samples.paired_ratio)


def write_record(record: Record, path: Path) -> None:
    """Write a record's JSON, whole or not at all."""
    files.write_text(path, json.dumps(record.to_json(), indent=1) + "\n")


def read_record(path: Path) -> Record:
    """Read a record and check that its figures follow from its samples.

    Raises:
        RecordError: when it is missing, broken, of another format, or says what its samples do not.
    """
    return parse_record(read_json(path, RecordError, hint=HINT, limit=MOST_BYTES), path)


def parse_record(data: Any, path: Path) -> Record:
    """Return the record that a JSON document holds.

    Raises:
        RecordError: as :func:`read_record`, for a document out of the file ``path``.
    """
    if isinstance(data, dict) and data.get("estimate") and "backend" not in data:
        what = "holds estimates, which are never shown or compared as measurements"
        raise RecordError(what, where=path, hint="python -m fine_edge bench --backend predict")
    with contents_checked(path, RecordError, title="record", hint=HINT):
        require_format(data, "record", FORMAT)
        data = printable_all(data)
        record = from_data(Record, data, complete=True)
        check(record, data)
    return record


def check(record: Record, data: dict[str, Any]) -> None:
    """Raise ``ValueError`` where the record contradicts itself.

    Args:
        record: as it was read.
        data: the document that it was read from, with the derived figures.
    """
    if not isinstance(record.machine.get("libraries", {}), dict):
        raise ValueError("machine.libraries: expected object")
    names = [row.model for row in record.rows]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"rows must be named once each, found {names}")
    _check_groups(record, names)
    # Rows share their rounds, so that each has as many samples as the others.
    ends = {len(row.end_to_end_ms) for row in record.rows if row.end_to_end_ms is not None}
    if len(ends) > 1 or 0 in ends:
        raise ValueError(f"rows have {sorted(ends)} end-to-end samples, all need as many")
    for row, stated in zip(record.rows, data["rows"], strict=True):
        _check_counts(row, len(record.baseline_of(row).samples_ms))
        # A figure changed by hand would be quoted: each is computed again from the samples.
        derived = {
            "ap": row.ap,
            "latency_ms": row.latency_ms,
            "fps": row.fps,
            "ratio": record.ratio(row).value,
            "compute_median_ms": row.compute_median_ms,
            "end_to_end_median_ms": row.end_to_end_median_ms,
        }
        for key, value in derived.items():
            if not _agree(stated.get(key), value):
                raise ValueError(f"{row.model}: {key} says {stated.get(key)}, the samples say {value}")
        _check_stages(row, stated)


def _check_stages(row: Row, stated: dict[str, Any]) -> None:
    if row.end_to_end is None:
        return
    row.end_to_end.check()
    for key, value in row.end_to_end.derived.items():
        said = stated["end_to_end"].get(key)
        if not _agree(said, value):
            raise ValueError(f"{row.model}: end_to_end.{key} says {said}, the samples say {value}")


def _check_groups(record: Record, names: list[str]) -> None:
    for row in record.rows:
        if row.baseline not in names or not record.is_baseline(record.baseline_of(row)):
            raise ValueError(f"{row.model}: {row.baseline} is no baseline")
        if record.input_hw not in (None, row.input_hw):
            raise ValueError(f"{row.model}: input size {row.input_hw}, the record says {record.input_hw}")
    fewest = min(len(row.samples_ms) for row in record.rows)
    if fewest != record.rounds:
        raise ValueError(f"a row has {fewest} samples for {record.rounds} rounds")


def _check_counts(row: Row, rounds: int) -> None:
    taken = {"": row.samples_ms, "compute ": row.compute_ms}
    for kind, taken_ms in taken.items():
        if taken_ms is not None and len(taken_ms) != rounds:
            raise ValueError(f"{row.model} has {len(taken_ms)} {kind}samples for {rounds} rounds")


def _agree(stated: object, derived: float | None) -> bool:
    if stated is None or derived is None:
        return stated is derived
    if isinstance(stated, bool) or not isinstance(stated, int | float):
        return False
    return math.isclose(stated, derived, rel_tol=1e-6)
