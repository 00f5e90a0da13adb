"""Effective receptive fields as tables and pictures: by stage, and by fusion and ratio as in the paper's Fig. 6."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fine_edge import files
from fine_edge.analyze.fields import LEAST_PICTURES, MOST_CUT_OFF, PAPER_RATIO, Fields, MeanField, TokenFields, interval
from fine_edge.figure import new_figure, to_png
from fine_edge.samples import Ratio
from fine_edge.table import Column, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

_DECADES = 4
_DPI = 110
_PANEL_IN = 2.6
# A window about a token shows so many sigmas to each side.
_WINDOW_SIGMAS = 4
_LOWER_BOUND = (
    f">= marks a lower bound: more than {MOST_CUT_OFF:.0%} of the fitted Gaussian lies outside of the input. A larger"
    " --input-size moves the border away. Of two lower bounds the ratio (~) is neither an upper nor a lower one."
)

_INTERVAL = (
    f"95 % interval: Student's, over the pictures, of the ratio of the two means (delta method); none below"
    f" {LEAST_PICTURES} pictures. It knows nothing of other weights, nor of the border."
)


def _size(field: MeanField, sigma: float) -> str:
    return f"{'>= ' if field.touches_border else ''}{sigma:.2f}"


def _ratio(ratio: Ratio, high: MeanField, low: MeanField) -> str:
    """Return the ratio of two sizes, and how far it can be trusted."""
    return f"{'~ ' if low.touches_border else '>= ' if high.touches_border else ''}{ratio.value:.2f}"


def _interval(ratio: Ratio) -> str | None:
    known = interval(ratio)
    return f"{known[0]:.2f} to {known[1]:.2f}" if known else None


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def conditions(origin: dict[str, Any], images: int) -> str:
    """Return on what an analysis was made, for titles."""
    height, width = origin["input_hw"]
    weights = "RANDOM weights" if origin["weights"]["source"] == "random" else "weights of a checkpoint"
    return f"{origin['model']}, {weights}, {images} picture{'s' * (images != 1)}, input {height}x{width}"


def _conditions(found: Fields) -> str:
    return conditions(found.origin, found.images)


def _mean_ratio(found: Fields) -> str:
    """Return the mean ratio between stages; a lower bound where the border cuts off the last stage alone."""
    if found.mean_ratio is None:
        return ""
    cut = [one.field.touches_border for one in found.stages]
    return f"{'~ ' if any(cut[:-1]) else '>= ' if cut[-1] else ''}{found.mean_ratio.value:.2f}"


def stage_table(found: Fields) -> Table:
    """Return E[sigma] by stage of the backbone, and the ratio to the stage before."""
    mean = _mean_ratio(found) or "none: a single stage"
    known = f" ({_interval(found.mean_ratio)})" if found.mean_ratio and _interval(found.mean_ratio) else ""
    summary = f"Mean ratio between adjacent stages: {mean}{known}. Paper, ResNet-50 on COCO val2017: {PAPER_RATIO}."
    brief = [summary, *([_LOWER_BOUND] if any(one.field.touches_border for one in found.stages) else [])]
    table = Table(
        f"Effective receptive fields by stage: {_conditions(found)}",
        [
            Column("Stage"),
            Column("Stride (px)"),
            Column("E[sigma] (px)"),
            Column("SD (px)"),
            Column("Ratio"),
            Column("95 % interval"),
            Column("Mean field (px)"),
            Column("Moments (px)"),
            Column("Cut off (%)"),
        ],
        notes=[
            *brief,
            "Field: |gradient| of the sum over channels at one position of the stage's last map, with respect to the"
            " input's pixels, averaged over their channels (the paper's Eq. 11). Pixels are those of the input.",
            "E[sigma]: of the Gaussian (Eq. 12) that fits a picture's field by least squares, mean over pictures; SD:"
            " standard deviation over pictures. Ratio: E[sigma] over that of the stage before (Eq. 13).",
            "Mean field: sigma of the Gaussian that fits the mean of all pictures' fields. Moments: root of the field's"
            " variance, mean over pictures; a faint far halo widens it.",
            _INTERVAL,
            f"Position: {_share(found.origin['stages_at'])} of the input's width and height.",
        ],
        brief=brief,
    )
    for number, one in enumerate(found.stages):
        field = one.field
        table.add(
            one.stage,
            one.stride,
            _size(field, field.sigma_px),
            None if field.sigma_sd_px is None else f"{field.sigma_sd_px:.2f}",
            one.ratio and _ratio(one.ratio, field, found.stages[number - 1].field),
            one.ratio and _interval(one.ratio),
            f"{field.fitted.sigma:.2f}",
            f"{field.sigma_moments_px:.2f}",
            _percent(field.fitted.cut_off),
        )
    return table


def token_table(found: Fields) -> Table:
    """Return sigma of both tokens of each fusion by sampling ratio."""
    brief = [
        "Ratio: high over low; 1 where both tokens see an equally large part of the picture.",
        *([_LOWER_BOUND] if any(one.touches_border for one in found.tokens) else []),
    ]
    table = Table(
        f"Tokens of the fusions by sampling ratio r: {_conditions(found)}",
        [
            Column("Fusion", numeric=False),
            Column("k"),
            Column("r"),
            Column("Low (px)"),
            Column("High (px)"),
            Column("Ratio"),
            Column("95 % interval"),
            Column("Low cut off (%)"),
            Column("High cut off (%)"),
            Column("Model's own", numeric=False),
        ],
        notes=[
            *brief,
            "Low, high: E[sigma] of the low-level token, sampled r k x r k, and of the high-level one, sampled k x k,"
            " at one point of the input. The model itself samples at its own r alone.",
            _INTERVAL,
            f"Position: {_share(found.origin['tokens_at'])} of the input's width and height.",
        ],
        brief=brief,
    )
    for one in found.tokens:
        table.add(
            one.fusion,
            one.k,
            one.r,
            _size(one.low, one.low.sigma_px),
            _size(one.high, one.high.sigma_px),
            _ratio(one.ratio, one.high, one.low),
            _interval(one.ratio),
            _percent(one.low.fitted.cut_off),
            _percent(one.high.fitted.cut_off),
            "yes" if one.own else "",
        )
    return table


def _share(at: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in at)


def write_stages(found: Fields, path: Path) -> None:
    """Draw the mean fields of the stages, on a logarithmic scale, each with the circle of its fitted sigma (PNG)."""
    files.write_bytes(path, to_png(lambda: _draw_stages(found), _DPI))


def write_tokens(found: Fields, path: Path) -> None:
    """Draw the mean fields of the tokens: a pair of rows for each fusion, a column for each ratio (PNG)."""
    files.write_bytes(path, to_png(lambda: _draw_tokens(found), _DPI))


def _draw_stages(found: Fields) -> Figure:
    columns = len(found.stages)
    height, width = found.origin["input_hw"]
    figure = new_figure(_PANEL_IN * columns + 0.9, _PANEL_IN * height / width + 0.8)
    grid: Any = figure.subplots(1, columns, squeeze=False)
    for axes, one in zip(grid[0], found.stages, strict=True):
        shown = _draw_field(axes, one.field)
        size = f"E[sigma] {_size(one.field, one.field.sigma_px)} px"
        axes.set_title(f"stage {one.stage}, stride {one.stride} px\n{size}", fontsize=10)
    scale = figure.colorbar(shown, ax=grid[0], pad=0.01, label="of the largest gradient")
    scale.set_ticks([-place for place in range(_DECADES + 1)])
    scale.set_ticklabels([f"{100 * 10.0**-place:g} %" for place in range(_DECADES + 1)])
    mean = f"mean ratio {_mean_ratio(found)}" if found.mean_ratio else "a single stage"
    figure.suptitle(f"{_conditions(found)}: {mean}", fontsize=11)
    return figure


def _draw_tokens(found: Fields) -> Figure:
    ratios = found.origin["r"]
    fusions = list(dict.fromkeys(one.fusion for one in found.tokens))
    figure = new_figure(0.6 + _PANEL_IN * len(ratios), 0.5 + 2 * _PANEL_IN * len(fusions))
    grid: Any = figure.subplots(2 * len(fusions), len(ratios), squeeze=False)
    for number, one in enumerate(found.tokens):
        row, column = divmod(number, len(ratios))
        window = _window([token for token in found.tokens if token.fusion == one.fusion])
        for below, name in enumerate(("low", "high")):
            field: MeanField = getattr(one, name)
            axes = grid[2 * row + below][column]
            _draw_field(axes, field)
            axes.plot(*field.near_xy, "x", color="cyan", markersize=9, markeredgewidth=2)
            axes.set_xlim(*window[:2])
            axes.set_ylim(*window[2:])
            axes.set_title(f"{one.fusion} {name}, r = {one.r}\nE[sigma] {_size(field, field.sigma_px)} px", fontsize=9)
        axes.set_xlabel(f"high / low: {_ratio(one.ratio, one.high, one.low)}")
    figure.suptitle(_conditions(found), fontsize=9)
    return figure


def _window(tokens: Sequence[TokenFields]) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of what is shown of a fusion's fields, the same in all of its panels."""
    fields = [field for one in tokens for field in (one.low, one.high)]
    height, width = fields[0].mean.shape
    (x, y), reach = fields[0].near_xy, _WINDOW_SIGMAS * max(field.sigma_px for field in fields)
    left, right = max(-0.5, x - reach), min(width - 0.5, x + reach)
    return left, right, min(height - 0.5, y + reach), max(-0.5, y - reach)


def _draw_field(axes: Axes, field: MeanField) -> AxesImage:
    """Draw a field, the logarithm of its share of the maximum, with the circle of its sigma; return the image."""
    from matplotlib.patches import Circle

    mean = field.mean / field.mean.max()
    shown = np.log10(np.maximum(mean, 10.0**-_DECADES))
    image = axes.imshow(shown, cmap="magma", vmin=-_DECADES, vmax=0, interpolation="nearest")
    fitted = field.fitted
    axes.add_patch(Circle((fitted.x, fitted.y), fitted.sigma, fill=False, edgecolor="white", linewidth=1.2))
    axes.set_xticks([])
    axes.set_yticks([])
    return image
