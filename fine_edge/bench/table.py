"""Show a record as a table: our figures first, the paper's own apart and named as such.

Both backends use one list of columns. A column that no row has a figure for is left out, so a record of ONNX Runtime
shows no engine and a record of TensorRT no process memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fine_edge import samples
from fine_edge.bench.memory import INFERENCES, MOST_PROCESS_MIB
from fine_edge.bench.paper import (
    SOURCE,
    agreements,
    attention_title,
    difference_percent,
    fixed,
    fps_ratio,
    obstacles,
    paper_fps_ratio,
    paper_latency_ratio,
    paper_source,
    size_text,
    title,
)
from fine_edge.bench.record import EngineFigures, Record, Row
from fine_edge.table import Column, Table

Value = Callable[[Row], "float | None"]
Cell = Callable[[Row], "str | None"]

ACCURACY = {
    "ap": "AP",
    "ap50": "AP50",
    "ap_s": "AP S",
    "ap_m": "AP M",
    "ap_l": "AP L",
    "mask_ap": "Mask AP",
    "miou": "mIoU",
    "pq": "PQ",
    "sq": "SQ",
    "rq": "RQ",
}
"""Metrics, as :mod:`fine_edge.zoo.paper` names them, in the order of their columns."""

# Groups of columns. Speed and memory have none, so they come first where a terminal is too narrow for everything.
MODELS = "models"
TIMES = "times"
ENGINES = "engines"
EVALUATED = "accuracy"
PAPER = "paper"
PAPER_ACCURACY = "accuracy in the paper"

# With the line that points to --explain these are six lines.
_MOST_BRIEF = 5


@dataclass(frozen=True)
class RowColumn:
    """A column and how its cells follow from rows; ``kept`` shows it even where no row has a figure."""

    column: Column
    cell: Cell
    kept: bool = False


def _text(name: str, cell: Cell, group: str = "", *, optional: bool = False) -> RowColumn:
    return RowColumn(Column(name, numeric=False, group=group, optional=optional), cell)


def _number(
    name: str, digits: int, value: Value, group: str = "", source: str = "", *, kept: bool = False
) -> RowColumn:
    return RowColumn(Column(name, source=source, group=group), lambda row: fixed(value(row), digits), kept)


def to_table(record: Record) -> Table:
    """Return the record's table, ready for terminal, Markdown, CSV or HTML."""
    columns = [
        *_model_columns(record),
        *_memory_columns(record),
        *_speed_columns(record),
        *_engine_columns(),
        *_ratio_columns(record),
        *(_number(ACCURACY[metric], 1, _accuracy(metric), EVALUATED, kept=True) for metric in _metrics(record)),
        _text("Stamp", _stamp),
        *_paper_columns(record),
    ]
    shown = [c for c in columns if c.kept or any(c.cell(row) is not None for row in record.rows)]
    table = Table(title(record), [c.column for c in shown], notes=_notes(record), brief=_brief(record))
    for row in record.rows:
        table.add(*(c.cell(row) for c in shown))
    return table


def _is_on_device(record: Record) -> bool:
    return record.backend == "tensorrt"


def _model_columns(record: Record) -> list[RowColumn]:
    strategies = {row.attention for row in record.rows} - {None}
    # Records from before there were groups keep the columns that they have always been shown with.
    by_attention = len(strategies) > 1 or not record.groups
    attention = [
        _text("Attention", lambda row: attention_title(row.attention), MODELS),
        _text("Complexity", lambda row: row.complexity, MODELS, optional=True),
    ]
    sizes = {row.input_hw for row in record.rows}
    size = _text("Input (px)", lambda row: size_text(row.input_hw), MODELS)
    return [
        _text("Model", lambda row: row.model),
        *(attention if by_attention else ()),
        *([size] if len(sizes) > 1 else ()),
        _number("#Params (M)", 1, lambda row: row.params_m, MODELS),
        _number("FLOPs (G)", 2, lambda row: row.flops_g, MODELS),
    ]


def _memory_columns(record: Record) -> list[RowColumn]:
    """Return the memory of an ONNX Runtime process; an engine has figures of its own."""
    if _is_on_device(record):
        return []
    return [
        _number("Mem (MiB)", 1, lambda row: row.mem_mib),
        _number("Weights (MiB)", 1, lambda row: row.weights_mib, MODELS),
        _number("RTX FP16 activation (MiB)", 2, lambda row: row.rtx.activation_mib if row.rtx else None, MODELS),
        _number("RTX FP16 weights (MiB)", 2, lambda row: row.rtx.weights_mib if row.rtx else None, MODELS),
    ]


