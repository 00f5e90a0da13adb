"""A comparison as one HTML page that needs nothing else: figures, errors, and the pictures that tell most."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from fine_edge import __version__
from fine_edge.evaluate import page
from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.comparison_tables import category_table, error_table, precision_table
from fine_edge.evaluate.telling import Telling, most_telling
from fine_edge.figure import new_figure
from fine_edge.report.svg import WIDTH_IN, to_svg
from fine_edge.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = 8
_COLORS = ("#8c8c8c", "#2c8fae")
_SIZES = {"ap_s": "small", "ap_m": "medium", "ap_l": "large"}


def draw_sizes(comparison: Comparison, width_in: float) -> Figure:
    """AP of both by size of the objects, with B's relative gain, as the paper's Fig. 4."""
    known = [metric for metric in ("ap", *_SIZES) if min(comparison.figures(metric)) >= 0]
    figure = new_figure(width_in, 2.9)
    axes = figure.add_subplot()
    for side, (name, color) in enumerate(zip(comparison.names, _COLORS, strict=True)):
        values = [100 * comparison.figures(metric)[side] for metric in known]
        axes.bar(np.arange(len(known)) + 0.4 * side - 0.2, values, 0.38, label=printable(name), color=color)
    for place, metric in enumerate(known):
        gain = comparison.gain(metric)
        if gain is not None:
            top = 100 * max(comparison.figures(metric))
            axes.annotate(
                f"{100 * gain:+.1f} %", (place, top), (0, 3), textcoords="offset points", ha="center", fontsize=8
            )
    axes.set_xticks(range(len(known)), [_SIZES.get(metric, "all") for metric in known])
    axes.set_ylabel("AP, %")
    axes.margins(y=0.15)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.22), ncols=2, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _pair(comparison: Comparison, one: Telling) -> str:
    captions = tuple(
        f"{name}: {len(judged.right)} right, {len(judged.wrong)} wrong, {len(judged.missed)} missed"
        for name, judged in zip(comparison.names, (one.a, one.b), strict=True)
    )
    return page.pair(comparison, one.image_id, (one.a, one.b), (captions[0], captions[1]))


def _pictures(comparison: Comparison) -> str:
    better, worse = most_telling(comparison, PICTURES)
    _, b = comparison.names
    key = page.key(right="right", wrong="wrong", missed="missed")
    parts = []
    for heading, found in ((f"{b} makes fewer errors", better), (f"{b} makes more errors", worse)):
        pairs = "".join(_pair(comparison, one) for one in found)
        if pairs:
            parts.append(f"<section><h2>{escape(heading)}</h2>{key}{pairs}</section>")
    return "".join(parts) if parts or not (better or worse) else page.NO_PICTURES


def to_html(comparison: Comparison) -> str:
    """The page."""
    a, b = comparison.names
    svg = to_svg(lambda: draw_sizes(comparison, WIDTH_IN), "AP by size of the objects", "sizes")
    data = comparison.data
    return page.frame(
        f"{b} against {a}",
        [
            f'<p class="soft">{len(data.images)} images of {escape(data.path.name)}, by fine_edge {__version__}.</p>',
            page.table(precision_table(comparison), "ap"),
            f"<figure>{svg}<figcaption>AP by size of the objects, and the relative gain.</figcaption></figure>",
            page.table(error_table(comparison), "errors"),
            page.table(category_table(comparison), "categories"),
            _pictures(comparison),
            page.origins(comparison),
        ],
    )
