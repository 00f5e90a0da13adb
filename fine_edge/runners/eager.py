"""PyTorch on the CPU: the detector as its library runs it, not the form that was lowered for export."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from fine_edge.runners.base import Array
from fine_edge.zoo.catalog import FamilyName
from fine_edge.zoo.family import family_of


class EagerRunner:
    """The reference of parity: the library's own forward pass in FP32, and its own postprocessing."""

    name = "pytorch-cpu"

    def __init__(self, model: nn.Module, family: FamilyName, *, raw: bool) -> None:
        self._family = family_of(family)
        self._model = model
        self._model.train(False)
        self._raw = raw
        self.selection_margin = float("inf")
        """Of the last run, see :class:`fine_edge.zoo.family.Reference`."""

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """``images`` (B, 3, H, W) float32 to the outputs an exported graph has."""
        images = torch.from_numpy(np.asarray(inputs["images"], dtype=np.float32))
        with torch.inference_mode():
            reference = self._family.reference(self._model, images, raw=self._raw)
        self.selection_margin = reference.margin
        return {name: tensor.numpy() for name, tensor in reference.outputs.items()}

    def close(self) -> None:
        """Nothing to free."""
