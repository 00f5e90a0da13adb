"""torchvision's detectors on inputs that are preprocessed already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList


class _AsTheyAre(nn.Module):
    """In the place of GeneralizedRCNNTransform: no resizing, no normalisation, boxes in pixels of the input."""

    def forward(self, images: list[Tensor], targets: Any = None) -> tuple[ImageList, Any]:
        """Images (3, H, W) of one size."""
        return ImageList(torch.stack(images), [tuple(image.shape[-2:]) for image in images]), targets

    def postprocess(self, result: Any, sizes: Any, originals: Any) -> Any:  # noqa: ARG002 - torchvision's signature
        """Detections as they are."""
        return result


@contextlib.contextmanager
def preprocessed(model: nn.Module) -> Iterator[nn.Module]:
    """Within, the model takes its images as they are, and gives boxes in their pixels."""
    detector: Any = model
    transform = detector.transform
    detector.transform = _AsTheyAre()
    try:
        yield model
    finally:
        detector.transform = transform
