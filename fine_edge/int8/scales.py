"""Calibration: the largest magnitude that each tensor shall hold in INT8, from real pictures."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fine_edge import libraries
from fine_edge.errors import ArtifactError, ImageError
from fine_edge.files import sha256_of_hashes
from fine_edge.fp16.network import Network
from fine_edge.fp16.observe import with_outputs
from fine_edge.graph.view import GraphView
from fine_edge.images import NamedImage
from fine_edge.runners.ort import OrtRunner

Method = Literal["minmax", "entropy", "percentile"]
METHODS: tuple[Method, ...] = get_args(Method)

# Pictures below which ranges depend on chance: the largest value of one picture is then the range.
FEWEST_PICTURES = 8

# Share of the values, per cent, that ``percentile`` keeps.
PERCENTILE = 99.99

# Values of a tensor that a histogram takes of each run, at even distances: of more, only the largest is another.
_MOST_VALUES = 2**16

# Bins of the histograms, over both signs. Entropy tries every range in steps of one bin, in Python.
_BINS = 512
_LEVELS = 128

# Below these, a picture is one colour (levels of 255), or its neighbouring pixels have nothing in common.
_LEAST_SPREAD = 2.0
_LEAST_CORRELATION = 0.3

# Operators that move values: their results have the range of what they read, so one scale serves both sides, and the
# compiler can move the quantisation through them.
_MOVES = frozenset(("Concat", "Flatten", "Identity", "MaxPool", "Reshape", "Resize", "Slice", "Split", "Transpose"))


@dataclass(frozen=True)
class Calibrated:
    """The pictures that ranges come from.

    Attributes:
        paths: picture files.
        sha256: hash over the hashes of the files, by their names.
    """

    paths: tuple[Path, ...]
    sha256: str


def calibration_pictures(pictures: Iterable[NamedImage]) -> Calibrated:
    """Return the pictures to calibrate on, after a check of each.

    Raises:
        ImageError: when they are too few, or one is of one colour or noise, from which no range can be learnt.
    """
    hashes: dict[str, str] = {}
    paths: list[Path] = []
    for picture in pictures:
        if reason := unsuited(picture.pixels):
            hint = "leave it out, and give pictures that the detector will see"
            raise ImageError(f"cannot be calibrated on: {reason}", where=picture.name, hint=hint)
        if picture.path is not None and picture.sha256 not in hashes.values():
            hashes[str(len(paths))] = picture.sha256
            paths.append(picture.path)
    if len(paths) < FEWEST_PICTURES:
        raise ImageError(
            f"{len(paths)} different pictures are too few to calibrate on, at least {FEWEST_PICTURES} are needed",
            where="--images",
            hint="give 64 or more of those that the detector will see",
        )
    return Calibrated(tuple(paths), sha256_of_hashes(hashes))


def unsuited(pixels: NDArray[np.uint8]) -> str:
    """Return why a picture (H, W, 3) says nothing of real inputs: one colour, or noise; an empty text if it does."""
    grey = pixels.astype(np.float32).mean(axis=2)
    spread = float(grey.std())
    if spread < _LEAST_SPREAD:
        return f"it has one colour (standard deviation {spread:.1f} of 255)"
    if grey.shape[1] < 2:
        return "it is one pixel wide"
    correlation = 1 - float(np.diff(grey, axis=1).var()) / (2 * spread**2)
    if correlation < _LEAST_CORRELATION:
        return f"it is noise (correlation of neighbouring pixels {correlation:.2f})"
    return ""


def largest_magnitudes(
    network: Network, tensors: Sequence[str], images: Sequence[Path], method: Method, advance: Callable[[], None]
) -> dict[str, float]:
    """Return the magnitude that each tensor shall hold, from runs of the FP32 graph on pictures.

    Args:
        network: the FP32 network.
        tensors: names of float tensors.
        images: picture files.
        method: ``minmax`` takes the largest value; ``entropy`` the range that keeps most of the distribution's
            information, ``percentile`` the one that keeps :data:`PERCENTILE` of the values.
        advance: called after every batch.

    Raises:
        ArtifactError: when a tensor is not finite, or always zero.
    """
    names = list(dict.fromkeys(tensors))
    session = OrtRunner(network.path, model=with_outputs(network, names))
    histograms = None if method == "minmax" else _collector(method)
    largest = dict.fromkeys(names, 0.0)
    for count, feed in network.batches(images):
        for name, array in zip(names, session.run({network.image_input: feed}).values(), strict=True):
            values = np.asarray(array, dtype=np.float32)[:count]
            magnitude = float(np.abs(values).max(initial=0.0))
            if not np.isfinite(magnitude):
                hint = f"python -m fine_edge graph fp16 {network.path.name} shows where it begins"
                raise ArtifactError(f"tensor {name!r} is not finite in FP32", where=network.path, hint=hint)
            largest[name] = max(largest[name], magnitude)
            if histograms is not None:
                _quietly(histograms.collect, {name: _some(values)})
        advance()
    if empty := next((name for name in names if largest[name] == 0), None):
        hint = "name the convolution behind it: --keep NODE"
        raise ArtifactError(f"tensor {empty!r} is zero on all pictures", where=network.path, hint=hint)
    if histograms is None:
        return largest
    found = _quietly(histograms.compute_collection_result)
    # A range of a histogram can end at zero where nearly all values are zero.
    return {name: max(*(abs(float(end)) for end in found[name][:2])) or largest[name] for name in names}


def _some(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return values at even distances; the distance is odd, as the sides of maps are even."""
    return values.ravel()[:: -(-values.size // _MOST_VALUES) | 1]


def _collector(method: Method) -> Any:
    libraries.onnxruntime()
    from onnxruntime.quantization.calibrate import HistogramCollector

    return HistogramCollector(method, False, _BINS, _LEVELS, PERCENTILE, "same")


def _quietly(run: Callable[..., Any], *given: Any) -> Any:
    """Run without the library's remarks on standard output, which carries the result of the command."""
    with contextlib.redirect_stdout(io.StringIO()):
        return run(*given)


def shared(view: GraphView, magnitudes: Mapping[str, float]) -> dict[str, float]:
    """Return magnitudes in which tensors that only move into each other have one, the largest of them."""
    group: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := group.get(name, name)) != name:
            name = above
        return name

    for node in view.model.graph.node:
        if node.op_type not in _MOVES:
            continue
        reads = node.input if node.op_type == "Concat" else node.input[:1]
        for name in (*reads, *node.output):
            group[root(name)] = root(node.output[0])
    largest: dict[str, float] = {}
    for name, magnitude in magnitudes.items():
        largest[root(name)] = max(largest.get(root(name), 0.0), magnitude)
    return {name: largest[root(name)] for name in magnitudes}