def _speed_columns(record: Record) -> list[RowColumn]:
    # A CPU is slower and scatters more, which moves the digit that still says something.
    fps_digits, ms_digits = (1, 2) if _is_on_device(record) else (2, 1)
    precisions = {row.precision or record.precision for row in record.rows}
    precision = _text("Precision", lambda row: row.precision or record.precision)
    return [
        *([precision] if len(precisions) > 1 else ()),
        _number("FPS", fps_digits, lambda row: row.fps),
        _number("Latency (ms)", ms_digits, lambda row: row.latency_ms),
        _number("Latency p90 (ms)", ms_digits, lambda row: samples.percentile(row.samples_ms, 90), TIMES),
        _number("Latency p99 (ms)", ms_digits, lambda row: samples.percentile(row.samples_ms, 99), TIMES),
        _number("Compute (ms)", ms_digits, lambda row: row.compute_median_ms, TIMES),
        _number("End-to-end (ms)", ms_digits, lambda row: row.end_to_end_median_ms, TIMES),
        _number("Energy (mJ/image)", 1, lambda row: row.state.energy_mj_per_image if row.state else None, TIMES),
    ]


def _engine_columns() -> list[RowColumn]:
    def of(value: Callable[[EngineFigures], float | None]) -> Value:
        return lambda row: value(row.engine) if row.engine else None

    return [
        _number("Plan (MiB)", 1, of(lambda engine: engine.plan_mib), ENGINES),
        _number("Weights (MiB)", 1, of(lambda engine: engine.weights_mib), ENGINES),
        _number("Activation (MiB)", 2, _activation_mib, ENGINES),
        _number("Device delta (MiB)", 1, of(lambda engine: engine.device_delta_mib), ENGINES),
        _number("Host delta (MiB)", 1, of(lambda engine: engine.host_delta_mib), ENGINES),
        _number("Kernels", 0, of(lambda engine: engine.kernels), ENGINES),
        _number("Fused attentions", 0, of(lambda engine: engine.fused_attention), ENGINES),
    ]


def _activation_mib(row: Row) -> float | None:
    return row.engine.activation_mib if row.engine else None


def _ratio_columns(record: Record) -> list[RowColumn]:
    """Return latency over the baseline's with its interval; FPS likewise where the paper has no other ratio."""

    def interval(row: Row) -> str | None:
        ratio = record.ratio(row)
        return None if record.is_baseline(row) else f"{ratio.low:.3f} .. {ratio.high:.3f}"

    return [
        _number("Ratio", 3, lambda row: record.ratio(row).value),
        RowColumn(Column("Ratio 95 % CI"), interval),
        _number("FPS ratio", 3, lambda row: fps_ratio(record, row)),
    ]


def _metrics(record: Record) -> list[str]:
    """Return the metrics that were evaluated or that the paper has, AP where there is neither."""
    found = {key for row in record.rows for key in (*row.accuracy, *(row.paper or ()))}
    return [metric for metric in ACCURACY if metric in found] or ["ap"]


def _accuracy(metric: str) -> Value:
    return lambda row: row.accuracy.get(metric)


def _stamp(row: Row) -> str | None:
    return row.state.verdict.stamp if row.state else None


def _of_paper(key: str) -> Value:
    return lambda row: (row.paper or {}).get(key)


def _paper_columns(record: Record) -> list[RowColumn]:
    """Return the paper's figures, each followed by our difference from it where both mean the same.

    Table 2 also prints what its detector reached without the method.
    """

    def paper_throughput_ratio(row: Row) -> float | None:
        ratio = paper_fps_ratio(record, row)
        return ratio.value if ratio else None

    figures: list[tuple[str, int, Value, Value]] = [
        ("Mem", 2, _activation_mib, _of_paper("mem_mb")),
        ("FPS", 0, lambda row: row.fps, _of_paper("fps")),
        ("Latency (ms)", 2, lambda row: row.latency_ms, _of_paper("latency_ms")),
        ("Ratio", 3, lambda row: record.ratio(row).value, lambda row: paper_latency_ratio(record, row)),
        ("FPS ratio", 3, lambda row: fps_ratio(record, row), paper_throughput_ratio),
    ]
    source = paper_source(record)
    accuracies = [("AP without it", "ap_baseline"), *((name, metric) for metric, name in ACCURACY.items())]
    columns = []
    for name, digits, ours, paper in figures:
        columns.append(_number(name, digits, paper, PAPER, SOURCE))
        if not obstacles(record):
            columns.append(_difference(name, ours, paper))
    return columns + [_number(name, 1, _of_paper(metric), PAPER_ACCURACY, source) for name, metric in accuracies]


