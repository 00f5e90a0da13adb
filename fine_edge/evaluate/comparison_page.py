"""Show a comparison as one self-contained HTML page: figures, errors, and the pictures that differ most."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from fine_edge import __version__
from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.image_pairs import MISSED, RIGHT, WRONG, ImagePair, Judged, drawings, most_different
from fine_edge.evaluate.tables import category_table, error_change_table, precision_change_table
from fine_edge.figure import new_figure
from fine_edge.html import CSS, WIDTH_IN, to_svg
from fine_edge.table import Table
from fine_edge.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CSS = f"""
.pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 0.6rem; max-width: 60rem; margin: 1.2rem 0; }}
.pair img {{ width: 100%; height: auto; display: block; border-radius: 4px; }}
.pair p {{ grid-column: 1 / -1; margin: 0; }} .pair span {{ font-size: 0.875rem; }}
.key b {{ border-left: 0.9em solid; padding-left: 0.4em; margin-right: 1.2em; font-weight: 400; }}
.key .right {{ border-color: {RIGHT}; }} .key .wrong {{ border-color: {WRONG}; }}
.key .missed {{ border-color: {MISSED}; }}
"""


def frame(title: str, body: list[str]) -> str:
    """Return the whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{_CSS}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>{chr(10).join(body)}</body></html>\n"
    )


def table(shown: Table, key: str) -> str:
    """Return a table that scrolls sideways, with its title above and its notes below."""
    rules = " ".join(
        f"#{key} :is(th, td):nth-child({place}) {{ text-align: right }}"
        for place, column in enumerate(shown.columns, 1)
        if column.numeric
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in shown.notes)
    return (
        f'<h3>{escape(shown.title)}</h3><style>{rules}</style><div class="table" id="{key}">{shown.to_html()}</div>'
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def pair(comparison: Comparison, image_id: int, sides: tuple[Judged, Judged], captions: tuple[str, str]) -> str:
    """Return an image with the detections of both sides; empty where the picture is gone."""
    drawn = drawings(comparison, image_id, *sides)
    if drawn is None:
        return ""
    name = escape(comparison.data.images[image_id])
    figures = "".join(
        f'<figure><img src="{url}" alt="{name}: {escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
        for url, caption in zip(drawn, captions, strict=True)
    )
    return f'<div class="pair"><p class="soft">{name}</p>{figures}</div>'


def key(**meanings: str) -> str:
    """Return the legend of the colours ``right``, ``wrong`` and ``missed``."""
    marks = "".join(f'<b class="{color}">{escape(meaning)}</b>' for color, meaning in meanings.items())
    return f'<p class="key soft">{marks}</p>'


NO_PICTURES = '<p class="soft">The pictures are not on this machine, so none is shown.</p>'


def origins(comparison: Comparison) -> str:
    """Return artifacts, backends, machines and data."""
    facts = []
    for name, side in zip(comparison.names, (comparison.a, comparison.b), strict=True):
        origin = side.evaluation.origin
        exact = "exact preprocessing" if origin.preprocessed == "exact" else None
        ran = ", ".join(filter(None, (origin.precision, exact, origin.backend, origin.machine.get("cpu"))))
        file = f"sha256 {origin.artifact_sha256}" if origin.artifact_sha256 else "a results file"
        facts.append(f"<dt>{escape(name)}</dt><dd>{escape(', '.join(filter(None, (ran, file))))}</dd>")
    data = comparison.data
    facts.append(f"<dt>data</dt><dd>{escape(data.path.name)}, sha256 {data.sha256}</dd>")
    return f"<h3>Where this comes from</h3><dl>{''.join(facts)}</dl>"


PICTURES = 8
_COLORS = ("#8c8c8c", "#2c8fae")
_SIZES = {"ap_s": "small", "ap_m": "medium", "ap_l": "large"}


def draw_sizes(comparison: Comparison, width_in: float) -> Figure:
    """Draw AP of both by size of the objects, with B's relative gain, as the paper's Fig. 4."""
    metrics = [metric for metric in ("ap", *_SIZES) if min(comparison.figures(metric)) >= 0]
    figure = new_figure(width_in, 2.9)
    axes = figure.add_subplot()
    for side, (name, color) in enumerate(zip(comparison.names, _COLORS, strict=True)):
        values = [100 * comparison.figures(metric)[side] for metric in metrics]
        axes.bar(np.arange(len(metrics)) + 0.4 * side - 0.2, values, 0.38, label=printable(name), color=color)
    for place, metric in enumerate(metrics):
        gain = comparison.gain(metric)
        if gain is not None:
            top = 100 * max(comparison.figures(metric))
            axes.annotate(
                f"{100 * gain:+.1f} %", (place, top), (0, 3), textcoords="offset points", ha="center", fontsize=8
            )
    axes.set_xticks(range(len(metrics)), [_SIZES.get(metric, "all") for metric in metrics])
    axes.set_ylabel("AP, %")
    axes.margins(y=0.15)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.22), ncols=2, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _pair(comparison: Comparison, one: ImagePair) -> str:
    captions = tuple(
        f"{name}: {len(judged.right)} right, {len(judged.wrong)} wrong, {len(judged.missed)} missed"
        for name, judged in zip(comparison.names, (one.a, one.b), strict=True)
    )
    return pair(comparison, one.image_id, (one.a, one.b), (captions[0], captions[1]))


def _pictures(comparison: Comparison) -> str:
    better, worse = most_different(comparison, PICTURES)
    _, b = comparison.names
    legend = key(right="right", wrong="wrong", missed="missed")
    parts = []
    for heading, found in ((f"{b} makes fewer errors", better), (f"{b} makes more errors", worse)):
        pairs = "".join(_pair(comparison, one) for one in found)
        if pairs:
            parts.append(f"<section><h2>{escape(heading)}</h2>{legend}{pairs}</section>")
    return "".join(parts) if parts or not (better or worse) else NO_PICTURES


def to_html(comparison: Comparison) -> str:
    """Return the page."""
    a, b = comparison.names
    svg = to_svg(lambda: draw_sizes(comparison, WIDTH_IN), "AP by size of the objects", "sizes")
    data = comparison.data
    return frame(
        f"{b} against {a}",
        [
            f'<p class="soft">{len(data.images)} images of {escape(data.path.name)}, by fine_edge {__version__}.</p>',
            table(precision_change_table(comparison), "ap"),
            f"<figure>{svg}<figcaption>AP by size of the objects, and the relative gain.</figcaption></figure>",
            table(error_change_table(comparison), "errors"),
            table(category_table(comparison), "categories"),
            _pictures(comparison),
            origins(comparison),
        ],
    )
