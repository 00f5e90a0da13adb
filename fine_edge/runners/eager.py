"""PyTorch on the CPU, with the detector as its library runs it instead of the form that is lowered for export."""

from __future__ import annotations

from torch import nn

from fine_edge.preprocess import Preprocessing
from fine_edge.runners.base import Array
from fine_edge.zoo.family import Family


class EagerRunner:
    """The reference of parity, which runs the library's own forward pass in FP32 and its own postprocessing."""

    name = "pytorch-cpu"

    def __init__(self, model: nn.Module, family: Family, how: Preprocessing, *, raw: bool) -> None:
        self._family = family
        self._model = model
        self._model.train(False)
        self._how = how
        self._raw = raw
        self.selection_margin = float("inf")
        """The margin of the last run; see :class:`fine_edge.zoo.family.Reference`."""

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """Map the one input, images or frames as the preprocessing says, to the outputs of an exported graph."""
        (given,) = inputs.values()
        outputs, self.selection_margin = self._family.reference_on(self._model, given, self._how, raw=self._raw)
        return outputs

    def close(self) -> None:
        """Free nothing, as the model belongs to the caller."""
