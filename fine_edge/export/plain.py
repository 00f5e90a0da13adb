"""A detector as its library's own exporter writes it: the yardstick of the ``exporters`` suite, never an artifact."""

from __future__ import annotations

from pathlib import Path

import torch

from fine_edge.atomic import written_together
from fine_edge.export.request import ExportRequest
from fine_edge.zoo.catalog import find
from fine_edge.zoo.families import family_of
from fine_edge.zoo.load import load


def ensure_plain(request: ExportRequest, folder: Path) -> Path:
    """Export the unchanged model with its library's own defaults to ``MODEL.plain.onnx``."""
    path = folder / f"{request.model}.plain.onnx"
    entry = find(request.model)
    model = load(entry, request.weights, request.seed).model
    example = torch.zeros(request.batch, 3, *request.input_hw)
    with written_together(folder, path.name) as partial:
        family_of(entry.family).plain(model, example, partial / path.name)
    return path
