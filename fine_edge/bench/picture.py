"""Draw each row's latency overhead, the paper's beside it in another style, and the stages of its frames."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_edge import files
from fine_edge.bench.paper import (
    attention_title,
    conditions,
    paper_fps_ratio,
    paper_latency_ratio,
    rounds_text,
    size_text,
)
from fine_edge.bench.record import Record, Row
from fine_edge.bench.row import STAGES, EndToEnd, stage_titles
from fine_edge.bench.table import draw_batches
from fine_edge.figure import new_figure, to_png
from fine_edge.samples import Ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEASURED = "#0b6e8f"
_PAPER = "#b5651d"
_WIDTH_IN = 9
# Number of characters of small text that fit the width.
_LINE_CHARACTERS = 100
_LINE_IN = 0.19
_BAR_HEIGHT = 0.34
_OFFSET = 0.2  # measured marks lie above the paper's, both around the row's tick


def write_picture(record: Record, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    files.write_bytes(path, to_png(lambda: draw(record), 160))


def caption(record: Record) -> str:
    """Return what :func:`draw` shows, in one line."""
    if record.is_over_batches:
        return "Images per second, and the latency of a batch and of one of its pictures, over batches"
    return "Latency over the baseline's, median and 95 % interval, with the paper's where it has one"


def draw(record: Record, width_in: float = _WIDTH_IN, *, titled: bool = True) -> Figure:
    """Return the figure: a pair of marks for each row that has a baseline; of a record over batches, its curves.

    Args:
        record: the rows.
        width_in: width of the figure, inches.
        titled: whether the suite's title stands above.
    """
    if record.is_over_batches:
        return draw_batches(record, width_in, titled=titled)
    rows = [row for row in record.rows if not record.is_baseline(row)]
    beside_paper = any(_paper_ratio(record, row) for row in rows)
    characters = int(_LINE_CHARACTERS * width_in / _WIDTH_IN)
    names = _names(record, rows, characters // 2)
    row_in = max([0.72 if beside_paper else 0.5, *(_LINE_IN * (1 + name.count("\n")) for name in names)])
    figure = new_figure(width_in, 2.4 + row_in * len(rows))
    axes = figure.add_subplot()
    keys = [(_draw_measured(axes, record, rows, _OFFSET if beside_paper else 0), _measured_label(record))]
    if beside_paper:
        keys.append((_draw_paper(axes, record, rows), _paper_label(record)))
    _dress(axes, record, rows, names, width_in)
    if titled:
        title = textwrap.fill(record.title, int(0.7 * characters))
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    handles, labels = zip(*keys, strict=True)
    wrapped = [textwrap.fill(label, characters) for label in labels]
    figure.legend(handles, wrapped, loc="outside lower left", frameon=False, fontsize=9, alignment="left")
    return figure


def _measured_label(record: Record) -> str:
    kind = "ESTIMATE, nothing was measured" if record.estimate else "measured"
    quick = ", quick look" if record.quick else ""
    return f"{kind}{quick}, median and 95 % interval of {rounds_text(record)}: {conditions(record)}"


def _paper_label(record: Record) -> str:
    table = record.suite.replace("table", "Table ")
    label = f"paper's {table}, not measured here: Jetson Orin Nano, TensorRT 10.7, FP16, 640x640"
    if any(paper_fps_ratio(record, row) for row in record.rows):
        label += (
            "; a ratio of throughputs, the baseline's FPS over the row's, with the range that whole-number FPS leave"
        )
    return label


def _paper_ratio(record: Record, row: Row) -> Ratio | None:
    latency = paper_latency_ratio(record, row)
    return Ratio(latency, latency, latency) if latency else paper_fps_ratio(record, row)


def _overhead(ratio: float) -> float:
    return 100 * (ratio - 1)


def _draw_measured(axes: Axes, record: Record, rows: Sequence[Row], above: float) -> Any:
    """Draw bars with intervals, ``above`` the rows' ticks, and return the legend's handle."""
    found = [(index - above, record.ratio(row)) for index, row in enumerate(rows)]
    places = [place for place, _ in found]
    values = [_overhead(ratio.value) for _, ratio in found]
    bars = axes.barh(places, values, _BAR_HEIGHT, color=_MEASURED, alpha=0.85, zorder=2)
    _draw_intervals(axes, found, "black")
    return bars


def _draw_paper(axes: Axes, record: Record, rows: Sequence[Row]) -> Any:
    """Draw hollow marks on dotted stems, and return the legend's handle."""
    ratios = [(index + _OFFSET, _paper_ratio(record, row)) for index, row in enumerate(rows)]
    found = [(place, ratio) for place, ratio in ratios if ratio]
    places = [place for place, _ in found]
    values = [_overhead(ratio.value) for _, ratio in found]
    axes.hlines(places, 0, values, color=_PAPER, linewidth=1, linestyle=":", zorder=2)
    _draw_intervals(axes, found, _PAPER)
    (marks,) = axes.plot(values, places, "D", markersize=7, mfc="none", mec=_PAPER, mew=1.6, zorder=3)
    return marks


