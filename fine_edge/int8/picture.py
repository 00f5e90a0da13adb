"""Draw a study: what each block of the detector loses alone in INT8, and what each placement costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge import files
from fine_edge.figure import new_figure, to_png
from fine_edge.int8.study import Int8Study
from fine_edge.int8.trials import Trial
from fine_edge.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 150
_LOSS, _COST, _CHOSEN = "#b5651d", "#0b6e8f", "#0a3d4f"


def write_picture(study: Int8Study, path: Path) -> None:
    """Write the picture of a study as a PNG."""
    files.write_bytes(path, to_png(lambda: _drawn(study), _DPI))


def _drawn(study: Int8Study) -> Figure:
    figure = new_figure(10, max(4.2, 1.2 + 0.4 * len(study.blocks)))
    loss, cost = figure.subplots(1, 2)
    _draw_loss(loss, study)
    _draw_cost(cost, study)
    figure.suptitle(printable(f"{study.network.path.name} in INT8, verdict: {study.verdict}"), fontsize=11)
    return figure


def _draw_loss(axes: Axes, study: Int8Study) -> None:
    """Draw the boxes' median drift of each block alone, with the share of flipped detections in words.

    Of a class for each pixel the share that changes is drawn.
    """
    rows = {"FP16 alone": study.half} | {f"{name} in INT8": trial for name, trial in study.blocks.items()}
    flips = [trial.drift.flipped_share for trial in rows.values()]
    if study.half.drift.of_pixels:
        drifts, what = [100 * flip for flip in flips], "pixels that change class, %"
        labels = [f"{drift:.2f} %" for drift in drifts]
    else:
        drifts = [trial.drift.box_px[0] if trial.drift.box_px else 0.0 for trial in rows.values()]
        what = "median drift of boxes against FP32, px"
        labels = [f"{drift:.2f} px, {flip:.1%} flip" for drift, flip in zip(drifts, flips, strict=True)]
    bars = axes.barh(list(rows), drifts, color=_LOSS)
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.set_xlim(0, 1.6 * max(*drifts, 0.01))
    axes.set_xlabel(what)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _draw_cost(axes: Axes, study: Int8Study) -> None:
    """Draw the estimated latency of each placement against FP16, with its kernels in words."""
    compiled: Sequence[Trial] = [trial for trial in (study.half, *study.candidates) if trial.compiled]
    if not compiled:
        axes.text(0.5, 0.5, "not compiled: TensorRT-RTX is not installed", ha="center", va="center")
        axes.set_axis_off()
        return
    costs = [trial.compiled for trial in compiled if trial.compiled]
    times = [cost.fused_estimate_ms for cost in costs]
    colors = [_CHOSEN if trial.title == study.chosen.title else _COST for trial in compiled]
    bars = axes.barh([trial.title for trial in compiled], times, color=colors)
    labels = [f"{time:.2f} ms, {cost.kernels} kernels" for time, cost in zip(times, costs, strict=True)]
    axes.bar_label(bars, labels, label_type="center", color="white", fontsize=8)
    axes.plot([cost.estimate_ms for cost in costs], range(len(costs)), "|", color="0.2", markersize=14)
    axes.set_xlabel("ESTIMATED latency, ms\nmarks: in two kernels, as compiled here")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
