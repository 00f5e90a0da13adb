"""Draw the stages of each row as one horizontal bar: what a frame takes from a JPEG to detections."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge import files
from fine_edge.bench.paper import conditions, size_text
from fine_edge.bench.record import Record, Row
from fine_edge.bench.stages import STAGES, EndToEnd, stage_titles
from fine_edge.figure import new_figure, to_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = dict(zip(STAGES, ("#4c78a8", "#72b7b2", "#e0b13c", "#f58518", "#c9a26b", "#54a24b"), strict=True))
_REST = "#bdbdbd"
_WIDTH_IN = 9
_CHARACTERS = 100  # of small text over the width
_ROW_IN = 0.65
_BAR_HEIGHT = 0.6
_LINE_IN = 0.2
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
    characters = int(_CHARACTERS * width_in / _WIDTH_IN)
    keys = max((_parts(way) for way in ways), key=len)
    columns = max(1, int(width_in / (_KEY_IN + _LETTER_IN * max(len(name) for name, _, _ in keys))))
    said = textwrap.fill(_measured_on(record), characters)
    below_in = _LINE_IN * (1 + said.count("\n") + math.ceil(len(keys) / columns))
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
    _dress(axes)
    if titled:
        title = textwrap.fill(record.title, int(0.7 * characters))
        figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    _add_keys(figure, keys, columns, said)
    return figure


def _dress(axes: Axes) -> None:
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
        axes.barh([place], [ms], _BAR_HEIGHT, left=left, color=color, zorder=2)
        if ms >= least_ms:
            axes.text(left + ms / 2, place, f"{ms:.1f}", ha="center", va="center", fontsize=9, color="black", zorder=3)
        left += ms
    said = f"{way.total_median_ms:.1f} ms\n{way.fps_one_by_one:.1f} FPS\noverlapped {way.fps_overlapped:.1f} FPS"
    text = axes.annotate(said, (left, place), (6, 0), textcoords="offset points", va="center", fontsize=9)
    text.set_in_layout(False)  # the axis leaves room for it


def _name(record: Record, row: Row) -> str:
    return row.model if record.input_hw else f"{row.model}\n{size_text(row.input_hw)}"