def _difference(name: str, ours: Value, paper: Value) -> RowColumn:
    def cell(row: Row) -> str | None:
        percent = difference_percent(ours(row), paper(row))
        return None if percent is None else f"{percent:+.1f}"

    return RowColumn(Column(f"{name.removesuffix(' (ms)')}: difference (%)", group=PAPER), cell)


def _brief(record: Record) -> list[str]:
    """Return what a reader needs at once, doubts first; each line fits 100 columns for usual names."""
    lines = [
        *_estimate_note(record),
        *_quick_note(record),
        *(f"Warning: {text}." for text in record.warnings_in_short()),
        *_process_warning(record),
        *_stamps_in_short(record),
        *_weights_note(record),
    ]
    if record.accuracy_data:
        lines.append(f"Accuracy: on {record.accuracy_data}.")
    if any(row.paper for row in record.rows) and paper_source(record) == SOURCE:
        compare = "compare ratios, not milliseconds" if obstacles(record) else "definitions are the same"
        lines.append(f"{SOURCE}: TensorRT 10.7, FP16, 640x640; {compare}.")
    left = len(lines) - _MOST_BRIEF
    return lines if left <= 0 else [*lines[: _MOST_BRIEF - 1], f"{left + 1} more notes: --explain."]


def _stamps_in_short(record: Record) -> list[str]:
    """Return one line for each stamp, with the first reason for it, and one for notes that speak against no row."""
    found: dict[str, list[str]] = {}
    for row in record.rows:
        if row.state and row.state.verdict.reasons:
            found.setdefault(row.state.verdict.stamp, []).append(row.state.verdict.reasons[0])
    notes = [row.state.verdict.notes[0] for row in record.rows if row.state and row.state.verdict.notes]
    rows = f"of {len(record.rows)} rows"
    return [
        *(f"{len(reasons)} {rows}: {stamp}, {reasons[0]}." for stamp, reasons in found.items()),
        *([f"{len(notes)} {rows}, note: {notes[0]}."] if notes else []),
    ]


def _notes(record: Record) -> list[str]:
    """Return definitions, conditions, and what speaks against the figures."""
    conditions = _device_conditions(record) if _is_on_device(record) else _host_conditions(record)
    return [
        *_estimate_note(record),
        *conditions,
        *_quick_note(record),
        *(f"Warning: {text}." for text in record.warnings()),
    ]


def _estimate_note(record: Record) -> list[str]:
    return ["ESTIMATE: computed by a model of the device; nothing was measured."] if record.estimate else []


def _quick_note(record: Record) -> list[str]:
    return ["Quick look: too few samples to quote."] if record.quick else []


def _host_conditions(record: Record) -> list[str]:
    threads = f"{record.threads} threads" if record.threads else "the backend's own number of threads"
    notes = [
        f"Latency: median of {record.rounds} single inferences, each after an untimed one,"
        f" input and outputs on the host. {_ratio_note(record)}",
        "FPS: back-to-back queries / wall time, measured apart from latency, never its inverse. Batch 1.",
        f"Mem: peak resident set of a fresh process that loads the model and runs it {INFERENCES} times, minus that"
        " before loading. Weights: initialisers of the ONNX file. MiB = 2^20 bytes.",
        "#Params and FLOPs: of the PyTorch model, as the contract states them.",
        f"Images: {', '.join(record.images)}; the same one for all rows of a round; {threads}; {record.measured_at}.",
        f"{_harness_note(record)} (null runner).",
        *_group_notes(record),
    ]
    if any(row.rtx for row in record.rows):
        notes.append(
            "RTX FP16: what TensorRT-RTX plans for the FP16 graph compiled for SM86; nothing was run on a GPU."
        )
    notes += [*_accuracy_notes(record), *_weights_note(record)]
    if any(row.paper for row in record.rows):
        notes += [_paper_note(record), *_fps_ratio_note(record)]
    return notes