def _draw_intervals(axes: Axes, found: Sequence[tuple[float, Ratio]], color: str) -> None:
    """Draw the intervals that are not points, and write each figure beside them."""
    for place, ratio in found:
        value, low, high = (_overhead(bound) for bound in (ratio.value, ratio.low, ratio.high))
        if low < high:
            error = [[value - low], [high - value]]
            axes.errorbar([value], [place], xerr=error, fmt="none", ecolor=color, capsize=3, elinewidth=1.2, zorder=3)
        _annotate(axes, value, max(high, 0), place, color)


def _annotate(axes: Axes, value: float, beside: float, place: float, color: str) -> None:
    """Write the figure to the right of its marks, because the rows' names stand on the left."""
    axes.annotate(f"{value:+.1f} %", (beside, place), (9, 0), textcoords="offset points", va="center", color=color)


def _names(record: Record, rows: Sequence[Row], characters: int) -> list[str]:
    """Return the rows' names: attention strategies where these differ, else models with their baselines."""
    attentions = [row.attention for row in rows]
    if None not in attentions and len(set(attentions)) == len(attentions) > 1:
        return [f"{attention_title(row.attention)}\n{row.complexity}" for row in rows]
    if not record.is_grouped:
        return [row.model for row in rows]
    against = [f"over {record.baseline_of(row).model}" for row in rows]
    if not record.input_hw:
        against = [f"{text}, {size_text(row.input_hw)}" for text, row in zip(against, rows, strict=True)]
    return [f"{row.model}\n{textwrap.fill(text, characters)}" for text, row in zip(against, rows, strict=True)]


def _dress(axes: Axes, record: Record, rows: Sequence[Row], names: Sequence[str], width_in: float) -> None:
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(0, color="black", linewidth=1)
    for index in range(1, len(rows)):
        if record.baseline_of(rows[index]) is not record.baseline_of(rows[index - 1]):
            axes.axhline(index - 0.5, color="0.5", linewidth=0.6, alpha=0.4)
    low, high = axes.dataLim.x0, axes.dataLim.x1
    span = max(high, 0) - min(low, 0) or 1
    # Room for the figures on the right; on the left only where a row is faster than the baseline.
    room = 0.16 * _WIDTH_IN / width_in
    axes.set_xlim(min(low, 0) - (0.04 * span if low < 0 else 0), max(high, 0) + room * span)
    axes.set_xlabel(f"latency over {'the baseline' if record.is_grouped else record.rows[0].model}, %")
    axes.grid(axis="x", color="0.5", alpha=0.2)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


# Draw the stages of each row as one horizontal bar: what a frame takes from a JPEG to detections.

_COLORS = dict(zip(STAGES, ("#4c78a8", "#72b7b2", "#e0b13c", "#f58518", "#c9a26b", "#54a24b"), strict=True))
_REST = "#bdbdbd"
_ROW_IN = 0.65
_STAGE_BAR_HEIGHT = 0.6
_STAGE_LINE_IN = 0.2
# Widths: of what stands behind a bar, of a letter, of the key before one, of a part that has room for its figure.
_SAID_IN, _LETTER_IN, _KEY_IN, _LABELLED_IN = 1.5, 0.08, 0.6, 0.42


