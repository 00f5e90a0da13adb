"""Show a comparison as one self-contained HTML page: figures, errors, and the pictures that differ most."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from fine_edge import __version__
from fine_edge.errors import DataError
from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.image_pairs import (
    LABELLED,
    MISSED,
    RIGHT,
    WRONG,
    ImagePair,
    Judged,
    Only,
    alone,
    differing,
    drawings,
    errors_text,
    most_different,
)
from fine_edge.evaluate.panels import MaskCrop, crop, crop_title
from fine_edge.evaluate.segment_comparison import SegmentComparison
from fine_edge.evaluate.segment_panels import key as segment_key
from fine_edge.evaluate.segment_panels import panels
from fine_edge.evaluate.tables import category_table, error_change_table, precision_change_table
from fine_edge.figure import new_figure
from fine_edge.html import CSS, WIDTH_IN, to_svg
from fine_edge.table import Table
from fine_edge.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

_CSS = f"""
.pair {{ display: grid; gap: 0.6rem; max-width: 60rem; margin: 1.2rem 0; }}
.pair img {{ width: 100%; height: auto; display: block; border-radius: 4px; }}
.pair p {{ grid-column: 1 / -1; margin: 0; }} .pair span {{ font-size: 0.875rem; }}
.key b {{ border-left: 0.9em solid; padding-left: 0.4em; margin-right: 1.2em; font-weight: 400; }}
.key .right {{ border-color: {RIGHT}; }} .key .wrong {{ border-color: {WRONG}; }}
.key .missed {{ border-color: {MISSED}; }} .key .labelled {{ border-color: {LABELLED}; }}
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
    return _side_by_side(comparison.data.images[image_id], list(zip(drawn, captions, strict=True)))


def _side_by_side(title: str, pictures: list[tuple[Image.Image, str]]) -> str:
    """Return pictures with their captions in one line, under a title."""
    name = escape(printable(title))
    figures = "".join(
        f'<figure><img src="{_data_url(picture)}" alt="{name}: {escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for picture, caption in ((picture, printable(caption)) for picture, caption in pictures)
    )
    columns = f"grid-template-columns: repeat({len(pictures)}, 1fr)"
    return f'<div class="pair" style="{columns}"><p class="soft">{name}</p>{figures}</div>'


def _data_url(picture: Image.Image) -> str:
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def key(**meanings: str) -> str:
    """Return the legend of the colours ``right``, ``wrong`` and ``missed``."""
    marks = "".join(f'<b class="{color}">{escape(meaning)}</b>' for color, meaning in meanings.items())
    return f'<p class="key soft">{marks}</p>'


NO_PICTURES = '<p class="soft">The pictures are not on this machine, so none is shown.</p>'


def origins(comparison: Comparison | SegmentComparison) -> str:
    """Return artifacts, backends, machines and data."""
    facts = []
    if isinstance(comparison, Comparison):
        sides = [comparison.a.evaluation.origin, comparison.b.evaluation.origin]
    else:
        sides = [comparison.a.origin, comparison.b.origin]
    for name, origin in zip(comparison.names, sides, strict=True):
        exact = "exact preprocessing" if origin.preprocessed == "exact" else None
        ran = ", ".join(filter(None, (origin.precision, exact, origin.backend, origin.machine.get("cpu"))))
        file = f"sha256 {origin.artifact_sha256}" if origin.artifact_sha256 else "a results file"
        facts.append(f"<dt>{escape(name)}</dt><dd>{escape(', '.join(filter(None, (ran, file))))}</dd>")
    data = comparison.data
    facts.append(f"<dt>data</dt><dd>{escape(data.path.name)}, sha256 {data.sha256}</dd>")
    return f"<h3>Where this comes from</h3><dl>{''.join(facts)}</dl>"


PICTURES = 8
_QUALITY = 72
_MOST_BARS = 20
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


def _pictures(comparison: Comparison, number: int) -> str:
    better, worse = most_different(comparison, number)
    _, b = comparison.names
    legend = key(right="right", wrong="wrong", missed="missed")
    parts = []
    for heading, found in ((f"{b} makes fewer errors", better), (f"{b} makes more errors", worse)):
        pairs = "".join(_pair(comparison, one) for one in found)
        if pairs:
            parts.append(f"<section><h2>{escape(heading)}</h2>{legend}{pairs}</section>")
    return "".join(parts) if parts or not (better or worse) else NO_PICTURES


def _one_kind(comparison: Comparison, only: Only, number: int) -> str:
    """Return the images whose number of false positives, or of missed objects, changes most."""
    changed = differing(comparison, only)[:number]
    pairs = []
    for one in changed:
        sides = alone(comparison, one, only)
        captions = [
            f"{name}: {errors_text(only, judged.errors())}"
            for name, judged in zip(comparison.names, sides, strict=True)
        ]
        pairs.append(pair(comparison, one.image_id, sides, (captions[0], captions[1])))
    heading = "False positives" if only == "fp" else "Missed objects"
    title = f"<h2>{heading} at a score of {comparison.threshold:g} or more</h2>"
    if not changed:
        return f'<section>{title}<p class="soft">No image has another number of them.</p></section>'
    mark = {"wrong": "false positive"} if only == "fp" else {"missed": "missed"}
    legend = key(labelled="labelled", **mark)
    return f"<section>{title}{legend}{''.join(pairs)}</section>" if any(pairs) else NO_PICTURES


