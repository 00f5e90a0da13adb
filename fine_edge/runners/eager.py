"""PyTorch on the CPU, with the detector as its library runs it instead of the form that is lowered for export."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fine_edge.runners.base import Array
from fine_edge.zoo.family import Family


class EagerRunner:
    """The reference of parity, which runs the library's own forward pass in FP32 and its own postprocessing."""

    name = "pytorch-cpu"

    def __init__(self, model: nn.Module, family: Family, *, raw: bool) -> None:
        self._family = family
        self._model = model
        self._model.train(False)
        self._raw = raw
        self.selection_margin = float("inf")
        """The margin of the last run; see :class:`fine_edge.zoo.family.Reference`."""

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Map ``images`` (B, 3, H, W) float32 to the outputs of an exported graph."""
        images = torch.from_numpy(np.asarray(inputs["images"], dtype=np.float32))
        with torch.inference_mode():
            reference = self._family.reference(self._model, images, raw=self._raw)
        self.selection_margin = reference.margin
        return {name: tensor.numpy() for name, tensor in reference.outputs.items()}

    def close(self) -> None:
        """Free nothing, as the model belongs to the caller."""
