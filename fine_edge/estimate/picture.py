"""Pictures of estimates: what an engine is bound by, what a validation found, and what a sweep costs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge import atomic
from fine_edge.estimate.latency import BOUNDS, Estimate
from fine_edge.estimate.render import MARK, place
from fine_edge.estimate.validate import Validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {"compute": "#0b6e8f", "memory": "#b5651d", "launch": "#8a8a8a"}


def write_estimate(found: Estimate, path: Path) -> None:
    """Time by part of the detector, by what its kernels are bound by."""
    modules = list(found.module_ms())
    figure, axes = _figure(1.4 + 0.36 * len(modules))
    left = [0.0] * len(modules)
    for bound in BOUNDS:
        widths = [
            sum(kernel.ms for kernel in found.kernels if (kernel.work.module, kernel.bound) == (module, bound))
            for module in modules
        ]
        axes.barh(modules, widths, 0.62, left=left, color=_COLORS[bound], label=f"bound by {bound}")
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(f"ms, {found.latency_ms:.2f} ms in all with copies")
    axes.legend(frameon=False)
    _write(figure, axes, f"{MARK}: {found.engine.name} on {place(found)}", path)


def write_validation(found: Validation, path: Path) -> None:
    """Predicted against published FPS."""
    figure, axes = _figure(5.2)
    most = 1.1 * max(max(row.fps_paper, row.fps_predicted) for row in found.rows)
    axes.plot([0, most], [0, most], color="0.4", linewidth=1)
    axes.fill_between([0, most], [0, 0.9 * most], [0, 1.1 * most], color="0.5", alpha=0.15, linewidth=0)
    published = [row.fps_paper for row in found.rows]
    axes.plot(published, [row.fps_predicted for row in found.rows], "o", color=_COLORS["compute"])
    for row in found.rows:
        label = f"{row.model} {100 * row.error:+.1f} %"
        # A detector and the one with FINE lie close to each other: their names stand on either side.
        place, side = ((6, -8), "left") if row.model.endswith("_fine") else ((-6, 4), "right")
        point = (row.fps_paper, row.fps_predicted)
        axes.annotate(label, point, place, textcoords="offset points", fontsize=7, ha=side)
    axes.set_xlim(0, 1.15 * most)
    axes.set_ylim(0, most)
    axes.set_xlabel("published FPS; the band is 10 % wide on either side")
    axes.set_ylabel("predicted FPS")
    _write(figure, axes, f"{MARK} against the paper's Table 1, calibrated on {found.calibrated_on}", path)


def write_sweep(title: str, found: Sequence[tuple[str, Estimate]], path: Path) -> None:
    """Predicted latency against FLOPs."""
    figure, axes = _figure(4.6)
    for label, row in found:
        gflop = row.engine.graph_flops / 1e9
        interval = [[row.latency_ms - row.latency_ms_low], [row.latency_ms_high - row.latency_ms]]
        axes.errorbar([gflop], [row.latency_ms], yerr=interval, fmt="o", color=_COLORS["compute"], ecolor="0.7")
        axes.annotate(label, (gflop, row.latency_ms), (6, 4), textcoords="offset points", fontsize=8)
    axes.margins(x=0.15)
    axes.set_xlabel("GFLOP of the graph's matrix products")
    axes.set_ylabel("predicted latency, ms")
    _write(figure, axes, f"{MARK}: {title}, on {place(found[0][1])}", path)


def _figure(height_in: float) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _write(figure: Figure, axes: Axes, title: str, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, wrap=True)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=150)
    atomic.write_bytes(path, image.getvalue())
