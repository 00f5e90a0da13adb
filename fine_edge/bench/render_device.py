"""A record of TensorRT engines as a table: speed, the engine's own figures, and the paper's beside them."""

from __future__ import annotations

from collections.abc import Callable

from fine_edge.bench import statistics
from fine_edge.bench.columns import (
    RowColumn,
    accuracy_columns,
    model_columns,
    number,
    of_paper,
    paper_accuracy_columns,
    paper_ratio_columns,
    ratio_columns,
    text,
    to_rows,
)
from fine_edge.bench.notes import fps_ratio_note, group_notes, harness_note, ratio_note, weights_note, with_doubts
from fine_edge.bench.paper import (
    SOURCE,
    agreements,
    difference_percent,
    fps_ratio,
    obstacles,
    paper_fps_ratio,
    paper_latency_ratio,
)
from fine_edge.bench.record import EngineFigures, Record, Row
from fine_edge.bench.wording import title
from fine_edge.table import Column, Table


def device_table(record: Record) -> Table:
    """The table; columns that no row has a figure for are left out, except accuracy."""
    columns = [
        *model_columns(record),
        *_speed_columns(record),
        *_engine_columns(),
        *ratio_columns(record),
        *accuracy_columns(record),
        text("Stamp", _stamp),
        *_paper_columns(record),
    ]
    return to_rows(title(record), columns, record, _notes(record))


def _speed_columns(record: Record) -> list[RowColumn]:
    precisions = {row.precision or record.precision for row in record.rows}
    shown = [text("Precision", lambda row: row.precision or record.precision)] if len(precisions) > 1 else []
    return [
        *shown,
        number("FPS", 1, lambda row: row.fps),
        number("Latency (ms)", 2, lambda row: row.latency_ms),
        number("Latency p90 (ms)", 2, lambda row: statistics.percentile(row.samples_ms, 90)),
        number("Latency p99 (ms)", 2, lambda row: statistics.percentile(row.samples_ms, 99)),
        number("Compute (ms)", 2, lambda row: row.compute_median_ms),
        number("End-to-end (ms)", 2, lambda row: row.end_to_end_median_ms),
        number("Energy (mJ/image)", 1, lambda row: row.state.energy_mj_per_image if row.state else None),
    ]


def _engine_columns() -> list[RowColumn]:
    def of(value: Callable[[EngineFigures], float | None]) -> Callable[[Row], float | None]:
        return lambda row: value(row.engine) if row.engine else None

    return [
        number("Plan (MiB)", 1, of(lambda engine: engine.plan_mib)),
        number("Weights (MiB)", 1, of(lambda engine: engine.weights_mib)),
        number("Activation (MiB)", 2, of(lambda engine: engine.activation_mib)),
        number("Device delta (MiB)", 1, of(lambda engine: engine.device_delta_mib)),
        number("Host delta (MiB)", 1, of(lambda engine: engine.host_delta_mib)),
        number("Kernels", 0, of(lambda engine: engine.kernels)),
        number("Fused attentions", 0, of(lambda engine: engine.fused_attention)),
    ]


def _stamp(row: Row) -> str | None:
    return row.state.verdict.stamp if row.state else None


def _paper_columns(record: Record) -> list[RowColumn]:
    """The paper's figure, and how much more ours is where both mean the same."""
    same = not obstacles(record)

    def difference(name: str, ours: Callable[[Row], float | None], of: Callable[[Row], float | None]) -> RowColumn:
        def cell(row: Row) -> str | None:
            percent = difference_percent(ours(row), of(row)) if same else None
            return None if percent is None else f"{percent:+.1f}"

        return RowColumn(Column(f"{name}: difference (%)"), cell)

    def throughputs(row: Row) -> float | None:
        ratio = paper_fps_ratio(record, row)
        return ratio.value if ratio else None

    latency_ratio, throughput_ratio = paper_ratio_columns(record)
    return [
        number("Mem", 2, of_paper("mem_mb"), SOURCE),
        number("FPS", 0, of_paper("fps"), SOURCE),
        difference("FPS", lambda row: row.fps, of_paper("fps")),
        number("Latency (ms)", 2, of_paper("latency_ms"), SOURCE),
        difference("Latency", lambda row: row.latency_ms, of_paper("latency_ms")),
        latency_ratio,
        difference("Ratio", lambda row: record.ratio(row).value, lambda row: paper_latency_ratio(record, row)),
        throughput_ratio,
        difference("FPS ratio", lambda row: fps_ratio(record, row), throughputs),
        *paper_accuracy_columns(record),
    ]


def _notes(record: Record) -> list[str]:
    notes = [*_definitions(record), *group_notes(record), *_stamp_notes(record), *weights_note(record)]
    if any(row.paper for row in record.rows):
        notes.append(f"Columns marked {SOURCE}: Jetson Orin Nano, TensorRT 10.7, FP16, 640x640, power mode not named.")
        notes += [f"Against the paper, {column}: {said}." for column, said in agreements(record).items()]
        notes += fps_ratio_note(record)
    return with_doubts(record, notes)


def _definitions(record: Record) -> list[str]:
    graph = "replayed from a CUDA graph" if record.cuda_graph else "enqueued without a CUDA graph"
    return [
        f"Latency: median of {record.rounds} queries, input to the device + compute + outputs to the host, as trtexec"
        f" defines it; {graph}. Compute: the network's GPU time alone. End-to-end: decoded picture in memory to"
        " detections, preprocessing included, by wall clock, in rounds of its own.",
        ratio_note(record),
        "FPS: back-to-back queries / wall time, measured apart; the next query's input is copied while one computes."
        " Energy: of the whole module (VDD_IN) meanwhile. Batch 1.",
        "Plan: the file. Weights: inside the engine. Activation: device_memory_size_v2. Device delta: free memory"
        " before loading minus after the first run. Host delta: growth of the process. GPU and host share one memory"
        " here: none of them may be added. MiB = 2^20 bytes.",
        f"Images: {', '.join(record.images)}; the same one for all rows of a round; {record.measured_at}.",
        f"{harness_note(record)}'s latency.",
    ]


def _stamp_notes(record: Record) -> list[str]:
    """Each reason once, with the rows it holds for: what happened between rounds holds for all of them."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in record.rows:
        for reason in row.state.verdict.reasons if row.state else ():
            rows.setdefault((_stamp(row) or "", reason), []).append(row.model)
    return [
        f"{stamp}, {'all rows' if len(models) == len(record.rows) else ', '.join(models)}: {reason}."
        for (stamp, reason), models in rows.items()
    ]
