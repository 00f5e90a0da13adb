"""Draw the latency samples of a record, and the board's state while it was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fine_edge.bench.paper import attention_title
from fine_edge.bench.record import Record
from fine_edge.figure import new_figure
from fine_edge.jetson.snapshot import Snapshot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_FILL = "#2c8fae"
_BINS = 60
_HEIGHT = 0.8  # of a row's histogram, in rows


def draw_distribution(record: Record, width_in: float) -> Figure:
    """Draw one histogram a row around the row's own median, so that scatter can be compared; every sample is in it."""
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
    """Return the attention strategies where they differ by row, models otherwise; each with its median."""
    attentions = [row.attention for row in record.rows if not record.is_baseline(row)]
    names = [row.model for row in record.rows]
    if None not in attentions and len(set(attentions)) == len(attentions) > 1:
        names = [attention_title(row.attention) or "baseline" for row in record.rows]
    return [f"{name}\n{row.latency_ms:.2f} ms" for name, row in zip(names, record.rows, strict=True)]


_COLORS = ("#2c8fae", "#b5651d", "#6a8f3c", "#8a63a8", "#c0504d", "#8c8c8c")
_PANEL_IN = 1.5
_Series = dict[str, list[tuple[float, float]]]


def snapshots_of(record: Record) -> list[Snapshot]:
    """Return all states of the board in order of time, each once although rows share those between their rounds."""
    states = {snapshot.at_s: snapshot for row in record.rows if row.state for snapshot in row.state.snapshots}
    return [states[at_s] for at_s in sorted(states)]


def panels(snapshots: list[Snapshot]) -> dict[str, _Series]:
    """Return curves by axis title; panels and curves without a reading are left out."""
    start_s = snapshots[0].at_s if snapshots else 0.0
    found: dict[str, _Series] = {"MHz": {}, "degrees C": {}, "W": {}}

    def add(panel: str, curve: str, snapshot: Snapshot, value: float | None) -> None:
        if value is not None:
            found[panel].setdefault(curve, []).append((snapshot.at_s - start_s, value))

    for snapshot in snapshots:
        add("MHz", "GPU", snapshot, snapshot.gpu_mhz)
        add("MHz", "GPU limit", snapshot, snapshot.gpu_max_mhz)
        add("MHz", "memory", snapshot, snapshot.emc_mhz)
        for name, value in snapshot.temperatures_c.items():
            add("degrees C", name, snapshot, value)
        for name, value in snapshot.power_mw.items():
            add("W", name, snapshot, value / 1000)
    return {title: curves for title, curves in found.items() if curves}


def draw_state(snapshots: list[Snapshot], width_in: float) -> Figure:
    """Draw one panel below the other over the same seconds; moments in which the board held back are shaded."""
    shown = panels(snapshots)
    figure = new_figure(width_in, 0.5 + _PANEL_IN * len(shown))
    axes_list = figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0]
    for axes, (title, curves) in zip(axes_list, shown.items(), strict=True):
        _draw_panel(axes, title, curves)
        _shade(axes, snapshots)
    axes_list[-1].set_xlabel("seconds since the first reading")
    return figure


def _draw_panel(axes: Axes, title: str, curves: _Series) -> None:
    for index, (name, points) in enumerate(curves.items()):
        times, values = zip(*points, strict=True)
        style = "--" if name.endswith("limit") else "-"
        axes.plot(times, values, style, color=_COLORS[index % len(_COLORS)], linewidth=1.3, label=name)
    axes.set_ylabel(title)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="0.5", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    columns = min(len(curves), 4)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.96), ncols=columns, fontsize=8, frameon=False)


def _shade(axes: Axes, snapshots: list[Snapshot]) -> None:
    for before, after in zip(snapshots, [*snapshots[1:], snapshots[-1]], strict=True):
        if before.throttle:
            start_s = snapshots[0].at_s
            axes.axvspan(before.at_s - start_s, after.at_s - start_s, color="#c0504d", alpha=0.18, linewidth=0)
