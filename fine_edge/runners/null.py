"""A backend that does nothing, so that the cost of measuring itself can be measured."""

from __future__ import annotations

import numpy as np

from fine_edge.contract import Contract
from fine_edge.runners.base import Array, WallTimed


class NullRunner(WallTimed):
    """Returns the same zeros every time."""

    name = "null"

    def __init__(self, contract: Contract) -> None:
        self._outputs: dict[str, Array] = {
            spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in contract.outputs
        }

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:  # noqa: ARG002 - the contract of a runner
        """Zeros of the contract's shapes."""
        return self._outputs

    def close(self) -> None:
        """Nothing to free."""
