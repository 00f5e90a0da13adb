"""Effective receptive fields over pictures: of the backbone's stages, and of the tokens that fusions compare.

The field of a position is the gradient of its response, the sum over the channels of a map, with respect to the pixels
of the input (the paper's Eq. 11). Its size is the sigma of the Gaussian that fits it (Eq. 12), for each picture, and
E[sigma] is the mean over pictures (Eq. 13). The fields are also averaged, and drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fine_edge import console, files
from fine_edge.analyze.fields import Fields, StageField, TokenFields, mean_field, mean_ratio
from fine_edge.analyze.maps import Seen, frozen, influence, look
from fine_edge.analyze.sums import Sums, path_of, read_sums, write_sums
from fine_edge.errors import ConfigError, DataError, ImageError
from fine_edge.files import file_size, sha256_of, sha256_of_hashes
from fine_edge.images import Pictures
from fine_edge.preprocess import preprocess
from fine_edge.zoo.load import LoadedDetector

_WRITTEN_EVERY_S = 60.0
# The paper's position for stages.
CENTRE = (0.5, 0.5)
# The paper's position for tokens (Fig. 6).
ANCHOR = (0.1, 0.1)


@dataclass(frozen=True)
class FieldOptions:
    """What is asked for.

    Attributes:
        height, width: of the input, pixels.
        stages_at, tokens_at: positions as shares of width and height, from 0 up to 1.
        ratios: sampling ratios r of the tokens.
        batch: number of pictures in one run; the figures do not depend on it.
    """

    height: int
    width: int
    stages_at: tuple[float, float]
    tokens_at: tuple[float, float]
    ratios: tuple[int, ...]
    batch: int = 1


@dataclass(frozen=True)
class _Tap:
    """A map (B, C, h, w) whose response at one cell is asked for."""

    name: str
    map: Tensor
    at: tuple[float, float]

    @property
    def cell_xy(self) -> tuple[int, int]:
        """Return the cell that holds the position."""
        height, width = self.map.shape[-2:]
        return int(self.at[0] * width), int(self.at[1] * height)

    def response(self) -> Tensor:
        """Return the sum over channels at the cell, summed over images."""
        x, y = self.cell_xy
        return self.map[:, :, y, x].sum()

    def near_xy(self, height: int, width: int) -> tuple[float, float]:
        """Return the middle of the cell in pixels of the input."""
        (x, y), (h, w) = self.cell_xy, self.map.shape[-2:]
        return (x + 0.5) * width / w - 0.5, (y + 0.5) * height / h - 0.5


def _taps(seen: Seen, options: FieldOptions) -> list[_Tap]:
    """Return stages, shallow first, then for each fusion the high-level token and a low-level token for each r."""
    taps = [_Tap(f"stage {one.stage}", one.map, options.stages_at) for one in seen.stages]
    for fusion in seen.fusions:
        taps.append(_Tap(f"{fusion.name} high", fusion.high_tokens(), options.tokens_at))
        taps += [_Tap(f"{fusion.name} low r={r}", fusion.low_tokens(r), options.tokens_at) for r in options.ratios]
    return taps


def receptive_fields(detector: LoadedDetector, folder: Path, options: FieldOptions, out: Path | None) -> Fields:
    """Average the fields over the pictures of a folder.

    Args:
        detector: with its weights.
        folder: of pictures, or one picture; those of a folder that cannot be read are left out with a warning.
        options: sizes and positions.
        out: folder of the running sums; ``None`` keeps none.

    Raises:
        ImageError: when no picture can be read.
        DataError: when a gradient is not finite, or is zero for all pictures; when the sums in ``out`` are damaged.
        ConfigError: when the detector cannot take an input of this size.
    """
    pictures = Pictures([folder])
    with console.status("hashing the pictures"):
        digest = sha256_of_hashes({path.name: _identity(path) for path in pictures.files})
    origin = _origin(detector, options, digest)
    path = None if out is None else path_of(out, origin)
    files.refuse_unwritable([path])

    def keep(made: Sums) -> None:
        if path is not None:
            write_sums(path, origin, made)

    with frozen(detector.model):
        seen = _first_look(detector, options)
        taps = _taps(seen, options)
        shape = len(taps), options.height, options.width
        sums = Sums.empty(*shape) if path is None else read_sums(path, origin, shape)
        if sums.done:
            console.remark(f"going on behind picture {sums.done} of {len(pictures)}: {path}")
        sums = _summed(detector, folder, options, sums, keep)
    if not sums.images:
        reason = next(iter(sums.skipped.values()), "they are drawings of fine_edge")
        raise ImageError(f"none of {len(pictures)} pictures can be read, such as {reason}", where=folder)
    return _fields(seen, taps, sums, options, origin)


def _identity(path: Path) -> str:
    """Return the hash of a file; nothing for what is no file."""
    try:
        file_size(path, ImageError)
        return sha256_of(path)
    except (ImageError, OSError):
        return ""


def _origin(detector: LoadedDetector, options: FieldOptions, pictures: str) -> dict[str, Any]:
    return {
        "analysis": "effective receptive fields",
        "model": detector.entry.name,
        "weights": {key: value for key, value in detector.provenance.items() if key != "file"},
        "input_hw": [options.height, options.width],
        "preprocessing": detector.preprocessing.to_json(),
        "stages_at": list(options.stages_at),
        "tokens_at": list(options.tokens_at),
        "r": list(options.ratios),
        "pictures_sha256": pictures,
    }


def _first_look(detector: LoadedDetector, options: FieldOptions) -> Seen:
    """Return the maps of an input of zeros: how many there are, and of what size."""
    try:
        with torch.no_grad():
            return look(detector, torch.zeros(1, 3, options.height, options.width, device=_device(detector)))
    except RuntimeError as error:
        what = f"{detector.entry.name} cannot take an input of {options.height}x{options.width} ({error})"
        raise ConfigError(what, where="--input-size", hint="use multiples of 32") from error


def _device(detector: LoadedDetector) -> torch.device:
    return next(detector.model.parameters()).device


def _batches(pictures: Pictures, options: FieldOptions, detector: LoadedDetector) -> Iterator[Tensor]:
    """Yield inputs (B, 3, H, W); behind the last picture of each, ``pictures.done`` counts its files."""
    inputs: list[NDArray[np.float32]] = []
    for picture in pictures:
        inputs.append(preprocess(picture.pixels, options.height, options.width, detector.preprocessing)[0])
        if len(inputs) == options.batch:
            yield torch.from_numpy(np.concatenate(inputs)).to(_device(detector))
            inputs = []
    if inputs:
        yield torch.from_numpy(np.concatenate(inputs)).to(_device(detector))


def _summed(
    detector: LoadedDetector, folder: Path, options: FieldOptions, sums: Sums, keep: Callable[[Sums], None]
) -> Sums:
    """Return the sums with what is left of the pictures; they are kept every minute, and when the run is stopped."""
    pictures = Pictures([folder], first=sums.done)
    earlier, kept_s = sums.skipped, time.monotonic()
    try:
        with console.progress() as bar:
            task = bar.add_task("pictures", total=len(pictures), completed=sums.done)
            for images in _batches(pictures, options, detector):
                found, near = _influences(detector, images, options)
                skipped = earlier | {path.name: reason for path, reason in pictures.skipped.items()}
                sums = replace(sums.with_pictures(found, near), done=pictures.done, skipped=skipped)
                bar.update(task, completed=sums.done)
                if time.monotonic() - kept_s > _WRITTEN_EVERY_S:
                    keep(sums)
                    kept_s = time.monotonic()
        skipped = earlier | {path.name: reason for path, reason in pictures.skipped.items()}
        sums = replace(sums, done=len(pictures), skipped=skipped)
    finally:
        if sums.done:
            keep(sums)
    return sums


def _influences(
    detector: LoadedDetector, images: Tensor, options: FieldOptions
) -> tuple[NDArray[np.float64], list[tuple[float, float]]]:
    """Return the fields of all taps (T, B, H, W), and the middle of the cell of each."""
    images.requires_grad_(True)
    taps = _taps(look(detector, images), options)
    found = np.stack([influence(tap.response(), images).double().cpu().numpy() for tap in taps])
    for tap, fields in zip(taps, found, strict=True):
        if not np.isfinite(fields).all():
            what = f"the gradient of {tap.name} is not finite"
            raise DataError(what, where=detector.entry.name, hint="do the weights hold NaN or infinities?")
    return found, [tap.near_xy(options.height, options.width) for tap in taps]


def _fields(seen: Seen, taps: list[_Tap], sums: Sums, options: FieldOptions, origin: dict[str, Any]) -> Fields:
    """Return the mean fields of the sums, in the order of the taps."""
    found = [
        mean_field(tap.name, sums, place, tap.near_xy(options.height, options.width)) for place, tap in enumerate(taps)
    ]
    places = {tap.name: place for place, tap in enumerate(taps)}
    pairs = [(place, place - 1) for place in range(1, len(seen.stages))]
    ratios = [None, *(mean_ratio(sums, [pair]) for pair in pairs)]
    stages = tuple(
        StageField(one.stage, one.stride, field, ratio)
        for one, field, ratio in zip(seen.stages, found, ratios, strict=False)
    )
    tokens = []
    for fusion in seen.fusions:
        config, high = fusion.block.config, places[f"{fusion.name} high"]
        for r in options.ratios:
            low, own = places[f"{fusion.name} low r={r}"], config.attention == "aats" and r == config.r
            ratio = mean_ratio(sums, [(high, low)])
            tokens.append(TokenFields(fusion.name, config.k, r, own, found[low], found[high], ratio))
    overall = mean_ratio(sums, pairs) if pairs else None
    return Fields(origin, stages, tuple(tokens), overall, sums.images, sums.skipped)
