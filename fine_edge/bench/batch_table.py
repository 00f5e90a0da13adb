"""Show a record of one artifact at several batches: as a table, and drawn over the batch."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from fine_edge import samples
from fine_edge.bench.memory import INFERENCES
from fine_edge.bench.notes import brief_of, is_on_device
from fine_edge.bench.paper import conditions, fixed, title
from fine_edge.bench.record import Record
from fine_edge.bench.row import Row
from fine_edge.figure import new_figure
from fine_edge.table import Column, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
