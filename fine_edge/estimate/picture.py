"""Draw estimates: what bounds an engine's kernels, the result of a validation, and the cost of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge import files
from fine_edge.estimate.latency import BOUNDS, Estimate
from fine_edge.estimate.roofline import Bound
from fine_edge.estimate.tables import MARK, SOURCE, place
from fine_edge.estimate.validate import Validation
from fine_edge.estimate.variants import Variant
from fine_edge.figure import new_figure, to_png
from fine_edge.text import printable
from fine_edge.zoo.paper import PaperFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 150
_COLORS = {"compute": "#0b6e8f", "memory": "#b5651d", "launch": "#8a8a8a"}


def write_estimate(found: Estimate, path: Path) -> None:
    """Write the time by part of the detector, split by what bounds its kernels."""
    files.write_bytes(path, to_png(lambda: _draw_estimate(found), _DPI))


def _draw_estimate(found: Estimate) -> Figure:
    modules = dict.fromkeys(found.module_ms(), 0.0)
    figure, axes = _figure(1.4 + 0.36 * len(modules))
    times = {bound: modules.copy() for bound in BOUNDS}
    for kernel in found.kernels:
        times[kernel.bound][kernel.work.module] += kernel.ms
    _bars(axes, list(modules), {bound: list(of.values()) for bound, of in times.items()})
    axes.set_xlabel(f"ms, {found.latency_ms:.2f} ms in all with copies")
    axes.legend(frameon=False)
    return _titled(figure, axes, f"{MARK}: {found.engine.name} on {place(found)}")


def write_suite(title: str, found: Sequence[Estimate], published: Mapping[str, PaperFigures], path: Path) -> None:
    """Write the time by model, split by what bounds its kernels, with the paper's times as points."""
    files.write_bytes(path, to_png(lambda: _draw_suite(title, found, published), _DPI))


def _draw_suite(title: str, found: Sequence[Estimate], published: Mapping[str, PaperFigures]) -> Figure:
    figure, axes = _figure(1.7 + 0.36 * len(found))
    _bars(axes, [row.engine.name for row in found], {bound: [row.bound_ms[bound] for row in found] for bound in BOUNDS})
    for at, row in enumerate(found):
        interval = [[row.latency_ms - row.latency_ms_low], [row.latency_ms_high - row.latency_ms]]
        axes.errorbar([row.latency_ms], [at], xerr=interval, fmt="|", color="0.15", label="with copies" * (at == 0))
    # The paper's time of a query back to back, like the bars: Table 1 gives no latencies.
    paper = {at: published[row.engine.name].fps for at, row in enumerate(found) if row.engine.name in published}
    paper_ms = {at: 1000 / fps for at, fps in paper.items() if fps}
    if paper_ms:
        label = f"{SOURCE}, 1000 / FPS"
        axes.plot(list(paper_ms.values()), list(paper_ms), "D", color="white", markeredgecolor="black", label=label)
    axes.set_xlabel("ms")
    # Below the axes, which the bars of similar models fill.
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return _titled(figure, axes, f"{MARK}: {title}, on {place(found[0])}")


def write_validation(found: Validation, path: Path) -> None:
    """Write estimated and published FPS of each model, with the error."""
    files.write_bytes(path, to_png(lambda: _draw_validation(found), _DPI))


def _draw_validation(found: Validation) -> Figure:
    figure, axes = _figure(1.7 + 0.36 * len(found.rows))
    places = range(len(found.rows))
    published, estimated = ([getattr(row, name) for row in found.rows] for name in ("fps_paper", "fps_estimated"))
    axes.hlines(places, published, estimated, color="0.6", linewidth=2, zorder=1)
    axes.plot(published, places, "D", color="white", markeredgecolor="black", label=SOURCE)
    axes.plot(estimated, places, "o", color=_COLORS["compute"], label="estimate")
    for at, row in enumerate(found.rows):
        end = (max(row.fps_paper, row.fps_estimated), at)
        axes.annotate(f"{100 * row.error:+.1f} %", end, (9, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [row.model for row in found.rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(*published, *estimated))
    axes.set_xlabel("FPS")
    axes.legend(frameon=False, loc="lower left")
    return _titled(figure, axes, f"{MARK} against the paper's Tables 1 and 3: {found.device}, {found.mode}")


def write_sweep(title: str, found: Mapping[Variant, Estimate], path: Path) -> None:
    """Write estimated latency against FLOPs; detectors without FINE are grey."""
    files.write_bytes(path, to_png(lambda: _draw_sweep(title, found), _DPI))


def _draw_sweep(title: str, found: Mapping[Variant, Estimate]) -> Figure:
    figure, axes = _figure(4.6)
    first = next(iter(found.values()))
    ordered = sorted(found.items(), key=lambda item: item[1].engine.graph_flops)
    for number, (point, row) in enumerate(ordered):
        at = (row.engine.graph_flops / 1e9, row.latency_ms)
        axes.plot(*at, "o", color=_COLORS["compute"] if point.has_fine else _COLORS["launch"])
        # Names stand above and below in turn, because neighbours can be closer than a line is high.
        offset = (6, 5) if number % 2 else (6, -12)
        axes.annotate(point.label, at, offset, textcoords="offset points", fontsize=8)
    axes.margins(x=0.15, y=0.1)
    axes.set_xlabel("GFLOP of the graph's matrix products")
    low, high = (100 * (bound / first.latency_ms - 1) for bound in (first.latency_ms_low, first.latency_ms_high))
    axes.set_ylabel(f"estimated latency, ms; interval {low:+.0f} to {high:+.0f} %")
    return _titled(figure, axes, f"{MARK}: {title}, on {place(first)}")


def _bars(axes: Axes, names: Sequence[str], times_ms: Mapping[Bound, Sequence[float]]) -> None:
    """Draw one bar for each name from the top down, split by what bounds the kernels."""
    left = [0.0] * len(names)
    for bound, widths in times_ms.items():
        axes.barh(range(len(names)), widths, 0.62, left=left, color=_COLORS[bound], label=f"bound by {bound}")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(names)), [printable(name) for name in names])
    axes.invert_yaxis()


def _figure(height_in: float) -> tuple[Figure, Axes]:
    figure = new_figure(7.5, height_in)
    return figure, figure.add_subplot()


def _titled(figure: Figure, axes: Axes, title: str) -> Figure:
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(printable(title), x=0.01, ha="left", fontsize=10, wrap=True)
    return figure
