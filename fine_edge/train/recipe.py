"""How a detector is trained: everything that decides what comes out, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fine_edge.errors import ConfigError


@dataclass(frozen=True)
class Recipe:
    """Settings of one training; two with the same recipe, data and libraries give the same weights on one machine.

    Attributes:
        model: name in the zoo.
        height, width: of the input, pixels.
        epochs: passes over the data.
        batch: pictures a step and process.
        learning_rate: of AdamW at its highest: it rises over the first steps (:data:`WARMUP`), then falls to zero by
            a cosine.
        weight_decay: of AdamW.
        max_grad_norm: what gradients are clipped to.
        flips: how a picture is mirrored, each half of the times: ``horizontal``, or ``both`` ways where it has no up.
        seed: of the initial weights, the order of the pictures and the flips.
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
            if getattr(self, name) <= 0:
                raise ConfigError(f"must be above 0, not {getattr(self, name)}", where=f"--{name.replace('_', '-')}")
        if self.flips not in FLIPS:
            raise ConfigError(f"{self.flips!r} is unknown", where="--flips", hint=f"known: {', '.join(FLIPS)}")

    def to_json(self) -> dict[str, Any]:
        """As it stands beside the checkpoint."""
        return asdict(self)


FLIPS: dict[str, tuple[int, ...]] = {"none": (), "horizontal": (2,), "both": (1, 2)}
"""Axes of an image (3, H, W) that are turned round, by the name of the way."""
WARMUP = 0.05
"""Share of the steps in which the learning rate rises."""
