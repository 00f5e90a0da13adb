"""torchvision's detectors on inputs that are preprocessed already, in inference and in training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from fine_edge.zoo.family import Batch, Sample


class _NoTransform(nn.Module):
    """A stand-in for GeneralizedRCNNTransform without resizing and normalisation; boxes are pixels of the input."""

    def forward(self, images: list[Tensor], targets: Any = None) -> tuple[ImageList, Any]:
        """Stack images (3, H, W) of one size, and return the targets unchanged."""
        return ImageList(torch.stack(images), [tuple(image.shape[-2:]) for image in images]), targets

    def postprocess(self, result: Any, sizes: Any, originals: Any) -> Any:  # noqa: ARG002 - torchvision's signature
        """Return the detections unchanged."""
        return result


@contextlib.contextmanager
def preprocessed(model: nn.Module) -> Iterator[nn.Module]:
    """Let the model take its images unchanged, and give boxes in their pixels, within the context."""
    detector: Any = model
    transform = detector.transform
    detector.transform = _NoTransform()
    try:
        yield model
    finally:
        detector.transform = transform


class Losses(nn.Module):
    """A detector on preprocessed inputs with its losses summed, as transformers' Trainer takes it."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixel_values: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            pixel_values: images (B, 3, H, W).
            targets: for each image ``boxes`` (N, 4) in pixels and ``labels`` (N,) from 1.
        """
        with preprocessed(self.detector):
            losses: dict[str, Tensor] = self.detector(list(pixel_values), targets)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}


def collate(samples: Sequence[Sample]) -> Batch:
    """Make a batch of the arguments of :class:`Losses`; label 0 is the background."""
    targets = [{"boxes": sample.boxes_xyxy, "labels": sample.classes + 1} for sample in samples]
    return {"pixel_values": torch.stack([sample.image for sample in samples]), "targets": targets}
