"""What pages of two evaluations share: the frame, tables, pairs of pictures, and where it all comes from."""

from __future__ import annotations

from html import escape

from fine_edge.evaluate.comparison import Comparison
from fine_edge.evaluate.telling import MISSED, RIGHT, WRONG, Judged, drawings
from fine_edge.report.style import CSS
from fine_edge.table import Table

_CSS = f"""
.pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: 0.6rem; max-width: 60rem; margin: 1.2rem 0; }}
.pair img {{ width: 100%; height: auto; display: block; border-radius: 4px; }}
.pair p {{ grid-column: 1 / -1; margin: 0; }} .pair span {{ font-size: 0.875rem; }}
.key b {{ border-left: 0.9em solid; padding-left: 0.4em; margin-right: 1.2em; font-weight: 400; }}
.key .right {{ border-color: {RIGHT}; }} .key .wrong {{ border-color: {WRONG}; }}
.key .missed {{ border-color: {MISSED}; }}
"""


def frame(title: str, body: list[str]) -> str:
    """The whole page."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{_CSS}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>{chr(10).join(body)}</body></html>\n"
    )


def table(shown: Table, key: str) -> str:
    """A table in a frame that scrolls sideways, its title above and its notes below."""
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
    """An image as both sides see it; empty where the picture is not there any more."""
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
    """What the colours ``right``, ``wrong`` and ``missed`` stand for."""
    marks = "".join(f'<b class="{color}">{escape(meaning)}</b>' for color, meaning in meanings.items())
    return f'<p class="key soft">{marks}</p>'


NO_PICTURES = '<p class="soft">The pictures are not on this machine, so none is shown.</p>'


def origins(comparison: Comparison) -> str:
    """Artifacts, backends, machines and data."""
    facts = []
    for name, side in zip(comparison.names, (comparison.a, comparison.b), strict=True):
        origin = side.evaluation.origin
        ran = ", ".join(filter(None, (origin.precision, origin.backend, origin.machine.get("cpu"))))
        file = f"sha256 {origin.artifact_sha256}" if origin.artifact_sha256 else "a results file"
        facts.append(f"<dt>{escape(name)}</dt><dd>{escape(', '.join(filter(None, (ran, file))))}</dd>")
    data = comparison.data
    facts.append(f"<dt>data</dt><dd>{escape(data.path.name)}, sha256 {data.sha256}</dd>")
    return f"<h3>Where this comes from</h3><dl>{''.join(facts)}</dl>"
