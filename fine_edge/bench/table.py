"""A record as a table with the paper's columns, the paper's own figures apart and named as such."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def ratio_note(record: Record) -> str:
    """What the ratio is."""
    base = "the baseline's, the first row of its group," if record.is_grouped else f"{record.rows[0].model}'s,"
    return f"Ratio: median over rounds of latency over {base} with its bootstrap 95 % interval."


def harness_note(record: Record) -> str:
    """What measuring costs."""
    of = "fastest baseline" if record.is_grouped else "baseline"
    return f"Harness: {1e3 * record.harness.worst_ms:.1f} us per inference, {record.harness_percent:.4f} % of the {of}"


def group_notes(record: Record) -> list[str]:
    """How groups were measured, and what memory the process took for them."""
    notes = []
    if record.is_grouped:
        notes.append("Groups are measured one after the other, each in rounds of its own and alone in memory.")
    if record.groups:
        peaks = [f"{group.process_peak_mib:.0f} MiB ({group.baseline})" for group in record.groups]
        notes.append(f"Process: highest resident set of the measuring process by group, {', '.join(peaks)}.")
    heavy = [group.baseline for group in record.groups if group.process_peak_mib > MOST_PROCESS_MIB]
    if heavy:
        limit = f"{MOST_PROCESS_MIB / 1024:g} GiB"
        notes.append(f"Warning: the process took more than {limit} with {', '.join(heavy)}.")
    return notes


def fps_ratio_note(record: Record) -> list[str]:
    """What the ratio of FPS is, where there is one."""
    ratios = [ratio for row in record.rows if not record.is_baseline(row) and (ratio := paper_fps_ratio(record, row))]
    if not ratios:
        return []
    rounding = 100 * max(max(ratio.high - ratio.value, ratio.value - ratio.low) for ratio in ratios)
    return [
        "FPS ratio: the baseline's FPS over the row's, a ratio of throughputs. The paper prints whole FPS, so its ratio"
        f" is known to within {rounding:.1f} %."
    ]


def accuracy_note(record: Record) -> list[str]:
    """What accuracies are of, and why there are dashes."""
    missing = [ACCURACY[metric] for metric in metrics(record) if all(metric not in row.accuracy for row in record.rows)]
    return [
        *([f"Accuracy: on {record.accuracy_data}, of the same files by sha256."] if record.accuracy_data else []),
        *([f"{', '.join(missing)}: a dash until the same artifact has been evaluated."] if missing else []),
    ]


def weights_note(record: Record) -> list[str]:
    """Whether detections mean anything."""
    is_random = any(row.random_weights for row in record.rows)
    return ["These are random weights: speed is real, detections are not."] if is_random else []


def with_doubts(record: Record, notes: list[str]) -> list[str]:
    """The notes, and what speaks against the figures."""
    first = ["ESTIMATE: computed by a model of the device; nothing was measured."] if record.estimate else []
    quick = ["Quick look: too few samples to quote."] if record.quick else []
    return [*first, *notes, *quick, *(f"Warning: {text}." for text in record.warnings())]


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


@dataclass(frozen=True)
class RowColumn:
    """A column and how its cells come from rows; ``kept`` stays where no row has a figure for it."""

    column: Column
    cell: Cell
    kept: bool = False


def text(name: str, cell: Cell) -> RowColumn:
    """A column of words."""
    return RowColumn(Column(name, numeric=False), cell)


def number(
    name: str, digits: int, value: Callable[[Row], float | None], source: str = "", *, kept: bool = False
) -> RowColumn:
    """A column of figures with so many digits behind the point."""
    return RowColumn(Column(name, source=source), lambda row: fixed(value(row), digits), kept)


def to_rows(title: str, columns: Sequence[RowColumn], record: Record, notes: list[str]) -> Table:
    """The table; columns that no row has a figure for are left out."""
    shown = [c for c in columns if c.kept or any(c.cell(row) is not None for row in record.rows)]
    table = Table(title, [c.column for c in shown], notes=notes)
    for row in record.rows:
        table.add(*(c.cell(row) for c in shown))
    return table


def model_columns(record: Record) -> list[RowColumn]:
    """Name, what its attention is where that tells rows apart, and its size."""
    strategies = {row.attention for row in record.rows} - {None}
    # Records from before there were groups keep the columns that they have always been shown with.
    by_attention = len(strategies) > 1 or not record.groups
    attention = [
        text("Attention", lambda row: attention_title(row.attention)),
        text("Complexity", lambda r: r.complexity),
    ]
    sizes = {record.input_hw_of(row) for row in record.rows}
    return [
        text("Model", lambda row: row.model),
        *(attention if by_attention else ()),
        *([text("Input (px)", lambda row: size_text(record.input_hw_of(row)))] if len(sizes) > 1 else ()),
        number("#Params (M)", 1, lambda row: row.params_m),
        number("FLOPs (G)", 2, lambda row: row.flops_g),
    ]


def ratio_columns(record: Record) -> list[RowColumn]:
    """Latency over the baseline's with its interval; FPS likewise where the paper has no other ratio."""

    def interval(row: Row) -> str | None:
        ratio = record.ratio(row)
        return None if record.is_baseline(row) else f"{ratio.low:.3f} .. {ratio.high:.3f}"

    return [
        number("Ratio", 3, lambda row: record.ratio(row).value),
        RowColumn(Column("Ratio 95 % CI"), interval),
        number("FPS ratio", 3, lambda row: fps_ratio(record, row)),
    ]


