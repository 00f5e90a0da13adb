"""FINE's share of an engine as a picture: one bar for each part."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from fine_edge import atomic
from fine_edge.figure import new_figure, to_png
from fine_edge.layers.by_part import PartSum, part_sums
from fine_edge.layers.layer import LayerProfile
from fine_edge.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FINE = "#b5651d"
_DETAIL = "#d9a066"
_REST = "#0b6e8f"
_LINE_CHARACTERS = 74


def write_picture(profile: LayerProfile, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    atomic.write_bytes(path, to_png(lambda: draw(profile), 160))


def draw(profile: LayerProfile, width_in: float = 7.0, *, titled: bool = True) -> Figure:
    """Time by part where the layers were timed, kernels by part otherwise."""
    totals = part_sums(profile)
    figure = new_figure(width_in, 1.2 + 0.34 * len(totals))
    axes = figure.add_subplot()
    values = [_value(total, timed=profile.is_timed) for total in totals]
    axes.barh(range(len(totals)), values, 0.62, color=[_color(total) for total in totals])
    for place, total in enumerate(totals):
        axes.annotate(
            _label(total, timed=profile.is_timed),
            (values[place], place),
            (5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(totals)), [_name(total) for total in totals])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.28 * max(values, default=1) or 1)
    axes.set_xlabel("ms, with a profiler attached" if profile.is_timed else "kernels (not timed)")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if titled:
        title = textwrap.fill(printable(f"Layers by part: {profile.source}"), _LINE_CHARACTERS)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _value(total: PartSum, *, timed: bool) -> float:
    return (total.ms or 0.0) if timed else float(total.layers)


def _label(total: PartSum, *, timed: bool) -> str:
    if not timed:
        return str(total.layers)
    return "-" if total.ms is None else f"{total.ms:.3f} ms, {total.percent or 0:.1f} %"


def _name(total: PartSum) -> str:
    return f"· {total.part.detail}" if total.part.module == "fine" and total.part.detail else total.title


def _color(total: PartSum) -> str:
    if total.part.module != "fine":
        return _REST
    return _DETAIL if total.part.detail else _FINE
