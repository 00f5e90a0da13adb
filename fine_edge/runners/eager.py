"""PyTorch on the CPU: the detector as transformers runs it, not the form that was lowered for export."""

from __future__ import annotations

import numpy as np
import torch
from transformers import RTDetrForObjectDetection

from fine_edge.detections import from_raw
from fine_edge.runners.base import Array


class EagerRunner:
    """The reference of parity: transformers' own forward pass in FP32."""

    name = "pytorch-cpu"

    def __init__(self, model: RTDetrForObjectDetection, *, raw: bool) -> None:
        self._model = model
        self._model.train(False)
        self._raw = raw
        self.selection_margin = float("inf")
        """Of the last run: how far apart, in logits, the last proposal taken and the first one left out were.

        Rounding decides which of two nearly equal proposals becomes a query, and the queries attend to each other.
        """

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """``images`` (B, 3, H, W) float32 to the outputs an exported graph has."""
        images = inputs["images"]
        with torch.inference_mode():
            outputs = self._model(torch.from_numpy(np.asarray(images, dtype=np.float32)))
        self.selection_margin = self._margin(outputs.enc_outputs_class)
        raw: dict[str, Array] = {"logits": outputs.logits.numpy(), "boxes": outputs.pred_boxes.numpy()}
        if self._raw:
            return raw
        height, width = images.shape[-2:]
        found = [from_raw(raw, height, width, image) for image in range(images.shape[0])]
        return {
            "labels": np.stack([d.labels for d in found]),
            "boxes_xyxy": np.stack([d.boxes_xyxy_px for d in found]),
            "scores": np.stack([d.scores for d in found]),
        }

    def _margin(self, proposal_logits: torch.Tensor) -> float:
        best = proposal_logits.amax(-1)  # (B, N)
        queries = int(self._model.config.num_queries)
        if best.shape[1] <= queries:
            return float("inf")
        ranked = best.topk(queries + 1, dim=1).values
        return float((ranked[:, -2] - ranked[:, -1]).min())

    def close(self) -> None:
        """Nothing to free."""
