"""The one contract of every backend."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


class Runner(Protocol):
    """Runs one network. ``run`` takes and gives named arrays with the shapes and types of the contract."""

    name: str
    """Of the backend, as records show it."""

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """One inference, synchronous: outputs are on the host when it returns."""
        ...

    def close(self) -> None:
        """Free what the backend holds."""
        ...
