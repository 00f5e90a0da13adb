"""Decode what an exported model predicts for one picture, for every task, in pixels of the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from fine_edge.contract import Contract
from fine_edge.detections import Detections, from_outputs, from_raw
from fine_edge.errors import ArtifactError
from fine_edge.feed import Feed
from fine_edge.images import NamedImage
from fine_edge.preprocess import Placement
from fine_edge.runners.base import Array, Runner
from fine_edge.segments import MergeConfig, Panoptic, Segment, merge, to_picture

# Detections, best first, or the segments of a picture.
Prediction = Detections | Panoptic


def summary(found: Prediction, threshold: float) -> str:
    """Return a prediction in a few words."""
    if isinstance(found, Detections):
        return f"{len(found)} detections at {threshold:g} or more"
    return f"{len(found.segments)} segments"


def rows(found: Prediction, image: str, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return one dict for each object or segment, as ``--json`` prints them."""
    if isinstance(found, Detections):
        return [
            {
                "image": image,
                **_named(int(label), labels),
                "score": round(float(score), 5),
                "box_xyxy_px": [round(float(v), 2) for v in box],
            }
            for label, box, score in zip(found.labels, found.boxes_xyxy_px, found.scores, strict=True)
        ]
    return [
        {
            "image": image,
            **_named(segment.label, labels),
            "score": None if segment.score is None else round(segment.score, 5),
            "area_px": segment.area_px,
            "share": round(segment.area_px / found.numbers.size, 5),
        }
        for segment in found.segments
    ]


def label_name(label: int, labels: tuple[str, ...]) -> str:
    """Return the class name; an index beyond the names becomes 'class N'."""
    return labels[label] if 0 <= label < len(labels) else f"class {label}"


def _named(label: int, labels: tuple[str, ...]) -> dict[str, Any]:
    return {"label": label_name(label, labels), "label_index": label}


def _needed(contract: Contract) -> tuple[str, ...]:
    if not contract.postprocessed:
        return ("logits", "boxes")  # RT-DETR's raw outputs; other dense outputs are not decoded
    if contract.task == "semantic":
        return ("classes",)
    boxes = ("labels", "boxes_xyxy", "scores")
    more = {"instance": ("masks",), "panoptic": ("masks", "stuff")}
    return (*boxes, *more.get(contract.task, ()))


def find(image: NamedImage, contract: Contract, runner: Runner, threshold: float) -> Prediction:
    """Return the objects of one picture with a score of at least ``threshold``, or its segments.

    Raises:
        ArtifactError: when the artifact lacks an output that its task needs, or gives NaN or infinities.
        ConfigError: when the artifact takes frames of another size.
    """
    tensor, placement = Feed(contract.input_hw, contract.preprocessing)(image.pixels, image.name)
    feed = np.repeat(tensor, contract.filled(1), axis=0)  # a static batch is filled with the same picture
    outputs = runner.run({contract.inputs[0].name: feed})
    require_finite(outputs, contract)
    return from_network(outputs, contract, placement, threshold)


def require_finite(outputs: dict[str, Array], contract: Contract) -> None:
    """Raise :class:`ArtifactError` when outputs hold infinities or NaN.

    They would go unnoticed otherwise: NaN passes no threshold, so that the picture would only look empty.
    """
    floating = {name: values for name, values in outputs.items() if np.issubdtype(values.dtype, np.floating)}
    if broken := [name for name, values in floating.items() if not np.isfinite(values).all()]:
        raise ArtifactError(
            f"the network gives NaN or infinities in {', '.join(broken)}",
            where=contract.model,
            hint="FP16 overflows (python -m fine_edge graph fp16 says where), or the weights are broken: export again",
        )


def from_network(
    outputs: dict[str, Array], contract: Contract, placement: Placement, threshold: float, image: int = 0
) -> Prediction:
    """Decode the outputs for one image of a batch, as :func:`find` does.

    Raises:
        ArtifactError: when the artifact lacks an output that its task needs.
    """
    if missing := [name for name in _needed(contract) if name not in outputs]:
        hint = "" if contract.postprocessed else "export it without --raw"
        raise ArtifactError(
            f"the model gives no {', '.join(missing)}, so its outputs cannot be decoded",
            where=contract.model,
            hint=hint,
        )
    if contract.task == "semantic":
        return _cut(to_picture(outputs["classes"][image], placement))
    found = (
        from_outputs(outputs, image) if contract.postprocessed else from_raw(outputs, *contract.input_hw, image=image)
    )
    found = replace(found, boxes_xyxy_px=placement.to_picture(found.boxes_xyxy_px))
    if contract.task == "panoptic" and found.masks is not None:
        stuff = to_picture(outputs["stuff"][image], placement).astype(np.int64)
        # The last label marks pixels of things.
        return merge(found, found.masks, stuff, len(contract.labels) - 1, MergeConfig(score=threshold))
    return found.above(threshold)


def _cut(classes: Array) -> Panoptic:
    """Return a map of classes as one segment for each class, largest first."""
    labels, areas = np.unique(classes, return_counts=True)
    numbers = np.zeros(classes.shape, dtype=np.int32)
    segments = []
    for number, place in enumerate(np.argsort(-areas, kind="stable"), start=1):
        numbers[classes == labels[place]] = number
        segments.append(Segment(number, int(labels[place]), int(areas[place])))
    return Panoptic(numbers, tuple(segments))
