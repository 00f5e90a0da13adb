"""Draw logs of ``tegrastats`` over time: power, GPU and temperatures, one column a log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_edge import files
from fine_edge.errors import BoardError
from fine_edge.figure import new_figure, to_png
from fine_edge.jetson.tegrastats_log import Point, TegrastatsLog
from fine_edge.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LOGS = 4
_MOST_LINES = 6
_LOAD = "tab:gray"


def write_picture(logs: Sequence[tuple[str, TegrastatsLog]], interval_ms: float | None, path: Path) -> None:
    """Write a PNG of 1 to :data:`MOST_LOGS` logs, each with its name.

    Raises:
        BoardError: when there is none, there are more, or one has a single moment.
    """
    if not logs:
        raise BoardError("there is no log of tegrastats to draw", where=path, hint="sudo tegrastats --logfile FILE")
    if len(logs) > MOST_LOGS:
        raise BoardError(f"{len(logs)} logs, one picture holds {MOST_LOGS}", where=path, hint="give fewer at a time")
    for name, log in logs:
        if len(log.trace.points) < 2:
            raise BoardError("its lines are all of one moment, nothing can be drawn over time", where=name)
    files.write_bytes(path, to_png(lambda: _figure(logs, interval_ms), dpi=100))


def _figure(logs: Sequence[tuple[str, TegrastatsLog]], interval_ms: float | None) -> Figure:
    figure = new_figure(1.5 + 6.5 * len(logs), 9)
    axes = figure.subplots(3, len(logs), squeeze=False, sharex="col")
    for (name, log), (power, gpu, heat) in zip(logs, axes.T, strict=True):
        timed = log.elapsed_s is not None or interval_ms is not None
        scale = 1.0 if log.elapsed_s is not None or interval_ms is None else interval_ms / 1e3
        power.set_title(f"{printable(name)}: {log.lines} lines", fontsize=10)
        _draw_all(power, log.trace.points, "power ", scale, 1e-3, "power (W)")
        _draw_gpu(gpu, log.trace.points, scale)
        _draw_all(heat, log.trace.points, "temperature ", scale, 1.0, "temperature (C)")
        heat.set_xlabel("time (s)" if timed else "line")
    return figure


def _names(points: Sequence[Point], prefix: str) -> list[str]:
    """Return the series of one kind in the order of the log, the first few of them."""
    return [n for n in dict.fromkeys(n for point in points for n in point.series) if n.startswith(prefix)][:_MOST_LINES]


def _draw_all(axes: Any, points: Sequence[Point], prefix: str, x_scale: float, scale: float, label: str) -> None:
    names = _names(points, prefix)
    for name in names:
        _draw(axes, points, name, x_scale, scale, label=name.removeprefix(prefix))
    axes.set_ylabel(label)
    axes.grid(visible=True, alpha=0.3)
    if names:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _draw_gpu(axes: Any, points: Sequence[Point], x_scale: float) -> None:
    _draw(axes, points, "gpu_mhz", x_scale, 1.0, color="tab:blue")
    axes.set_ylabel("GPU clock (MHz)", color="tab:blue")
    axes.set_ylim(0, 1.05 * max([1.0, *(point.series["gpu_mhz"][3] for point in points if "gpu_mhz" in point.series)]))
    axes.grid(visible=True, alpha=0.3)
    if not _names(points, "gpu_mhz"):
        axes.set_yticks([])
        axes.set_ylabel("GPU clock: in no line", color="tab:blue")
    load = axes.twinx()
    _draw(load, points, "gpu_load_percent", x_scale, 1.0, color=_LOAD)
    load.set_ylabel("GPU load (%)", color=_LOAD)
    load.set_ylim(0, 105)


def _draw(axes: Any, points: Sequence[Point], name: str, x_scale: float, scale: float, **style: Any) -> None:
    """Draw the mean of a series, and least to greatest behind it where points stand for several lines."""
    found = [(point.x * x_scale, point.series[name]) for point in points if name in point.series]
    if not found:
        return
    x = [place for place, _ in found]
    (line,) = axes.plot(x, [scale * total / number for _, (number, total, _, _) in found], linewidth=1.2, **style)
    if any(number > 1 for _, (number, _, _, _) in found):
        low, high = ([scale * figures[place] for _, figures in found] for place in (2, 3))
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
