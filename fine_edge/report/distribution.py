"""The latency samples of every row of a record as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fine_edge.bench.record import Record
from fine_edge.bench.wording import attention_title
from fine_edge.figure import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FILL = "#2c8fae"
_BINS = 60
_HEIGHT = 0.8  # of a row's histogram, in rows


def draw_distribution(record: Record, width_in: float) -> Figure:
    """One histogram a row around the row's own median, so that scatter can be compared; every sample is in it."""
    scattered = [100 * (np.asarray(row.samples_ms) / row.latency_ms - 1) for row in record.rows]
    low, high = min(values.min() for values in scattered), max(values.max() for values in scattered)
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    figure = new_figure(width_in, 0.9 + 0.5 * len(scattered))
    axes = figure.add_subplot()
    for place, values in enumerate(scattered):
        counts, _ = np.histogram(values, edges)
        axes.stairs(place - _HEIGHT * counts / counts.max(), edges, baseline=place, fill=True, color=_FILL, alpha=0.8)
        axes.axhline(place, color="0.6", linewidth=0.6)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(scattered)), _names(record))
    axes.set_ylim(len(scattered) - 0.85, -1)
    axes.set_xlabel("latency over the row's median, %")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def _names(record: Record) -> list[str]:
    """Attention strategies where they tell the rows apart, models otherwise; each with its median."""
    attentions = [row.attention for row in record.rows if not record.is_baseline(row)]
    names = [row.model for row in record.rows]
    if None not in attentions and len(set(attentions)) == len(attentions) > 1:
        names = [attention_title(row.attention) or "baseline" for row in record.rows]
    return [f"{name}\n{row.latency_ms:.2f} ms" for name, row in zip(names, record.rows, strict=True)]
