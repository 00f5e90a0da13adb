"""The curves of a study, after the paper's Fig. 7: training loss and AP of small objects over epochs, by variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_edge.figure import new_figure, to_png
from fine_edge.files import write_bytes
from fine_edge.study.outcome import OverSeeds, StudyOutcome, VariantOutcome
from fine_edge.study.result import RunResult
from fine_edge.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 130
_LONGEST_NAME = 40


def _losses(result: RunResult) -> dict[float, float]:
    return {point.epoch: point.loss for point in result.losses}


def _figure(name: str) -> Callable[[RunResult], Mapping[float, float]]:
    def of(result: RunResult) -> dict[float, float]:
        found = ((point.epoch, point.figures[name]) for point in result.curve)
        return {epoch: value for epoch, value in found if value is not None}

    return of


PANELS: dict[str, Callable[[RunResult], Mapping[float, float]]] = {
    "training loss": _losses,
    "AP_s (%)": _figure("ap_s"),
    "AP (%)": _figure("ap"),
}
"""Quantities over epochs, by the titles of their axes."""


def _draw_one(axes: Any, one: VariantOutcome, over: Mapping[float, OverSeeds], color: str) -> None:
    epochs = list(over)
    means = [point.mean for point in over.values()]
    name = printable(one.variant.name)[:_LONGEST_NAME]
    axes.plot(epochs, means, color=color, marker="o", markersize=3, label=name)
    spreads = [point.sd or 0.0 for point in over.values()]
    if any(spreads):
        low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
        axes.fill_between(epochs, low, high, color=color, alpha=0.12, linewidth=0)


def _drawn(found: StudyOutcome) -> Figure:
    figure = new_figure(4.2 * len(PANELS), 4.4)
    for place, (title, of) in enumerate(PANELS.items(), 1):
        axes = figure.add_subplot(1, len(PANELS), place)
        for number, one in enumerate(found.variants):
            over = one.over_epochs(of)
            if over:
                _draw_one(axes, one, over, f"C{number % 10}")
        axes.set_xlabel("epochs")
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
        if place == 1 and axes.lines:
            axes.legend(frameon=False, fontsize=8)
    seeds = len(found.seeds)
    band = f"mean of {seeds} seeds, band: one standard deviation" if seeds > 1 else "one seed"
    figure.suptitle(f"{printable(found.title)[:80]} ({band})", fontsize=11)
    return figure


def write_curves(found: StudyOutcome, path: Path) -> None:
    """Draw losses and APs over epochs into a PNG."""
    write_bytes(path, to_png(lambda: _drawn(found), _DPI))