def _device_conditions(record: Record) -> list[str]:
    graph = "replayed from a CUDA graph" if record.cuda_graph else "enqueued without a CUDA graph"
    notes = [
        f"Latency: median of {record.rounds} queries, input to the device + compute + outputs to the host, as trtexec"
        f" defines it; {graph}. Compute: the network's GPU time alone. End-to-end: decoded picture in memory to"
        " detections, preprocessing included, by wall clock, in rounds of its own.",
        _ratio_note(record),
        "FPS: back-to-back queries / wall time, measured apart; the next query's input is copied while one computes."
        " Energy: of the whole module (VDD_IN) meanwhile. Batch 1.",
        "Plan: the file. Weights: inside the engine. Activation: device_memory_size_v2. Device delta: free memory"
        " before loading minus after the first run. Host delta: growth of the process. GPU and host share one memory"
        " here: none of them may be added. MiB = 2^20 bytes.",
        f"Images: {', '.join(record.images)}; the same one for all rows of a round; {record.measured_at}.",
        f"{_harness_note(record)}'s latency.",
        *_group_notes(record),
        *_stamp_notes(record),
        *_accuracy_notes(record),
        *_weights_note(record),
    ]
    if any(row.paper for row in record.rows):
        notes.append(f"Columns marked {SOURCE}: Jetson Orin Nano, TensorRT 10.7, FP16, 640x640, power mode not named.")
        notes += [f"Against the paper, {column}: {meaning}." for column, meaning in agreements(record).items()]
        notes += _fps_ratio_note(record)
    return notes


def _ratio_note(record: Record) -> str:
    base = "the baseline's, the first row of its group," if record.is_grouped else f"{record.rows[0].model}'s,"
    return f"Ratio: median over rounds of latency over {base} with its bootstrap 95 % interval."


def _harness_note(record: Record) -> str:
    of = "fastest baseline" if record.is_grouped else "baseline"
    return f"Harness: {1e3 * record.harness.worst_ms:.1f} us per inference, {record.harness_percent:.4f} % of the {of}"


def _group_notes(record: Record) -> list[str]:
    """Return how groups were measured, and how much memory the process took for them."""
    notes = []
    if record.is_grouped:
        notes.append("Groups are measured one after the other, each in rounds of its own and alone in memory.")
    if record.groups:
        peaks = [f"{group.process_peak_mib:.0f} MiB ({group.baseline})" for group in record.groups]
        notes.append(f"Process: highest resident set of the measuring process by group, {', '.join(peaks)}.")
    return notes + _process_warning(record)


def _process_warning(record: Record) -> list[str]:
    heavy = [group.baseline for group in record.groups if group.process_peak_mib > MOST_PROCESS_MIB]
    limit = f"{MOST_PROCESS_MIB / 1024:g} GiB"
    return [f"Warning: the process took more than {limit} with {', '.join(heavy)}."] if heavy else []


def _stamp_notes(record: Record) -> list[str]:
    """Return each reason and each note once, with the rows that it holds for."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in record.rows:
        if row.state:
            verdict = row.state.verdict
            said = [*((verdict.stamp, reason) for reason in verdict.reasons), *(("Note", n) for n in verdict.notes)]
            for key in said:
                rows.setdefault(key, []).append(row.model)
    return [
        f"{stamp}, {'all rows' if len(models) == len(record.rows) else ', '.join(models)}: {reason}."
        for (stamp, reason), models in rows.items()
    ]


def _accuracy_notes(record: Record) -> list[str]:
    """Return the data that accuracies are of, and why there are dashes."""
    missing = [
        ACCURACY[metric] for metric in _metrics(record) if all(metric not in row.accuracy for row in record.rows)
    ]
    return [
        *([f"Accuracy: on {record.accuracy_data}, of the same files by sha256."] if record.accuracy_data else []),
        *([f"{', '.join(missing)}: a dash until the same artifact has been evaluated."] if missing else []),
    ]


def _weights_note(record: Record) -> list[str]:
    is_random = any(row.random_weights for row in record.rows)
    return ["These are random weights: speed is real, detections are not."] if is_random else []


def _paper_note(record: Record) -> str:
    source = paper_source(record)
    if source != SOURCE:
        return f"Columns marked {source} are the paper's, of weights that its authors trained."
    has_mem = any((row.paper or {}).get("mem_mb") for row in record.rows)
    mem = "; its Mem is the engine's context memory, to which ONNX Runtime has no equal" if has_mem else ""
    return (
        f"Columns marked {SOURCE} are the paper's: Jetson Orin Nano, TensorRT 10.7, FP16{mem}. Figures of this CPU are"
        " not Jetson figures; only ratios can be set beside each other, with care."
    )


def _fps_ratio_note(record: Record) -> list[str]:
    """Return what the ratio of FPS is, where there is one."""
    ratios = [ratio for row in record.rows if not record.is_baseline(row) and (ratio := paper_fps_ratio(record, row))]
    if not ratios:
        return []
    rounding = 100 * max(max(ratio.high - ratio.value, ratio.value - ratio.low) for ratio in ratios)
    return [
        "FPS ratio: the baseline's FPS over the row's, a ratio of throughputs. The paper prints whole FPS, so its ratio"
        f" is known to within {rounding:.1f} %."
    ]
