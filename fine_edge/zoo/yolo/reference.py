"""What ultralytics itself makes of images: its forward pass and its postprocessing, as its validator calls them."""

from __future__ import annotations

import torch
from torch import Tensor

from fine_edge.zoo.family import Reference
from fine_edge.zoo.yolo.library import DetectionModel, non_max_suppression, quiet
from fine_edge.zoo.yolo.postprocess import CONFIDENCE, IOU, ROWS, one_to_one

# Its NMS gives up on further images after a while otherwise.
_PATIENCE_S = 600.0


def reference(model: DetectionModel, images: Tensor, *, raw: bool) -> Reference:
    """Outputs on letterboxed images (B, 3, H, W) in [0, 1]; rows of detections padded to ``ROWS``."""
    model.end2end = one_to_one(model)  # off by default in YOLOv10, whose point it is
    predictions, _ = model(images)  # (B, 4 + K, A), or (B, 300, 6) of YOLOv10
    if raw:
        return Reference({"predictions": predictions})
    with quiet():
        found = non_max_suppression(
            predictions.clone(),
            CONFIDENCE,
            IOU,
            multi_label=True,
            max_det=ROWS,
            max_time_img=_PATIENCE_S,
            end2end=model.end2end,
        )
    rows = torch.stack([_padded(image) for image in found])  # (B, 300, 6): x0, y0, x1, y1, score, class
    return Reference({"labels": rows[..., 5].long(), "boxes_xyxy": rows[..., :4], "scores": rows[..., 4]})


def _padded(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_zeros(ROWS - len(rows), 6)])
