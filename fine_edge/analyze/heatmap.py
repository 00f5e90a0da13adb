"""Heatmaps of a detector's fusions on pictures, as the paper's Fig. 8, and how much of them lies on labelled objects.

A heatmap is the mean over channels of a map's absolute values, divided by its maximum: it runs from 0 to 1, and
ratios of its values are those of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fine_edge import console
from fine_edge.analyze.energy import ALL, MAPS, Energies, Map, MapEnergy, ratio_to_json, regions
from fine_edge.analyze.maps import FusionMaps, fine_fusions, look
from fine_edge.errors import ConfigError, DataError
from fine_edge.evaluate.coco_data import CocoData, Truth
from fine_edge.evaluate.matching import by_image
from fine_edge.evaluate.picture_sizes import require_labelled_sizes
from fine_edge.images import NamedImage, Pictures
from fine_edge.preprocess import Placement, preprocess
from fine_edge.samples import Ratio
from fine_edge.zoo.load import LoadedDetector


@dataclass(frozen=True)
class PictureHeat:
    """The heatmaps of one picture.

    Attributes:
        picture: the picture.
        place: its place in the input, whose height and width are ``input_hw``.
        maps: heatmaps (h, w) by fusion, deepest first, and name of the map.
        truth: its labelled objects; ``None`` without labels.
    """

    picture: NamedImage
    place: Placement
    input_hw: tuple[int, int]
    maps: dict[str, dict[str, Map]]
    truth: Truth | None


@dataclass(frozen=True)
class Heatmaps:
    """The result on all pictures.

    Attributes:
        origin: what it was made from.
        fusions: names, deepest first.
        energies: by fusion, map and size; empty without labels.
        gains: by fusion and size, see :meth:`fine_edge.analyze.energy.Energies.gains`.
        images: number of pictures.
        skipped: why a file was left out, by its name.
    """

    origin: dict[str, Any]
    fusions: tuple[str, ...]
    energies: tuple[MapEnergy, ...]
    gains: dict[tuple[str, str], Ratio]
    images: int
    skipped: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return all figures and what they were made from; those by size stand in ``by_size``."""
        images = {(one.fusion, one.size): one.images for one in self.energies}
        rows: list[dict[str, Any]] = []
        for whole in self.energies:
            if whole.size == ALL:
                sizes = [one for one in self.energies if (one.fusion, one.map) == (whole.fusion, whole.map)]
                by_size = {one.size: one.to_json() for one in sizes if one.size != ALL}
                rows.append({"fusion": whole.fusion, "map": whole.map, **whole.to_json(), "by_size": by_size})
        return {
            "fusions": rows,
            "gains": [
                {"fusion": fusion, "size": size, **ratio_to_json(gain, images[fusion, size])}
                for (fusion, size), gain in self.gains.items()
            ],
            "images": self.images,
            "skipped": self.skipped,
            "made_by": self.origin,
        }


def heatmaps(
    detector: LoadedDetector,
    folder: Path,
    input_hw: tuple[int, int],
    data: CocoData | None,
    draw: Callable[[int, PictureHeat], None],
) -> Heatmaps:
    """Look at the fusions on each picture, one after the other.

    Args:
        detector: with its weights.
        folder: of pictures, or one picture.
        input_hw: height and width of the input, pixels.
        data: labels; its pictures alone are looked at then, and must all be there.
        draw: called for each picture with its number, from 0 on.

    Raises:
        ConfigError: for a detector without FINE, and for one whose modulation is zero everywhere.
        DataError: when pictures of the data set are missing or of another size, or when a map is not finite.
        ImageError: when no picture can be read.
    """
    if not fine_fusions(detector):
        hint = f"give {detector.entry.detector.name}_fine"
        raise ConfigError("has no fusion to look at: there is no FINE in it", where=detector.entry.name, hint=hint)
    pictures = Pictures([folder] if data is None else _labelled(data, folder))
    energies, images, modulated = Energies(), 0, False
    seen: PictureHeat | None = None
    with console.progress() as bar:
        task = bar.add_task("pictures", total=len(pictures))
        # One picture at a time, so that memory does not grow with their number.
        for seen in _heats(detector, pictures, input_hw, _truths(data, folder)):
            if seen.truth is not None:
                where = regions(seen.truth, seen.place, *input_hw)
                for fusion, maps in seen.maps.items():
                    energies.add(fusion, maps, where)
            modulated |= any(maps["modulation"].any() for maps in seen.maps.values())
            draw(images, seen)
            images += 1
            bar.update(task, completed=pictures.done)
    if not modulated or seen is None:
        what = "the modulation is zero everywhere: FINE is the identity, as it starts"
        raise ConfigError(what, where=detector.entry.name, hint="give the weights of a training with FINE")
    origin = {
        "analysis": "heatmaps",
        "model": detector.entry.name,
        "weights": detector.provenance,
        "input_hw": list(input_hw),
        "preprocessing": detector.preprocessing.to_json(),
        "data_sha256": data.sha256 if data else None,
    }
    skipped = {path.name: reason for path, reason in pictures.skipped.items()}
    found = tuple(energies.by_map()) if data else ()
    return Heatmaps(origin, tuple(seen.maps), found, energies.gains(), images, skipped)


def _labelled(data: CocoData, folder: Path) -> list[Path]:
    """Return the pictures of a data set."""
    files = [folder / name for name in data.images.values()]
    missing = [file for file in files if not file.is_file()]
    if missing:
        what = f"{len(missing)} of {len(files)} pictures are missing, such as {missing[0].name}"
        raise DataError(what, where=folder, hint="give the folder of the pictures with --images")
    require_labelled_sizes(data, folder)
    return files


def _truths(data: CocoData | None, folder: Path) -> dict[Path, Truth]:
    """Return the objects of each picture by its file; pictures without any have none."""
    if data is None:
        return {}
    rows = dict(by_image(data.truth.image_ids))
    none = np.array([], dtype=np.int64)
    return {folder / name: data.truth.taken(rows.get(number, none)) for number, name in data.images.items()}


def _heats(
    detector: LoadedDetector, pictures: Pictures, input_hw: tuple[int, int], truths: dict[Path, Truth]
) -> Iterator[PictureHeat]:
    device = next(detector.model.parameters()).device
    for picture in pictures:
        array, place = preprocess(picture.pixels, *input_hw, detector.preprocessing)
        with torch.no_grad():
            seen = look(detector, torch.from_numpy(array).to(device))
            maps = {fusion.name: _heatmaps(fusion, picture) for fusion in seen.fusions}
        truth = truths.get(picture.path) if picture.path else None
        yield PictureHeat(picture, place, input_hw, maps, truth)


def _heatmaps(fusion: FusionMaps, picture: NamedImage) -> dict[str, Map]:
    maps = dict(zip(MAPS, (fusion.high, fusion.low, fusion.modulation(), fusion.aligned), strict=True))
    found = {name: _heatmap(one) for name, one in maps.items()}
    for name, one in found.items():
        if not np.isfinite(one).all():
            what = f"the {name} map of the fusion {fusion.name} is not finite"
            raise DataError(what, where=picture.name, hint="do the weights hold NaN or infinities?")
    return found


def _heatmap(found: Tensor) -> Map:
    """Return the heatmap (h, w) of a map (1, C, h, w); one that is zero everywhere stays so."""
    mean: Map = found[0].double().abs().mean(dim=0).cpu().numpy()
    most = mean.max()
    return mean / most if most > 0 else mean
