"""A record of TensorRT engines as a table: Table 3's columns, the engine's own figures, and the paper's beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fine_edge.bench import statistics
from fine_edge.bench.paper import SOURCE, agreements, difference_percent, obstacles, paper_ratio
from fine_edge.bench.record import EngineFigures, Record, Row
from fine_edge.bench.wording import attention_title, fixed, title
from fine_edge.table import Column, Table

_Cell = Callable[[Row], str | None]


@dataclass(frozen=True)
class _DeviceColumn:
    column: Column
    cell: _Cell


def device_table(record: Record) -> Table:
    """The table; columns that no row has a figure for are left out, except AP."""
    columns = [_text("Model", lambda row: row.model), *_model_columns(), *_speed_columns(record)]
    columns += [*_engine_columns(), *_ratio_columns(record)]
    columns.append(_text("Stamp", _stamp))
    if any(row.paper for row in record.rows):
        columns += _paper_columns(record)
    shown = [c for c in columns if c.column.title == "AP" or any(c.cell(row) is not None for row in record.rows)]
    table = Table(title(record), [c.column for c in shown], notes=_notes(record))
    for row in record.rows:
        table.add(*(c.cell(row) for c in shown))
    return table


def _text(name: str, cell: _Cell) -> _DeviceColumn:
    return _DeviceColumn(Column(name, numeric=False), cell)


def _number(name: str, digits: int, value: Callable[[Row], float | None], source: str = "") -> _DeviceColumn:
    return _DeviceColumn(Column(name, source=source), lambda row: fixed(value(row), digits))


def _model_columns() -> list[_DeviceColumn]:
    return [
        _text("Attention", lambda row: attention_title(row.attention)),
        _text("Complexity", lambda row: row.complexity),
        _number("#Params (M)", 1, lambda row: row.params_m),
        _number("FLOPs (G)", 2, lambda row: row.flops_g),
    ]


def _speed_columns(record: Record) -> list[_DeviceColumn]:
    precisions = {row.precision or record.precision for row in record.rows}
    shown = [_text("Precision", lambda row: row.precision or record.precision)] if len(precisions) > 1 else []
    return [
        *shown,
        _number("FPS", 1, lambda row: row.fps),
        _number("Latency (ms)", 2, lambda row: row.latency_ms),
        _number("Latency p90 (ms)", 2, lambda row: statistics.percentile(row.samples_ms, 90)),
        _number("Latency p99 (ms)", 2, lambda row: statistics.percentile(row.samples_ms, 99)),
        _number("Compute (ms)", 2, lambda row: row.compute_median_ms),
        _number("End-to-end (ms)", 2, lambda row: row.end_to_end_median_ms),
        _number("Energy (mJ/image)", 1, lambda row: row.state.energy_mj_per_image if row.state else None),
    ]


def _engine_columns() -> list[_DeviceColumn]:
    def of(value: Callable[[EngineFigures], float | None]) -> Callable[[Row], float | None]:
        return lambda row: value(row.engine) if row.engine else None

    return [
        _number("Plan (MiB)", 1, of(lambda engine: engine.plan_mib)),
        _number("Weights (MiB)", 1, of(lambda engine: engine.weights_mib)),
        _number("Activation (MiB)", 2, of(lambda engine: engine.activation_mib)),
        _number("Device delta (MiB)", 1, of(lambda engine: engine.device_delta_mib)),
        _number("Host delta (MiB)", 1, of(lambda engine: engine.host_delta_mib)),
        _number("Kernels", 0, of(lambda engine: engine.kernels)),
        _number("Fused attentions", 0, of(lambda engine: engine.fused_attention)),
    ]


def _ratio_columns(record: Record) -> list[_DeviceColumn]:
    def interval(row: Row) -> str | None:
        ratio = record.ratio(row)
        return None if row is record.baseline else f"{ratio.low:.3f} .. {ratio.high:.3f}"

    return [
        _number("Ratio", 3, lambda row: record.ratio(row).value),
        _DeviceColumn(Column("Ratio 95 % CI"), interval),
        _number("AP", 1, lambda row: row.ap),
    ]


def _stamp(row: Row) -> str | None:
    return row.state.verdict.stamp if row.state else None


def _paper_columns(record: Record) -> list[_DeviceColumn]:
    """The paper's figure, and how much more ours is where both mean the same."""
    same = not obstacles(record)

    def paper(key: str) -> Callable[[Row], float | None]:
        return lambda row: (row.paper or {}).get(key)

    def difference(name: str, ours: Callable[[Row], float | None], of: Callable[[Row], float | None]) -> _DeviceColumn:
        def cell(row: Row) -> str | None:
            percent = difference_percent(ours(row), of(row)) if same else None
            return None if percent is None else f"{percent:+.1f}"

        return _DeviceColumn(Column(f"{name}: difference (%)"), cell)

    def ratio(row: Row) -> float | None:
        return paper_ratio(record, row)

    return [
        _number("Mem", 2, paper("mem_mb"), SOURCE),
        _number("FPS", 0, paper("fps"), SOURCE),
        difference("FPS", lambda row: row.fps, paper("fps")),
        _number("Latency (ms)", 2, paper("latency_ms"), SOURCE),
        difference("Latency", lambda row: row.latency_ms, paper("latency_ms")),
        _number("Ratio", 3, ratio, SOURCE),
        difference("Ratio", lambda row: record.ratio(row).value, ratio),
        _number("AP", 1, paper("ap"), SOURCE),
    ]


def _notes(record: Record) -> list[str]:
    notes = _definitions(record)
    notes += _stamp_notes(record)
    if any(row.random_weights for row in record.rows):
        notes.append("These are random weights: speed is real, detections are not.")
    if any(row.paper for row in record.rows):
        notes.append(f"Columns marked {SOURCE}: Jetson Orin Nano, TensorRT 10.7, FP16, 640x640, power mode not named.")
        notes += [f"Against the paper, {column}: {said}." for column, said in agreements(record).items()]
    if record.quick:
        notes.append("Quick look: too few samples to quote.")
    if record.estimate:
        notes.insert(0, "ESTIMATE: computed by a model of the device; nothing was measured.")
    return notes + [f"Warning: {text}." for text in record.warnings()]


def _definitions(record: Record) -> list[str]:
    baseline = record.baseline.model
    graph = "replayed from a CUDA graph" if record.cuda_graph else "enqueued without a CUDA graph"
    percent = 100 * record.harness.worst_ms / record.baseline.latency_ms
    return [
        f"Latency: median of {record.rounds} queries, input to the device + compute + outputs to the host, as trtexec"
        f" defines it; {graph}. Compute: the network's GPU time alone. End-to-end: decoded picture in memory to"
        " detections, preprocessing included, by wall clock, in rounds of its own.",
        f"Ratio: median over rounds of latency over {baseline}'s, with its bootstrap 95 % interval.",
        "FPS: back-to-back queries / wall time, measured apart; the next query's input is copied while one computes."
        " Energy: of the whole module (VDD_IN) meanwhile. Batch 1.",
        "Plan: the file. Weights: inside the engine. Activation: device_memory_size_v2. Device delta: free memory"
        " before loading minus after the first run. Host delta: growth of the process. GPU and host share one memory"
        " here: none of them may be added. MiB = 2^20 bytes.",
        f"Images: {', '.join(record.images)}; the same one for all rows of a round; {record.measured_at}.",
        f"Harness: {1e3 * record.harness.worst_ms:.1f} us per inference, {percent:.4f} % of the baseline's latency.",
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