def write_stages(record: Record, path: Path) -> None:
    """Write a PNG, whole or not at all; some row must have stages."""
    files.write_bytes(path, to_png(lambda: draw_stages(record), 160))


def draw_stages(record: Record, width_in: float = _WIDTH_IN, *, titled: bool = True) -> Figure:
    """Return the figure: a bar of stages for each row that has them, with its frames per second.

    Args:
        record: the rows.
        width_in: width of the figure, inches.
        titled: whether the suite's title stands above.
    """
    rows = [(row, row.end_to_end) for row in record.rows if row.end_to_end]
    ways = [way for _, way in rows]
    characters = int(_LINE_CHARACTERS * width_in / _WIDTH_IN)
    keys = max((_parts(way) for way in ways), key=len)
    columns = max(1, int(width_in / (_KEY_IN + _LETTER_IN * max(len(name) for name, _, _ in keys))))
    said = textwrap.fill(_measured_on(record), characters)
    below_in = _STAGE_LINE_IN * (1 + said.count("\n") + math.ceil(len(keys) / columns))
    figure = new_figure(width_in, 1.4 + below_in + _ROW_IN * len(rows))
    axes = figure.add_subplot()
    names = [_name(record, row) for row, _ in rows]
    axes_in = width_in - _LETTER_IN * max(len(line) for name in names for line in name.splitlines())
    bar_in = max(_LABELLED_IN, axes_in - _SAID_IN)
    longest = max(sum(ms for _, ms, _ in _parts(way)) for way in ways)
    for place, way in enumerate(ways):
        _draw_bar(axes, place, way, least_ms=longest * _LABELLED_IN / bar_in)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, longest * axes_in / bar_in)
    _dress_stages(axes)
    if titled:
        title = textwrap.fill(record.title, int(0.7 * characters))
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    _add_keys(figure, keys, columns, said)
    return figure


def _dress_stages(axes: Axes) -> None:
    axes.set_xlabel("ms a frame, median of each stage")
    axes.grid(axis="x", color="0.5", alpha=0.2)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _add_keys(figure: Figure, keys: Sequence[tuple[str, float, str]], columns: int, said: str) -> None:
    """Add the legend in so many columns, below what is said of the measurement."""
    from matplotlib import patches

    figure.legend(
        [patches.Patch(color=color) for _, _, color in keys],
        [name for name, _, _ in keys],
        title=said,
        loc="outside lower left",
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        alignment="left",
        ncols=columns,
    )


def _measured_on(record: Record) -> str:
    quick = "quick look, " if record.quick else ""
    return f"{quick}measured on {conditions(record)}"


def _parts(way: EndToEnd) -> list[tuple[str, float, str]]:
    """Return name, median and colour of each part of a bar; what no event of a device covers comes last."""
    medians = way.medians_ms
    known = [(name, ms) for name, ms in medians.items() if ms is not None]
    titles = stage_titles(in_graph=way.in_graph)
    parts = [(titles[name], ms, _COLORS[name]) for name, ms in known]
    rest = way.total_median_ms - sum(ms for _, ms in known)
    return [*parts, ("host's copies", rest, _REST)] if way.h2d_ms and rest > 0 else parts


def _draw_bar(axes: Axes, place: int, way: EndToEnd, least_ms: float) -> None:
    """Draw the parts of a bar side by side; those of at least ``least_ms`` with their figure."""
    left = 0.0
    for _, ms, color in _parts(way):
        axes.barh([place], [ms], _STAGE_BAR_HEIGHT, left=left, color=color, zorder=2)
        if ms >= least_ms:
            axes.text(left + ms / 2, place, f"{ms:.1f}", ha="center", va="center", fontsize=9, color="black", zorder=3)
        left += ms
    said = f"{way.total_median_ms:.1f} ms\n{way.fps_one_by_one:.1f} FPS\noverlapped {way.fps_overlapped:.1f} FPS"
    text = axes.annotate(said, (left, place), (6, 0), textcoords="offset points", va="center", fontsize=9)
    text.set_in_layout(False)  # the axis leaves room for it


def _name(record: Record, row: Row) -> str:
    return row.model if record.input_hw else f"{row.model}\n{size_text(row.input_hw)}"
