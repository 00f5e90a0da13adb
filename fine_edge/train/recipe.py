"""The recipe of a training, all settings that decide its result, and the identity of all that the result hangs on."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fine_edge import console
from fine_edge.errors import ConfigError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.files import sha256_of_files
from fine_edge.machine import version
from fine_edge.zoo.weights_file import weights_sha256


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


# Axes of an image (3, H, W) that are mirrored, by name.
FLIPS: dict[str, tuple[int, ...]] = {"none": (), "horizontal": (2,), "both": (1, 2)}
# The share of the steps in which the learning rate rises.
WARMUP = 0.05


# The identity of a training: everything that its result depends on, by content.
#
# Two trainings of equal identity give the same weights on one machine. A folder or checkpoint of another training is
# refused, and the message names the difference.

# Libraries whose versions can change weights. The number of threads, which changes only last bits, is left out.
LIBRARIES = ("torch", "torchvision", "transformers", "accelerate", "numpy", "pillow")
# The description of a difference, by the key of an identity's part.
_OTHER = {
    "recipe": "another recipe",
    "data": "another data set",
    "pictures": "other pictures",
    "weights": "other weights to start from",
    "half": "another precision of its weights (--half)",
    "libraries": "other libraries",
    "processes": "another number of processes",
    "device": "another kind of device",
}
# Fields that hold names, which do not count as content.
_NAMES = ("file",)


def identity_of(
    recipe: Recipe, data: CocoData, pictures: Mapping[str, Path], weights: Path | None, *, half: bool, device: str
) -> dict[str, Any]:
    """Return everything that a training depends on, in the form of its record.

    Args:
        recipe: settings of the training.
        data: the boxes.
        pictures: files by their names in the data set; every file is read.
        weights: checkpoint to start from.
        half: whether weights are written as FP16.
        device: kind of the computing device.
    """
    with console.status(f"reading {len(pictures)} pictures"):
        pictures_sha256 = sha256_of_files(pictures)
    return {
        "recipe": recipe.to_json(),
        "data": {"file": data.path.name, "sha256": data.sha256, "images": len(data.images)},
        "pictures": {"sha256": pictures_sha256},
        "weights": weights and {"file": weights.name, "sha256": weights_sha256(weights)},
        "half": half,
        "libraries": {name: version(name) for name in LIBRARIES},
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "device": device,
    }


def difference(former: Mapping[str, Any], identity: Mapping[str, Any]) -> str | None:
    """Return the difference of an earlier training in words; ``None`` if it is the same training."""
    for key, words in _OTHER.items():
        if key not in former:
            return f"{words}, or by an older version: it does not say"
        then, now = _content(former.get(key)), _content(identity[key])
        if then != now:
            return f"{words}{_detail(then, now)}"
    return None


def _content(part: Any) -> Any:
    return {key: value for key, value in part.items() if key not in _NAMES} if isinstance(part, dict) else part


def _detail(then: Any, now: Any) -> str:
    """Return the first field that differs with both values; nothing for hashes, which a reader cannot use."""
    if not isinstance(then, dict) or not isinstance(now, dict):
        return ""
    key = next(key for key in (*now, *then) if then.get(key) != now.get(key))
    return "" if key == "sha256" else f" ({key}: {then.get(key)} there, {now.get(key)} here)"


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return one hash of an identity, or of the record that holds it."""
    content = {key: _content(identity.get(key)) for key in _OTHER}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