def _masks(comparison: Comparison, number: int) -> str:
    """Return the objects whose mask IoU changes most; empty where masks are not compared."""
    if comparison.mask_changes is None:
        return ""
    crops = [found for one in comparison.mask_changes.objects[:number] if (found := crop(comparison, one))]
    if not crops:
        return ""
    return f"<section><h2>Masks that change most</h2>{''.join(_crop(comparison, one) for one in crops)}</section>"


def _crop(comparison: Comparison, one: MaskCrop) -> str:
    captions = crop_title(comparison, one)
    return _side_by_side(captions[0], list(zip(one.panels, ("whole", *captions[1:]), strict=True)))


def to_html(comparison: Comparison, only: Only | None = None, number: int = PICTURES) -> str:
    """Return the page.

    Args:
        comparison: of two detectors.
        only: show false positives or missed objects alone.
        number: of pictures that each section shows at most.
    """
    a, b = comparison.names
    svg = to_svg(lambda: draw_sizes(comparison, WIDTH_IN), "AP by size of the objects", "sizes")
    errors = [table(error_change_table(comparison, kind), f"errors-{kind}") for kind in comparison.kinds]
    return frame(
        f"{b} against {a}",
        [
            _of_images(comparison),
            table(precision_change_table(comparison), "ap"),
            f"<figure>{svg}<figcaption>AP by size of the objects, and the relative gain.</figcaption></figure>",
            *errors,
            table(category_table(comparison), "categories"),
            _one_kind(comparison, only, number) if only else _pictures(comparison, number),
            _masks(comparison, number),
            origins(comparison),
        ],
    )


def _of_images(comparison: Comparison | SegmentComparison) -> str:
    data = comparison.data
    return f'<p class="soft">{len(data.images)} images of {escape(data.path.name)}, by fine_edge {__version__}.</p>'


def draw_categories(comparison: SegmentComparison, width_in: float) -> Figure:
    """Draw IoU or PQ of both by category, those that differ most first, with the interval of the difference."""
    changed = [(name, found) for name, found in comparison.by_category.items() if found]
    changed.sort(key=lambda one: -abs(one[1].value))
    changed = changed[:_MOST_BARS]
    figure = new_figure(width_in, 1.2 + 0.3 * len(changed))
    axes = figure.add_subplot()
    for side, (name, color) in enumerate(zip(comparison.names, _COLORS, strict=True)):
        values = [100 * comparison.of_category(category)[side] for category, _ in changed]
        axes.barh(np.arange(len(changed)) + 0.4 * side - 0.2, values, 0.38, label=printable(name), color=color)
    for place, (category, found) in enumerate(changed):
        note = f" {100 * found.value:+.1f} ({100 * found.low:+.1f} .. {100 * found.high:+.1f})"
        axes.text(100 * max(comparison.of_category(category)), place, note, va="center", fontsize=7)
    axes.margins(x=0.6, y=0.02)
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 100])
    axes.set_yticks(range(len(changed)), [printable(name) for name, _ in changed])
    axes.invert_yaxis()
    axes.set_xlabel("IoU, %" if comparison.is_semantic else "PQ, %")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _segments(comparison: SegmentComparison, only: Only | None, number: int) -> str:
    """Return the images whose segments change most, with the colours' key; the reason where none can be drawn."""
    try:
        drawn = panels(comparison, only, number)
    except DataError as error:
        return f'<p class="soft">No picture is shown: {escape(printable(error.what))}.</p>'
    marks = "".join(
        f'<b style="border-color: rgb{color}">{escape(printable(name))}</b>'
        for name, color in segment_key(comparison, drawn, only)
    )
    rows = "".join(_side_by_side(one.row.title, [(picture, name) for name, picture in one.row.panels]) for one in drawn)
    return f'<section><h2>Pictures that change most</h2><p class="key soft">{marks}</p>{rows}</section>'


def segments_to_html(
    comparison: SegmentComparison,
    title: str,
    tables: Sequence[Table],
    only: Only | None = None,
    number: int = PICTURES,
) -> str:
    """Return the page of two segmenters: the tables, IoU or PQ by category as a figure, and pictures."""
    svg = to_svg(lambda: draw_categories(comparison, WIDTH_IN), "by category", "categories")
    return frame(
        title,
        [
            _of_images(comparison),
            *(table(one, f"table-{number}") for number, one in enumerate(tables)),
            f"<figure>{svg}<figcaption>By category, those that differ most first.</figcaption></figure>",
            _segments(comparison, only, number),
            origins(comparison),
        ],
    )
