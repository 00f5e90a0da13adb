"""How much of a map lies on labelled objects: its mean inside and outside of their boxes, and the ratio of the two."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import Truth
from fine_edge.evaluate.matching import SIZES
from fine_edge.preprocess import Placement
from fine_edge.samples import Ratio, ratio_of_means

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]

# The maps of a fusion, in the order of the paper's Fig. 8.
MAPS = ("high", "low", "modulation", "aligned")
ALL = "all"


@dataclass(frozen=True)
class Regions:
    """The pixels of one input (H, W) that lie on objects, and those that lie on none.

    Attributes:
        inside: pixels whose middle lies in a box, of all objects and by COCO's ranges of size.
        outside: pixels of the picture, not of its padding, that lie in no box and in no crowd region.
        objects: number of boxes in each of ``inside``.
    """

    inside: dict[str, Mask]
    outside: Mask
    objects: dict[str, int]


def regions(truth: Truth, place: Placement, height: int, width: int) -> Regions:
    """Return the regions of one picture's objects in its input of height x width pixels."""
    scale, offset = np.array([place.scale_x, place.scale_y] * 2), np.array([place.left, place.top] * 2)
    corners = np.concatenate([truth.boxes_xywh[:, :2], truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:]], axis=1)
    boxes = corners * scale + offset
    y, x = np.indices((height, width)) + 0.5
    right, bottom = place.left + place.width * place.scale_x, place.top + place.height * place.scale_y
    outside = (x > place.left) & (x < right) & (y > place.top) & (y < bottom)
    inside = {name: np.zeros((height, width), dtype=np.bool_) for name in (ALL, *SIZES)}
    objects = dict.fromkeys(inside, 0)
    for (x0, y0, x1, y1), area, crowd in zip(boxes, truth.areas, truth.crowd, strict=True):
        box = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        outside &= ~box
        if not crowd:
            for name in (ALL, *(size for size, (least, most) in SIZES.items() if least <= area < most)):
                inside[name] |= box
                objects[name] += 1
    return Regions(inside, outside, objects)


def on_input(found: Map, height: int, width: int) -> Map:
    """Return a map (h, w) on the pixels of an input (height, width): each pixel takes the cell that it lies in."""
    rows = ((np.arange(height) + 0.5) * found.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * found.shape[1] / width).astype(np.int64)
    return found[np.ix_(rows, columns)]


@dataclass(frozen=True)
class MapEnergy:
    """The mean of one map of a fusion inside and outside of boxes, over pictures.

    Attributes:
        fusion, map: which map; one of :data:`MAPS`.
        size: ``all``, or one of COCO's sizes.
        inside, outside: means over pictures of the map, which runs from 0 to its maximum 1 in each picture.
        ratio: inside over outside, with its 95 % interval over pictures; ``None`` where outside is zero.
        images, objects: numbers of pictures with such objects, and of these.
    """

    fusion: str
    map: str
    size: str
    inside: float
    outside: float
    ratio: Ratio | None
    images: int
    objects: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures; which map and which size they are of stands around them."""
        return {
            "inside": self.inside,
            "outside": self.outside,
            **ratio_to_json(self.ratio, self.images),
            "images": self.images,
            "objects": self.objects,
        }


def ratio_to_json(ratio: Ratio | None, images: int) -> dict[str, Any]:
    """Return a ratio with its interval, which a single picture does not give."""
    interval = None if ratio is None or images < 2 else [ratio.low, ratio.high]
    return {"ratio": None if ratio is None else ratio.value, "ci": interval}


@dataclass
class Energies:
    """The means of every picture, by fusion, map and size."""

    _rows: dict[tuple[str, str, str], list[tuple[float, float]]] = field(default_factory=dict)
    _objects: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, fusion: str, maps: dict[str, Map], where: Regions) -> None:
        """Add the maps of one fusion for one picture; sizes without a pixel inside or outside are left out."""
        if not where.outside.any():
            return
        for size, inside in where.inside.items():
            if not inside.any():
                continue
            self._objects[fusion, size] = self._objects.get((fusion, size), 0) + where.objects[size]
            for name, found in maps.items():
                here = on_input(found, *inside.shape)
                means = float(here[inside].mean()), float(here[where.outside].mean())
                self._rows.setdefault((fusion, name, size), []).append(means)

    def by_map(self) -> list[MapEnergy]:
        """Return the figures by fusion, map and size.

        Raises:
            DataError: when no picture has pixels inside and outside of boxes.
        """
        if not self._rows:
            what = "no picture has pixels inside and outside of labelled boxes"
            raise DataError(what, where="--data", hint="give annotations of these pictures")
        return [self._energy(*key) for key in sorted(self._rows, key=_order)]

    def _energy(self, fusion: str, name: str, size: str) -> MapEnergy:
        rows = np.array(self._rows[fusion, name, size])
        inside, outside = rows.mean(axis=0).tolist()
        ratio = ratio_of_means(rows, lambda means: means[:, 0] / means[:, 1]) if outside else None
        return MapEnergy(fusion, name, size, inside, outside, ratio, len(rows), self._objects[fusion, size])

    def gains(self) -> dict[tuple[str, str], Ratio]:
        """Return by fusion and size the aligned map's ratio over the low-level map's, with its interval over pictures.

        Above 1 FINE moves energy onto objects.
        """
        found = {}
        for fusion, name, size in sorted(self._rows, key=_order):
            if name == "aligned":
                after, before = (np.array(self._rows[fusion, which, size]) for which in ("aligned", "low"))
                if after[:, 1].any() and before.all(axis=1).any():
                    found[fusion, size] = ratio_of_means(np.concatenate([after, before], axis=1), _gain)
        return found


def _gain(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ratio of ratios of means (resamples, 4): inside and outside after, inside and outside before."""
    gain: NDArray[np.float64] = (means[:, 0] / means[:, 1]) / (means[:, 2] / means[:, 3])
    return gain


def _order(key: tuple[str, str, str]) -> tuple[int, int, int]:
    """Return the place of a row: by size, then by fusion, deepest first, then as the maps stand in Fig. 8."""
    fusion, name, size = key
    return (ALL, *SIZES).index(size), -int(fusion.removeprefix("l=")), MAPS.index(name)
