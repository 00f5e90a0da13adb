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
_NAMES_A_PANEL = 2
_STYLES = ("-", "--", ":")


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


def _draw_one(axes: Any, one: VariantOutcome, over: Mapping[float, OverSeeds], number: int) -> None:
    epochs, color = list(over), f"C{number % 10}"
    means = [point.mean for point in over.values()]
    name = printable(one.variant.name)[:_LONGEST_NAME]
    style = _STYLES[number // 10 % len(_STYLES)]  # matplotlib has ten colours
    axes.plot(epochs, means, style, color=color, marker="o", markersize=3, label=name)
    spreads = [point.sd or 0.0 for point in over.values()]
    if any(spreads):
        # A standard deviation does not know that no AP is below zero.
        low = [max(m - s, min(m, 0.0)) for m, s in zip(means, spreads, strict=True)]
        high = [m + s for m, s in zip(means, spreads, strict=True)]
        axes.fill_between(epochs, low, high, color=color, alpha=0.12, linewidth=0)


def _drawn(found: StudyOutcome) -> Figure:
    from matplotlib.ticker import MaxNLocator

    drawn = {title: [one.over_epochs(of) for one in found.variants] for title, of in PANELS.items()}
    drawn = {title: curves for title, curves in drawn.items() if any(curves)}  # data may have no small objects
    a_row = _NAMES_A_PANEL * max(len(drawn), 1)
    rows = -(-len(found.variants) // a_row)
    figure = new_figure(4.2 * max(len(drawn), 1), 4.2 + 0.2 * rows)
    for place, (title, curves) in enumerate(drawn.items(), 1):
        axes = figure.add_subplot(1, len(drawn), place)
        for number, (one, over) in enumerate(zip(found.variants, curves, strict=True)):
            _draw_one(axes, one, over, number)
        axes.set_xlabel("epochs")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    if drawn:
        lines, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside lower center", ncols=a_row, frameon=False, fontsize=8)
    seeds = len(found.seeds)
    band = f"mean of {seeds} seeds, band: one standard deviation" if seeds > 1 else "one seed"
    figure.suptitle(f"{printable(found.title)[:80]} ({band})", fontsize=11)
    return figure


def write_curves(found: StudyOutcome, path: Path) -> None:
    """Draw losses and APs over epochs into a PNG."""
    write_bytes(path, to_png(lambda: _drawn(found), _DPI))
