"""Figures by matplotlib, whose names are names: no formulas, whatever signs they hold."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure that can be written without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@contextlib.contextmanager
def style(parameters: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Draw with dollars in names as dollars, without remarks on signs that no font has, and as matplotlib's own say."""
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False, **(parameters or {})}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def to_png(draw: Callable[[], Figure], dpi: int) -> bytes:
    """Return the figure that ``draw`` makes as a PNG."""
    image = io.BytesIO()
    with style():
        draw().savefig(image, format="png", dpi=dpi)
    return image.getvalue()
