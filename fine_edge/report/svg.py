"""Figures as SVG inside a page: transparent, with text and axes in the page's colour, for light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

from fine_edge.figure import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_IN = 4.6
"""Narrow enough that 9-point text can still be read when a telephone scales the figure down."""

# A colour that nothing else has; the page's own takes its place.
_INK = "#010203"
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "svg.hashsalt": "fine_edge",  # the same ids every time
    "svg.fonttype": "path",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "axes.titlecolor"), _INK
    ),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), "none"),
}


def to_svg(draw: Callable[[], Figure], label: str, prefix: str) -> str:
    """The figure that ``draw`` makes, as an SVG element.

    Args:
        draw: makes the figure; called with the page's style in force.
        label: what it shows, for those who cannot see it.
        prefix: of all ids, unique within the page.
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
    # The drawing's size in points gives way to the page's.
    svg = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", svg, count=1)
    svg = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
