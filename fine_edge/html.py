"""Embed figures as SVG in a page: transparent, with text and axes in the page's colour, for light and dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from fine_edge.figure import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure


CSS = """
:root { color-scheme: light dark; --ink: #1d2327; --soft: #5b6770; --line: #d9dee2; --page: #fbfbfa; --card: #ffffff;
  --good: #2f6f4f; --bad: #a33b2e; --note: #8a5a12; --paper: #8a5a12; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e6e8; --soft: #9aa6ae; --line: #353d43; --page: #15191c;
  --card: #1b2024; --good: #7cc4a0; --bad: #e88f82; --note: #d9a760; --paper: #d9a760; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1.5rem clamp(0.9rem, 3vw, 2.5rem) 4rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 0.2em; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0 0.3rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 0.3rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 0.5rem; }
p { margin: 0.4rem 0; max-width: 48rem; }
.soft, figcaption, .notes { color: var(--soft); font-size: 0.875rem; }
section { margin-top: 2.2rem; padding-top: 1.6rem; border-top: 1px solid var(--line); }
.estimate { border: 2px dashed var(--note); border-radius: 6px; padding: 1.2rem; }
.mark { display: inline-block; border: 1px solid currentColor; border-radius: 4px; padding: 0 0.45em; font-size: 0.8rem;
  font-weight: 600; letter-spacing: 0.03em; white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .note { color: var(--note); }
.stamps { list-style: none; padding: 0; margin: 0.8rem 0; font-size: 0.925rem; }
.stamps li { margin: 0.35rem 0; overflow-wrap: anywhere; }
.table { overflow-x: auto; margin: 0.8rem 0; border: 1px solid var(--line); border-radius: 6px;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { padding: 0.42rem 0.45rem; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: normal; min-width: 3.3rem; vertical-align: bottom; }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--card); }
.notes { padding-left: 1.1rem; margin: 0.6rem 0; max-width: 60rem; }
.notes li { margin: 0.2rem 0; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.2rem 2rem; }
figure { margin: 0.6rem 0; min-width: 0; max-width: 36rem; }
figure svg { display: block; width: 100%; height: auto; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0.15rem 1rem; font-size: 0.875rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 30rem) { body { font-size: 15px; } th, td { padding: 0.35rem 0.5rem; }
  th:first-child, td:first-child { min-width: 8.8rem; white-space: normal; overflow-wrap: break-word; } }
@page { size: A4 landscape; margin: 12mm; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --card: #fff;
    --good: #2f6f4f; --bad: #a33b2e; --note: #8a5a12; --paper: #8a5a12; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  figure, tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
  .table { overflow: visible; border: 0; break-inside: avoid; } table { font-size: 8pt; }
  th, td { padding: 0.2rem 0.4rem; min-width: 0; } th:first-child, td:first-child { position: static; }
  .figures { grid-template-columns: 1fr 1fr; } figure { max-width: 11cm; } }
"""


# Narrow enough that 9-point text stays readable when a telephone scales the figure down.
WIDTH_IN = 4.6

# A colour that is used for nothing else; the page's text colour replaces it.
_INK = "#010203"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "svg.hashsalt": "fine_edge",  # makes the ids of a drawing reproducible
    "svg.fonttype": "path",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor"), _INK
    ),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), "none"),
}


def to_svg(draw: Callable[[], Figure], label: str, prefix: str) -> str:
    """Return a figure as an SVG element.

    Args:
        draw: makes the figure; called with the page's style in force.
        label: says what the figure shows, for screen readers.
        prefix: begins all ids, unique within the page.
    """
    text = io.StringIO()
    with style(_STYLE):
        draw().savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inlined(text.getvalue(), label, prefix)


def _inlined(text: str, label: str, prefix: str) -> str:
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(rf"{_INK}|\bblack\b|#000000", "currentColor", svg)
    # The page decides the size, not the drawing.
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
