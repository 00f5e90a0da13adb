"""Make matplotlib figures in which names stay text: no sign in a name starts a formula."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@contextlib.contextmanager
def style(parameters: Mapping[Any, Any] | None = None) -> Iterator[None]:
    """Draw with matplotlib's style changed by ``parameters``.

    Dollars in names stay dollars, and characters that no font has cause no warning.
    """
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False, **(parameters or {})}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def to_png(draw: Callable[[], Figure], dpi: int, software: str | None = None) -> bytes:
    """Return the figure that ``draw`` makes as a PNG; ``software`` is what its file names as its maker."""
    image = io.BytesIO()
    with style():
        draw().savefig(image, format="png", dpi=dpi, metadata={"Software": software} if software else None)
    return image.getvalue()
