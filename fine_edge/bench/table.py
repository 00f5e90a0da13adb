"""Show a record as a table, the paper's figures apart and named as such; one over several batches is drawn as well.

Both backends use one list of columns. A column that no row has a figure for is left out, so a record of ONNX Runtime
shows no engine and a record of TensorRT no process memory.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fine_edge import samples
from fine_edge.bench.memory import INFERENCES
from fine_edge.bench.notes import brief_of, is_on_device, notes_of
from fine_edge.bench.paper import (
    ACCURACY,
    SOURCE,
    attention_title,
    conditions,
    difference_percent,
    fixed,
    fps_ratio,
    metrics,
    obstacles,
    paper_fps_ratio,
    paper_latency_ratio,
    paper_source,
    size_text,
    title,
)
from fine_edge.bench.record import EngineFigures, Record, Row
from fine_edge.bench.row import EndToEnd, stage_titles
from fine_edge.figure import new_figure
from fine_edge.table import Column, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Show a record of one artifact at several batches: as a table, and drawn over the batch.

_WIDTH_IN = 9
_COLOR = "#0b6e8f"
_OTHER = "#b5651d"


def batches_table(record: Record) -> Table:
    """Return a row for each batch: throughput, latency of the batch and of one picture, memory."""
    first = record.rows[0].images
    cells: dict[str, list[str | None]] = {
        "Batch": [str(row.images) for row in record.rows],
        "Images/s": [fixed(row.fps, 1) for row in record.rows],
        "Batch (ms)": [fixed(row.latency_ms, 2) for row in record.rows],
        "p90 (ms)": [fixed(samples.percentile(row.samples_ms, 90), 2) for row in record.rows],
        "p99 (ms)": [fixed(samples.percentile(row.samples_ms, 99), 2) for row in record.rows],
        "Compute (ms)": [fixed(row.compute_median_ms, 2) for row in record.rows],
        "Image (ms)": [fixed(row.image_ms, 2) for row in record.rows],
        f"Image over x {first}": [fixed(record.ratio(row).value, 3) for row in record.rows],
        "95 % CI": [_interval(record, row) for row in record.rows],
        "Mem (MiB)": [fixed(row.mem_mib, 1) for row in record.rows],
        "Activation (MiB)": [fixed(row.engine.activation_mib if row.engine else None, 1) for row in record.rows],
        "Device (MiB)": [fixed(row.engine.device_delta_mib if row.engine else None, 1) for row in record.rows],
        "mJ/image": [fixed(row.state.energy_mj_per_image if row.state else None, 1) for row in record.rows],
        "Stamp": [row.state.verdict.stamp if row.state else None for row in record.rows],
    }
    shown = {name: column for name, column in cells.items() if any(cell is not None for cell in column)}
    table = Table(title(record), [Column(name, numeric=name != "Stamp") for name in shown], brief=_brief(record))
    for row in zip(*shown.values(), strict=True):
        table.add(*row)
    table.notes = _notes(record)
    return table


def _interval(record: Record, row: Row) -> str | None:
    ratio = record.ratio(row)
    return None if record.is_baseline(row) else f"{ratio.low:.3f} .. {ratio.high:.3f}"


def _brief(record: Record) -> list[str]:
    best = max(record.rows, key=lambda row: row.fps)
    gain = best.fps / record.rows[0].fps
    return [
        f"Most images per second at batch {best.images}: {best.fps:.1f}, {gain:.2f} times those at batch"
        f" {record.rows[0].images}; each waits {best.latency_ms:.1f} ms for its batch.",
        *brief_of(record),
    ]


def _notes(record: Record) -> list[str]:
    memory = (
        "Activation and Device: of an engine for the largest batch of its profile, whatever the batch of the row."
        if is_on_device(record)
        else f"Mem: peak resident set of a fresh process that loads the file and runs it {INFERENCES} times at the"
        " batch, minus that before loading."
    )
    return [
        "Images/s: pictures of back-to-back batches / wall time, measured apart from latency. Batch: median latency of"
        f" {record.rounds} single inferences of a whole batch. Image: that over the number of pictures; each of them"
        " waits for its batch all the same.",
        f"Image over x {record.rows[0].images}: median over rounds of the time for a picture over that of the first"
        " row, with its bootstrap 95 % interval; below 1 the batch pays.",
        f"{memory} MiB = 2^20 bytes.",
        f"Images: {', '.join(record.images)}, one after the other in each batch; {record.measured_at}.",
        f"Harness: {1e3 * record.harness.worst_ms:.1f} us per inference.",
        *(f"Warning: {text}." for text in record.warnings()),
    ]


def draw_batches(record: Record, width_in: float = _WIDTH_IN, *, titled: bool = True) -> Figure:
    """Draw images per second, and the latency of a batch and of one picture, over the batch."""
    figure = new_figure(width_in, 3.9)
    left, right = figure.subplots(1, 2)
    batches = [row.images for row in record.rows]
    fps = [row.fps for row in record.rows]
    left.plot(batches, fps, "o-", color=_COLOR)
    for batch, value in zip(batches, fps, strict=True):
        left.annotate(f"{value:.1f}", (batch, value), (0, 7), textcoords="offset points", ha="center", fontsize=9)
    left.set_ylabel("images/s")
    for label, values, color in (
        ("of a batch", [row.latency_ms for row in record.rows], _OTHER),
        ("of a picture, its share", [row.image_ms for row in record.rows], _COLOR),
    ):
        right.plot(batches, values, "o-", color=color, label=label)
    right.set_ylabel("latency, ms")
    right.legend(frameon=False, fontsize=9)
    for axes in (left, right):
        _dress(axes, batches)
    if titled:
        figure.suptitle(textwrap.fill(record.title, 70), x=0.01, ha="left", fontweight="bold", fontsize=12)
    quick = "quick look, " if record.quick else ""
    foot = textwrap.fill(f"{quick}medians of {record.rounds} rounds: {conditions(record)}", int(11 * width_in))
    figure.supxlabel(foot, x=0.01, ha="left", fontsize=9)
    return figure


def _dress(axes: Axes, batches: list[int]) -> None:
    axes.set_xlabel("batch")
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, list(map(str, batches)))
    axes.minorticks_off()
    axes.set_ylim(bottom=0, top=1.12 * axes.dataLim.y1)
    axes.grid(color="0.5", alpha=0.2)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


Value = Callable[[Row], "float | None"]
Cell = Callable[[Row], "str | None"]

# Groups of columns. Speed and memory have none, so they come first where a terminal is too narrow for everything.
MODELS = "models"
TIMES = "times"
STAGE_TIMES = "stages"
STAGE_P90 = "stages, p90"
ENGINES = "engines"
EVALUATED = "accuracy"
PAPER = "paper"
PAPER_ACCURACY = "accuracy in the paper"


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
    if record.is_over_batches:
        return batches_table(record)
    columns = [
        *_model_columns(record),
        *_memory_columns(record),
        *_speed_columns(record),
        *_stage_columns(record),
        *_engine_columns(),
        *_ratio_columns(record),
        *(_number(ACCURACY[metric], 1, _accuracy(metric), EVALUATED, kept=True) for metric in metrics(record)),
        _text("Stamp", _stamp),
        *_paper_columns(record),
    ]
    shown = [c for c in columns if c.kept or any(c.cell(row) is not None for row in record.rows)]
    table = Table(title(record), [c.column for c in shown], notes=notes_of(record), brief=brief_of(record))
    for row in record.rows:
        table.add(*(c.cell(row) for c in shown))
    return table


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
    if is_on_device(record):
        return []
    return [
        _number("Mem (MiB)", 1, lambda row: row.mem_mib),
        _number("Weights (MiB)", 1, lambda row: row.weights_mib, MODELS),
        _number("RTX FP16 activation (MiB)", 2, lambda row: row.rtx.activation_mib if row.rtx else None, MODELS),
        _number("RTX FP16 weights (MiB)", 2, lambda row: row.rtx.weights_mib if row.rtx else None, MODELS),
    ]


def _speed_columns(record: Record) -> list[RowColumn]:
    # A CPU is slower and scatters more, which moves the digit that still says something.
    fps_digits, ms_digits = (1, 2) if is_on_device(record) else (2, 1)
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


def _stage_columns(record: Record) -> list[RowColumn]:
    """Return what ``--end-to-end`` measured; a stage that a backend has not stays as a dash."""
    ways = [row.end_to_end for row in record.rows if row.end_to_end]
    if not ways:
        return []
    titles = stage_titles(in_graph=any(way.in_graph for way in ways))

    def of(value: Callable[[EndToEnd], float | None]) -> Value:
        return lambda row: value(row.end_to_end) if row.end_to_end else None

    def median_of(name: str) -> Value:
        return of(lambda way: way.medians_ms[name])

    def p90_of(name: str) -> Value:
        return of(lambda way: way.p90_ms[name])

    def total_p90(way: EndToEnd) -> float | None:
        return samples.percentile(way.total_ms, 90)

    return [
        *(_number(f"{text} (ms)", 2, median_of(name), STAGE_TIMES, kept=True) for name, text in titles.items()),
        _number("total (ms)", 2, of(lambda way: way.total_median_ms), STAGE_TIMES),
        _number("FPS one by one", 1, of(lambda way: way.fps_one_by_one), STAGE_TIMES),
        _number("FPS overlapped", 1, of(lambda way: way.fps_overlapped), STAGE_TIMES),
        _number("Energy overlapped (mJ/image)", 1, of(lambda way: way.energy_mj_per_image), STAGE_TIMES),
        *(_number(f"{text} p90 (ms)", 2, p90_of(name), STAGE_P90) for name, text in titles.items()),
        _number("total p90 (ms)", 2, of(total_p90), STAGE_P90),
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
    return [
        _number("Ratio", 3, lambda row: record.ratio(row).value),
        RowColumn(Column("Ratio 95 % CI"), lambda row: _interval(record, row)),
        _number("FPS ratio", 3, lambda row: fps_ratio(record, row)),
    ]


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
