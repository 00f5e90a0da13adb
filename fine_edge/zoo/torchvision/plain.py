"""What a user of torchvision gets from torch.onnx alone: the yardstick of our own exports.

torch.onnx's default exporter refuses these models, for their suppression branches on the number of boxes; its former
one takes them, with NonMaxSuppression, NonZero and outputs of as many rows as there are detections. Resizing and
normalisation are left out, as the images are preprocessed in every export of ours.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from fine_edge.zoo.onnx_defaults import quiet_exporter
from fine_edge.zoo.torchvision.preprocessed import preprocessed


class _OneImage(nn.Module):
    """Names the outputs of the first image of a batch."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (1, 3, H, W) to as many rows as there are detections."""
        found = self.model([images[0]])[0]
        return tuple(found[name] for name in self.names)


def export(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write the library's own forward pass, for one image of the example's size, to an ONNX file."""
    names = ["labels", "boxes", "scores"]
    if getattr(getattr(model, "roi_heads", None), "mask_predictor", None) is not None:
        names.append("masks")
    with torch.no_grad(), quiet_exporter(), preprocessed(model):
        torch.onnx.export(
            _OneImage(model, names).eval(),
            (example[:1],),
            str(path),
            input_names=["images"],
            output_names=names,
            dynamo=False,
        )
