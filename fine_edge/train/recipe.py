"""The recipe of a training: all settings that decide its result."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from fine_edge.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """The settings of one training; the same recipe, data and libraries give the same weights on one machine.

    Attributes:
        model: name in the zoo.
        height, width: size of the input in pixels.
        epochs: number of passes over the data.
        batch: number of pictures in a step of one process.
        learning_rate: highest learning rate of AdamW. It rises over the first steps (:data:`WARMUP`) and then falls to
            zero by a cosine.
        weight_decay: weight decay of AdamW.
        max_grad_norm: norm that gradients are clipped to.
        flips: directions in which a picture is mirrored, each with a probability of one half: ``horizontal``, or
            ``both`` for pictures without a top.
        seed: seed of the initial weights, the order of the pictures and the flips.
    """

    model: str
    height: int
    width: int
    epochs: int = 20
    batch: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    max_grad_norm: float = 10.0
    flips: str = "horizontal"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"must be above 0, not {getattr(self, name)}", where=f"--{name.replace('_', '-')}")
        if self.flips not in FLIPS:
            raise ConfigError(f"{self.flips!r} is unknown", where="--flips", hint=f"known: {', '.join(FLIPS)}")

    def to_json(self) -> dict[str, Any]:
        """Return plain values for the record beside the checkpoint."""
        return asdict(self)


FLIPS: dict[str, tuple[int, ...]] = {"none": (), "horizontal": (2,), "both": (1, 2)}
"""Axes of an image (3, H, W) that are mirrored, by name."""
WARMUP = 0.05
"""The share of the steps in which the learning rate rises."""
