"""Show how far estimates are off what others published: tables and one picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fine_edge import files
from fine_edge.estimate.calibration import PRECISIONS, Constants, Precision
from fine_edge.estimate.device import Device, find_device
from fine_edge.estimate.published import PublishedFit, PublishedRow
from fine_edge.figure import new_figure, to_png
from fine_edge.table import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150
_NAMED = 3
_SMALL: Any = {"textcoords": "offset points", "fontsize": 7}
_COLORS = {"orin-nano": "#0b6e8f", "orin-nx": "#b5651d", "agx-orin": "#5b7f2b"}
_MARKERS: dict[Precision, str] = {"fp32": "s", "fp16": "o", "int8": "^"}


def errors_table(found: PublishedFit) -> Table:
    """Return absolute errors by precision and board: fitted, with the model left out, with the source left out."""
    titles = (
        "Rows",
        "Fitted (%)",
        "worst",
        "Model left out (%)",
        "worst",
        "Source left out (%)",
        "worst",
        "Inside (%)",
    )
    columns = [Column("Precision, board", numeric=False), *map(Column, titles)]
    table = Table("Calibration: absolute errors of published latencies, median and worst", columns)
    calibration = found.calibration()
    for precision, device, chosen in _groups(found.rows):
        errors = (found.errors[chosen], found.without_model[chosen], found.without_source[chosen])
        low, high = calibration.interval(precision, device)
        factors = np.exp(-found.without_model[chosen])
        inside = np.mean((factors >= low) & (factors <= high))
        table.add(
            f"{precision.upper()}, {device.name}",
            len(chosen),
            *(f"{figure:.1f}" for of in errors for figure in _median_and_worst(of)),
            f"{100 * inside:.0f}",
        )
    table.notes = [
        f"Constants: {constants_text(found.constants)}",
        "Model left out: every row of the model was left out of the fit; source left out: those of its publisher.",
        "Inside: rows within the interval, which is of errors with their model left out.",
        "Rows of YOLOv9 are of another export than ours and never fitted.",
    ]
    return table


def rows_table(found: PublishedFit) -> Table:
    """Return the error of every published row."""
    columns = [Column("Row", numeric=False), *map(Column, ("ms", "Fitted (%)", "Model left out (%)"))]
    table = Table("Every published row: measured time, and errors of its estimate", columns)
    for index, row in enumerate(found.rows):
        errors = (found.errors[index], found.without_model[index])
        table.add(row.name, f"{row.compute_ms:.3f}", *(f"{100 * np.expm1(error):+.1f}" for error in errors))
    return table


def constants_text(constants: Constants) -> str:
    """Return the constants as one line."""
    return "; ".join(f"{name} {value:g}" for name, value in vars(constants).items()) + "."


def write_published(found: PublishedFit, path: Path) -> None:
    """Write measured against estimated times of all boards, models left out."""
    files.write_bytes(path, to_png(lambda: _draw(found), _DPI))


def _draw(found: PublishedFit) -> Figure:
    figure = new_figure(7.5, 5.6)
    axes = figure.add_subplot()
    measured = np.array([row.compute_ms for row in found.rows])
    estimated = measured * np.exp(found.without_model)
    ends = np.array([measured.min() / 1.3, measured.max() * 1.3])
    axes.fill_between(ends, 0.8 * ends, 1.25 * ends, color="0.93", label="0.8 to 1.25 of the measured time")
    axes.plot(ends, ends, color="0.6", linewidth=1)
    for precision, device, chosen in _groups(found.rows):
        axes.plot(
            measured[chosen],
            estimated[chosen],
            _MARKERS[precision],
            color=_COLORS[device.family],
            markersize=5,
            alpha=0.75,
            label=f"{device.title}, {precision.upper()}",
        )
    worst = {found.rows[index].graph: index for index in np.argsort(np.abs(found.without_model))}
    for graph, index in list(worst.items())[-_NAMED:]:
        at = (float(measured[index]), float(estimated[index]))
        above = found.without_model[index] > 0
        axes.annotate(graph, at, (-6, 6) if above else (8, -6), ha="right" if above else "left", **_SMALL)
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        set_scale("log")
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("measured, ms")
    axes.set_ylabel("estimated without any row of the model, ms")
    axes.legend(frameon=False, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("ESTIMATE against latencies that others published", x=0.01, ha="left", fontsize=10)
    return figure


def _groups(rows: Sequence[PublishedRow]) -> Iterator[tuple[Precision, Device, list[int]]]:
    for precision in PRECISIONS:
        for name in dict.fromkeys(row.device for row in rows):
            chosen = [index for index, row in enumerate(rows) if row.precision == precision and row.device == name]
            if chosen:
                yield precision, find_device(name), chosen


def _median_and_worst(errors: NDArray[np.float64]) -> tuple[float, float]:
    relative = 100 * np.abs(np.expm1(errors))
    return float(np.median(relative)), float(relative.max())
