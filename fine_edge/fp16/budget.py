"""Accuracy lost to FP16 by module: each module is rounded alone while the rest of the graph stays FP32."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from fine_edge.detections import Detections, agree, iou
from fine_edge.errors import ArtifactError
from fine_edge.fp16.network import ClassMap, Found, Network
from fine_edge.graph.convert import to_fp16
from fine_edge.graph.emulate import emulated
from fine_edge.graph.parts import MODULES, part_of
from fine_edge.graph.view import GraphView
from fine_edge.parity.report import TOLERANCES, Tolerance
from fine_edge.runners.ort import OrtRunner

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Deviation:
    """The differences between what was found in several pictures and its reference.

    Attributes:
        matched: number of pairs of the same class with similar boxes and scores, or of pixels that keep their class.
        flipped: number of detections on either side without a partner, although they score clearly above the cut-off,
            or of pixels that change class.
        flipped_share: ``flipped`` as a share of both sides' detections, or of all pixels.
        box_px: median, 90th percentile and maximum of the box differences over the pairs; ``None`` without pairs.
        score: median, 90th percentile and maximum of the score differences.
        of_pixels: whether maps of classes were compared, which have neither boxes nor scores.
    """

    matched: int
    flipped: int
    flipped_share: float
    box_px: tuple[float, float, float] | None
    score: tuple[float, float, float] | None
    of_pixels: bool = False

    def within(self, tolerance: Tolerance) -> bool:
        """Return whether the flipped share and the 90th percentiles of box and score keep the tolerance."""
        if self.of_pixels:
            return self.matched > 0 and self.flipped_share <= tolerance.pixels
        if self.box_px is None or self.score is None:  # no pairs prove nothing
            return False
        return (
            self.flipped_share <= tolerance.flipped
            and self.box_px[1] <= tolerance.box_px
            and self.score[1] <= tolerance.score
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        names = ("median", "p90", "max")
        spread = {key: dict(zip(names, getattr(self, key) or (None,) * 3, strict=True)) for key in ("box_px", "score")}
        return asdict(self) | spread


def deviation(reference: Sequence[Found], candidate: Sequence[Found], tolerance: Tolerance) -> Deviation:
    """Compare what was found picture by picture.

    Detections are paired as in :func:`fine_edge.detections.agree`, maps of classes pixel by pixel.
    """
    both = list(zip(reference, candidate, strict=True))
    maps = [(a, b) for a, b in both if isinstance(a, np.ndarray) and isinstance(b, np.ndarray)]
    detected = [(a, b) for a, b in both if isinstance(a, Detections) and isinstance(b, Detections)]
    return _of_pixels(maps) if maps else _of_detections(detected, tolerance)


def _of_pixels(both: Sequence[tuple[ClassMap, ClassMap]]) -> Deviation:
    pixels = sum(one.size for one, _ in both)
    matched = sum(int(np.count_nonzero(one == other)) for one, other in both)
    return Deviation(matched, pixels - matched, 1 - matched / max(1, pixels), None, None, of_pixels=True)


def _of_detections(both: Sequence[tuple[Detections, Detections]], tolerance: Tolerance) -> Deviation:
    agreements = [agree(a, b, score_tolerance=tolerance.score) for a, b in both]
    matched, flipped, ties = (sum(getattr(a, key) for a in agreements) for key in ("matched", "flipped", "ties"))
    pairs = [_differences(a, b) for a, b in both]
    boxes, scores = (np.concatenate([pair[i] for pair in pairs]) for i in (0, 1))
    return Deviation(matched, flipped, flipped / max(1, 2 * matched + flipped + ties), _spread(boxes), _spread(scores))


def _differences(reference: Detections, candidate: Detections) -> tuple[Doubles, Doubles]:
    """Return the box and score differences of the pairs of one picture, paired as ``agree`` does."""
    from scipy.optimize import linear_sum_assignment

    if not len(reference) or not len(candidate):
        return np.empty(0), np.empty(0)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(reference.boxes_xyxy_px[:, None] - candidate.boxes_xyxy_px[None]).max(axis=2)  # (N, M) px
        near = (iou(reference.boxes_xyxy_px, candidate.boxes_xyxy_px) >= 0.5) | (distance <= 0.5)
        score_gap = np.abs(reference.scores[:, None] - candidate.scores[None])
    same_class = reference.labels[:, None] == candidate.labels[None]
    allowed = same_class & near & np.isfinite(distance) & np.isfinite(score_gap)
    rows, columns = linear_sum_assignment(np.where(allowed, np.minimum(distance, 1e4) / 1e4 + score_gap, 1e3))
    paired = allowed[rows, columns]
    rows, columns = rows[paired], columns[paired]
    return distance[rows, columns].astype(np.float64), score_gap[rows, columns].astype(np.float64)


def _spread(values: Doubles) -> tuple[float, float, float] | None:
    if not values.size:
        return None
    median, nine_tenths, largest = np.quantile(values, (0.5, 0.9, 1.0))
    return float(median), float(nine_tenths), float(largest)


@dataclass(frozen=True)
class BudgetRow:
    """The result of rounding one selection of nodes.

    Attributes:
        module: name of the module, or title of another selection.
        nodes: number of nodes that compute in FP16.
        drift: how the detections changed; ``None`` when the graph cannot be converted.
        refused: why it cannot be converted.
    """

    module: str
    nodes: int
    drift: Deviation | None
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        found = self.drift.to_json() if self.drift else None
        return {"module": self.module, "nodes": self.nodes, "drift": found, "refused": self.refused}


@dataclass(frozen=True)
class KeepSelection:
    """The nodes that a row of the budget rounds: all but those in ``keep``."""

    title: str
    keep: frozenset[str]


def selections(view: GraphView, kept: Collection[str], proposed: Collection[str]) -> list[KeepSelection]:
    """Return each module alone, then the whole graph: nothing kept, as it is exported, and with the proposal."""
    names = [node.name for node in view.nodes]
    modules = {name: part_of(name).module for name in names}
    alone = [
        KeepSelection(module, frozenset(name for name in names if modules[name] != module))
        for module in MODULES
        if any(modules[node.name] == module for node in view.nodes if view.computes_fp32(node))
    ]
    whole = [KeepSelection("all, nothing kept", frozenset())]
    if kept:
        whole.append(KeepSelection("all, as exported", frozenset(kept)))
    if set(proposed) - set(kept):
        whole.append(KeepSelection("all, with the keep-list", frozenset(kept) | frozenset(proposed)))
    return (alone if len(alone) > 1 else []) + whole


def budget(
    network: Network,
    view: GraphView,
    images: Sequence[Path],
    chosen: Sequence[KeepSelection],
    advance: Callable[[], None],
) -> list[BudgetRow]:
    """Round the graph in every way given, run it on the pictures and compare with FP32.

    Args:
        network: an FP32 network whose outputs can be read.
        view: the view of its graph.
        images: picture files.
        chosen: what to round, one row each.
        advance: called after every batch of every run; there are ``1 + len(chosen)`` runs.
    """
    reference = found_by(network, network.model, images, advance)
    counted = [node.name for node in view.nodes if view.computes_fp32(node)]
    rows = []
    for selection in chosen:
        nodes = sum(name not in selection.keep for name in counted)
        try:
            half = emulated(to_fp16(view, keep_fp32=selection.keep))
        except ArtifactError as error:
            rows.append(BudgetRow(selection.title, nodes, None, error.what))
            continue
        candidate = found_by(network, half, images, advance)
        rows.append(BudgetRow(selection.title, nodes, deviation(reference, candidate, TOLERANCES["fp16"])))
    return rows


def found_by(
    network: Network, model: onnx.ModelProto, images: Sequence[Path], advance: Callable[[], None]
) -> list[Found]:
    """Run a graph of a network on pictures, and return what it finds in each, boxes in pixels of the input.

    Args:
        network: whose inputs and outputs the graph has.
        model: the graph.
        images: picture files.
        advance: called after every batch.
    """
    session = OrtRunner(network.path, model=model)
    found: list[Found] = []
    for count, feed in network.batches(images):
        outputs = session.run({network.image_input: feed})
        found += [network.found(outputs, image) for image in range(count)]
        advance()
    return found
