"""The latency overhead of each row as a picture: measured here, and the paper's beside it in a style of its own."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_edge import atomic
from fine_edge.bench.paper import paper_ratio
from fine_edge.bench.record import Record, Row
from fine_edge.bench.wording import attention_title, conditions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MEASURED = "#0b6e8f"
_PAPER = "#b5651d"
_WIDTH_IN = 9
# The longest line of small text that fits the width.
_LINE_CHARACTERS = 100
_BAR_HEIGHT = 0.34
_OFFSET = 0.2  # measured above the paper's, both around the row's tick


def write_picture(record: Record, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    image = io.BytesIO()
    draw(record).savefig(image, format="png", dpi=160)
    atomic.write_bytes(path, image.getvalue())


def draw(record: Record, width_in: float = _WIDTH_IN, *, titled: bool = True) -> Figure:
    """The figure: one pair of marks for each row after the baseline; ``titled`` puts the suite's title above."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = record.rows[1:]
    figure = Figure(figsize=(width_in, 2.4 + 0.72 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    keys = [(_draw_measured(axes, record, rows), _measured_label(record))]
    if any(paper_ratio(record, row) for row in rows):
        label = "paper's Table 3, not measured here: Jetson Orin Nano, TensorRT 10.7, FP16, 640x640"
        keys.append((_draw_paper(axes, record, rows), label))
    _dress(axes, record, rows, width_in)
    characters = int(_LINE_CHARACTERS * width_in / _WIDTH_IN)
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
    return f"{kind}{quick}, median and 95 % interval of {record.rounds} rounds: {conditions(record)}"


def _overhead(ratio: float) -> float:
    return 100 * (ratio - 1)


def _draw_measured(axes: Axes, record: Record, rows: tuple[Row, ...]) -> Any:
    """Bars with intervals; returns the legend's handle."""
    ratios = [record.ratio(row) for row in rows]
    places = [index - _OFFSET for index in range(len(rows))]
    values = [_overhead(ratio.value) for ratio in ratios]
    errors = [
        [value - _overhead(ratio.low) for value, ratio in zip(values, ratios, strict=True)],
        [_overhead(ratio.high) - value for value, ratio in zip(values, ratios, strict=True)],
    ]
    bars = axes.barh(places, values, _BAR_HEIGHT, color=_MEASURED, alpha=0.85, zorder=2)
    axes.errorbar(values, places, xerr=errors, fmt="none", ecolor="black", capsize=3, elinewidth=1.2, zorder=3)
    for place, value, ratio in zip(places, values, ratios, strict=True):
        _annotate(axes, value, max(_overhead(ratio.high), 0), place)
    return bars


def _draw_paper(axes: Axes, record: Record, rows: tuple[Row, ...]) -> Any:
    """Hollow marks on dotted stems; returns the legend's handle."""
    found = [(index + _OFFSET, paper_ratio(record, row)) for index, row in enumerate(rows)]
    places = [place for place, ratio in found if ratio]
    values = [_overhead(ratio) for _, ratio in found if ratio]
    axes.hlines(places, 0, values, color=_PAPER, linewidth=1, linestyle=":", zorder=2)
    for place, value in zip(places, values, strict=True):
        _annotate(axes, value, max(value, 0), place, _PAPER)
    (marks,) = axes.plot(values, places, "D", markersize=7, mfc="none", mec=_PAPER, mew=1.6, zorder=3)
    return marks


def _annotate(axes: Axes, value: float, beside: float, place: float, color: str | None = None) -> None:
    """The figure to the right of all that is drawn for it, never on the side of the rows' names."""
    axes.annotate(f"{value:+.1f} %", (beside, place), (9, 0), textcoords="offset points", va="center", color=color)


def _dress(axes: Axes, record: Record, rows: tuple[Row, ...], width_in: float) -> None:
    attentions = [row.attention for row in rows]
    by_attention = None not in attentions and len(set(attentions)) == len(attentions)
    names = [f"{attention_title(row.attention)}\n{row.complexity}" if by_attention else row.model for row in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=1)
    low, high = axes.dataLim.x0, axes.dataLim.x1
    span = max(high, 0) - min(low, 0) or 1
    # The room on the right is for the figures; on the left only where something is faster than the baseline.
    room = 0.16 * _WIDTH_IN / width_in
    axes.set_xlim(min(low, 0) - (0.04 * span if low < 0 else 0), max(high, 0) + room * span)
    axes.set_xlabel(f"latency over {record.baseline.model}, %")
    axes.grid(axis="x", color="0.5", alpha=0.2)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
