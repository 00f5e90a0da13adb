"""What a user gets from ``torch.onnx.export`` alone: the yardstick of the ``exporters`` suite, never an artifact."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from transformers import RTDetrForObjectDetection

from fine_edge.atomic import written_together
from fine_edge.export.request import ExportRequest
from fine_edge.export.trace import quiet_exporter
from fine_edge.zoo.catalog import find
from fine_edge.zoo.load import load


class _Outputs(nn.Module):
    """Names the two outputs that count; everything else of the model's output is training material."""

    def __init__(self, model: RTDetrForObjectDetection) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) to logits and normalised boxes."""
        outputs = self.model(images)
        return outputs.logits, outputs.pred_boxes


def ensure_plain(request: ExportRequest, folder: Path) -> Path:
    """Export the unchanged transformers model with torch.onnx's own defaults to ``MODEL.plain.onnx``."""
    path = folder / f"{request.model}.plain.onnx"
    model = load(find(request.model), request.weights, request.seed).model
    example = torch.zeros(request.batch, 3, request.height, request.width)
    with quiet_exporter():
        program = torch.onnx.export(
            _Outputs(model), (example,), input_names=["images"], output_names=["logits", "boxes"], verbose=False
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    with written_together(folder, path.name) as partial:
        onnx.save(program.model_proto, partial / path.name)
    return path
