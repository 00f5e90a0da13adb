"""Heatmaps as pictures, four maps a fusion side by side, and as tables of how much of them lies on objects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_edge import files
from fine_edge.analyze.energy import ALL, MAPS
from fine_edge.analyze.field_page import conditions
from fine_edge.evaluate.matching import SIZES
from fine_edge.figure import new_figure, to_png
from fine_edge.images import DRAWN_BY
from fine_edge.samples import Ratio
from fine_edge.table import Column, Table
from fine_edge.text import file_stem, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fine_edge.analyze.heatmap import Heatmaps, PictureHeat

_PANEL_IN = 3.0
_DPI = 100
_OPACITY = 0.6
_TITLES = {"high": "high-level", "low": "low-level", "modulation": "modulation |M|", "aligned": "aligned low-level"}


def write_heat(number: int, seen: PictureHeat, folder: Path) -> None:
    """Write one PNG for each fusion, which says that it is a drawing: ``NUMBER_NAME.l3.png``."""
    for fusion, maps in seen.maps.items():
        name = f"{number:05d}_{file_stem(Path(seen.picture.name).stem)}.{fusion.replace('=', '')}.png"
        data = to_png(lambda fusion=fusion, maps=maps: _draw(seen, fusion, maps), _DPI, DRAWN_BY)  # type: ignore[misc]
        files.write_bytes(folder / name, data)


def _draw(seen: PictureHeat, fusion: str, maps: dict[str, Any]) -> Figure:
    height, width = seen.picture.pixels.shape[:2]
    figure = new_figure(_PANEL_IN * len(MAPS), _PANEL_IN * height / width + 0.5)
    grid: Any = figure.subplots(1, len(MAPS), squeeze=False)
    for axes, name in zip(grid[0], MAPS, strict=True):
        _draw_map(axes, seen, maps[name])
        axes.set_title(_TITLES[name])
    figure.suptitle(f"{printable(seen.picture.name)}, fusion {fusion}", fontsize=9)
    return figure


def _draw_map(axes: Axes, seen: PictureHeat, found: Any) -> None:
    """Draw a map over the picture; its colours run from the map's least value to its greatest."""
    from matplotlib.patches import Rectangle

    (height, width), place = seen.picture.pixels.shape[:2], seen.place
    left, top = (-place.left / place.scale_x, -place.top / place.scale_y)
    right, bottom = left + seen.input_hw[1] / place.scale_x, top + seen.input_hw[0] / place.scale_y
    axes.imshow(seen.picture.pixels, extent=(0, width, height, 0))
    axes.imshow(found, cmap="jet", alpha=_OPACITY, extent=(left, right, bottom, top), interpolation="bilinear")
    if seen.truth is not None:
        for x, y, across, down in seen.truth.boxes_xywh.tolist():
            axes.add_patch(Rectangle((x, y), across, down, fill=False, edgecolor="white", linewidth=0.8))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_xticks([])
    axes.set_yticks([])


def _value(ratio: Ratio | None) -> str | None:
    return None if ratio is None else f"{ratio.value:.3f}"


def _interval(ratio: Ratio | None, images: int) -> str | None:
    if ratio is None:
        return None
    return f"{ratio.low:.3f} to {ratio.high:.3f}" if images > 1 else None


def energy_table(found: Heatmaps) -> Table:
    """Return how much of each map lies on labelled objects, all and by size."""
    brief = [
        "Ratio: mean inside labelled boxes over mean outside of them, with its 95 % interval over pictures; then by"
        " size of the objects.",
    ]
    table = Table(
        f"Energy on objects: {conditions(found.origin, found.images)}",
        [
            Column("Fusion", numeric=False),
            Column("Map", numeric=False),
            Column("Inside"),
            Column("Outside"),
            Column("Ratio"),
            Column("95 % interval"),
            *(Column(size.capitalize()) for size in SIZES),
        ],
        notes=[
            *brief,
            "A map is the mean over channels of its absolute values, divided by its maximum in each picture. Inside and"
            " outside are means over pictures; a pixel of the input takes the value of the cell that it lies in.",
            "Small, medium, large: ratios with objects of COCO's sizes alone inside; outside stays as it is: no box and"
            " no crowd region.",
        ],
        brief=brief,
    )
    ratios = {(one.fusion, one.map, one.size): one.ratio for one in found.energies}
    for one in found.energies:
        if one.size == ALL:
            table.add(
                one.fusion,
                one.map,
                f"{one.inside:.3f}",
                f"{one.outside:.3f}",
                _value(one.ratio),
                _interval(one.ratio, one.images),
                *(_value(ratios.get((one.fusion, one.map, size))) for size in SIZES),
            )
    return table


def gain_table(found: Heatmaps) -> Table:
    """Return what FINE changes: the aligned map's ratio over the low-level map's."""
    images = {(one.fusion, one.size): one.images for one in found.energies}
    objects = {(one.fusion, one.size): one.objects for one in found.energies}
    table = Table(
        "What FINE changes: the aligned map's ratio over the low-level map's",
        [
            Column("Fusion", numeric=False),
            Column("Size", numeric=False),
            Column("Objects"),
            Column("Pictures"),
            Column("Change"),
            Column("95 % interval"),
        ],
        notes=["Above 1 FINE moves energy onto objects; an interval that holds 1 shows nothing."],
    )
    for (fusion, size), gain in found.gains.items():
        number = images[fusion, size]
        table.add(fusion, size, objects[fusion, size], number, _value(gain), _interval(gain, number))
    return table
