"""The libraries' own losses in the one shape that transformers' Trainer takes: a batch in, ``{"loss": ...}`` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from fine_edge.errors import ConfigError
from fine_edge.train.pictures import Sample
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.torchvision.preprocessed import preprocessed

Batch = dict[str, Any]


@dataclass(frozen=True)
class Trainable:
    """A detector as Trainer takes it.

    Attributes:
        module: what is trained; its forward pass takes what ``collate`` gives.
        collate: samples to a batch.
    """

    module: nn.Module
    collate: Callable[[Sequence[Sample]], Batch]


class TorchvisionLosses(nn.Module):
    """A detector of torchvision on inputs that are preprocessed already, its losses summed."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixel_values: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Images (B, 3, H, W) and, of each, ``boxes`` (N, 4) in pixels and ``labels`` (N,) from 1."""
        with preprocessed(self.detector):
            losses: dict[str, Tensor] = self.detector(list(pixel_values), targets)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}


def _for_torchvision(samples: Sequence[Sample]) -> Batch:
    """Label 0 is the background."""
    targets = [{"boxes": sample.boxes_xyxy, "labels": sample.classes + 1} for sample in samples]
    return {"pixel_values": torch.stack([sample.image for sample in samples]), "targets": targets}


def _for_rtdetr(samples: Sequence[Sample]) -> Batch:
    """Boxes as centre and size, in parts of the input."""
    images = torch.stack([sample.image for sample in samples])
    size = torch.tensor([images.shape[-1], images.shape[-2]] * 2)
    labels = [
        {"class_labels": sample.classes, "boxes": box_convert(sample.boxes_xyxy / size, "xyxy", "cxcywh")}
        for sample in samples
    ]
    return {"pixel_values": images, "labels": labels}


def trainable(entry: ModelEntry, model: nn.Module) -> Trainable:
    """A detector with its library's losses.

    Raises:
        ConfigError: for one whose library trains it better, or that needs more than boxes.
    """
    if entry.detector.task != "detection":
        raise ConfigError(f"{entry.name} needs masks to be trained with, this takes boxes", where=entry.name)
    if entry.family == "torchvision":
        return Trainable(TorchvisionLosses(model), _for_torchvision)
    if entry.family == "rtdetr":
        return Trainable(model, _for_rtdetr)
    raise ConfigError(
        f"{entry.name} is trained by its own library", where=entry.name, hint="see examples/finetune_yolo.py"
    )