def accuracy_columns(record: Record) -> list[RowColumn]:
    """Metrics that were evaluated or that the paper has, AP where there is neither."""
    return [number(ACCURACY[metric], 1, _accuracy(metric), kept=True) for metric in metrics(record)]


def metrics(record: Record) -> list[str]:
    """Those of :func:`accuracy_columns`."""
    known = {key for row in record.rows for key in (*row.accuracy, *(row.paper or ()))}
    return [metric for metric in ACCURACY if metric in known] or ["ap"]


def _accuracy(metric: str) -> Callable[[Row], float | None]:
    return lambda row: row.accuracy.get(metric)


def of_paper(key: str) -> Callable[[Row], float | None]:
    """A figure of the paper's row."""
    return lambda row: (row.paper or {}).get(key)


def paper_ratio_columns(record: Record) -> list[RowColumn]:
    """The paper's latency ratio, or its FPS ratio where it has no latencies."""

    def throughput(row: Row) -> float | None:
        ratio = paper_fps_ratio(record, row)
        return ratio.value if ratio else None

    return [
        number("Ratio", 3, lambda row: paper_latency_ratio(record, row), SOURCE),
        number("FPS ratio", 3, throughput, SOURCE),
    ]


def paper_accuracy_columns(record: Record) -> list[RowColumn]:
    """The paper's accuracy; Table 2 also says what its detector had without the method."""
    source = paper_source(record)
    before = number("AP without it", 1, of_paper("ap_baseline"), source)
    return [before, *(number(title, 1, of_paper(metric), source) for metric, title in ACCURACY.items())]


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
    return to_rows(title(record), columns, record, _device_notes(record))


def _speed_columns(record: Record) -> list[RowColumn]:
    precisions = {row.precision or record.precision for row in record.rows}
    shown = [text("Precision", lambda row: row.precision or record.precision)] if len(precisions) > 1 else []
    return [
        *shown,
        number("FPS", 1, lambda row: row.fps),
        number("Latency (ms)", 2, lambda row: row.latency_ms),
        number("Latency p90 (ms)", 2, lambda row: samples.percentile(row.samples_ms, 90)),
        number("Latency p99 (ms)", 2, lambda row: samples.percentile(row.samples_ms, 99)),
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


def _device_notes(record: Record) -> list[str]:
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


def to_table(record: Record) -> Table:
    """The record's table, ready for terminal, Markdown, CSV or HTML."""
    return device_table(record) if record.backend == "tensorrt" else _host_table(record)


def _host_table(record: Record) -> Table:
    columns = [
        *model_columns(record),
        *_memory_columns(),
        number("FPS", 2, lambda row: row.fps),
        number("Latency (ms)", 1, lambda row: row.latency_ms),
        number("Latency p90 (ms)", 1, lambda row: samples.percentile(row.samples_ms, 90)),
        *ratio_columns(record),
        *accuracy_columns(record),
        number("Mem", 2, of_paper("mem_mb"), SOURCE),
        number("FPS", 0, of_paper("fps"), SOURCE),
        number("Latency (ms)", 2, of_paper("latency_ms"), SOURCE),
        *paper_ratio_columns(record),
        *paper_accuracy_columns(record),
    ]
    return to_rows(title(record), columns, record, _notes(record))


def _memory_columns() -> list[RowColumn]:
    return [
        number("Mem (MiB)", 1, lambda row: row.mem_mib),
        number("Weights (MiB)", 1, lambda row: row.weights_mib),
        number("RTX FP16 activation (MiB)", 2, lambda row: row.rtx.activation_mib if row.rtx else None),
        number("RTX FP16 weights (MiB)", 2, lambda row: row.rtx.weights_mib if row.rtx else None),
    ]


def _notes(record: Record) -> list[str]:
    """Definitions, conditions, and what is shaky."""
    threads = f"{record.threads} threads" if record.threads else "the backend's own number of threads"
    notes = [
        f"Latency: median of {record.rounds} single inferences, each after an untimed one,"
        f" input and outputs on the host. {ratio_note(record)}",
        "FPS: back-to-back queries / wall time, measured apart from latency, never its inverse. Batch 1.",
        f"Mem: peak resident set of a fresh process that loads the model and runs it {INFERENCES} times, minus that"
        " before loading. Weights: initialisers of the ONNX file. MiB = 2^20 bytes.",
        "#Params and FLOPs: of the PyTorch model, as the contract states them.",
        f"Images: {', '.join(record.images)}; the same one for all rows of a round; {threads}; {record.measured_at}.",
        f"{harness_note(record)} (null runner).",
        *group_notes(record),
    ]
    if any(row.rtx for row in record.rows):
        notes.append(
            "RTX FP16: what TensorRT-RTX plans for the FP16 graph compiled for SM86; nothing was run on a GPU."
        )
    notes += [*accuracy_note(record), *weights_note(record)]
    if any(row.paper for row in record.rows):
        notes += [_paper_note(record), *fps_ratio_note(record)]
    return with_doubts(record, notes)


def _paper_note(record: Record) -> str:
    source = paper_source(record)
    if source != SOURCE:
        return f"Columns marked {source} are the paper's, of weights that its authors trained."
    has_mem = any((row.paper or {}).get("mem_mb") for row in record.rows)
    mem = "; its Mem is FP32 activation of unfused attention" if has_mem else ""
    return (
        f"Columns marked {SOURCE} are the paper's: Jetson Orin Nano, TensorRT 10.7, FP16{mem}. Figures of this CPU are"
        " not Jetson figures; only ratios can be set beside each other, with care."
    )
