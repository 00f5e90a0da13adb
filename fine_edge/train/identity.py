"""What a training depends on, by content: two that agree in all of it give the same weights on one machine.

A folder that holds another training is refused by what differs, and so is a checkpoint that came from one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fine_edge import console
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.files import sha256_of_files
from fine_edge.machine import version
from fine_edge.train.recipe import Recipe
from fine_edge.zoo.weights_file import weights_sha256

_LIBRARIES = ("torch", "torchvision", "transformers", "accelerate", "numpy", "pillow")
"""Whose versions can change weights. The number of threads changes the last bits of a sum alone, and is left free."""
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
"""What the parts of an identity are, by key, where they differ."""
_NAMES = ("file",)
"""Fields that say how something is called, not what it is."""


def identity_of(
    recipe: Recipe, data: CocoData, pictures: Mapping[str, Path], weights: Path | None, *, half: bool, device: str
) -> dict[str, Any]:
    """Return everything that a training depends on, as its record holds it.

    Args:
        recipe: how it trains.
        data: the boxes.
        pictures: files by the name that the data set has for them; every one is read.
        weights: to start from.
        half: whether weights are written as FP16.
        device: kind of what computes.
    """
    with console.status(f"reading {len(pictures)} pictures"):
        pictures_sha256 = sha256_of_files(pictures)
    return {
        "recipe": recipe.to_json(),
        "data": {"file": data.path.name, "sha256": data.sha256, "images": len(data.images)},
        "pictures": {"sha256": pictures_sha256},
        "weights": weights and {"file": weights.name, "sha256": weights_sha256(weights)},
        "half": half,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "device": device,
    }


def difference(former: Mapping[str, Any], identity: Mapping[str, Any]) -> str | None:
    """Return what a former training had otherwise, in words, or ``None`` if it is the same training."""
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
    """Return the first field that differs with both of its values, which says nothing where they are hashes."""
    if not isinstance(then, dict) or not isinstance(now, dict):
        return ""
    key = next(key for key in (*now, *then) if then.get(key) != now.get(key))
    return "" if key == "sha256" else f" ({key}: {then.get(key)} there, {now.get(key)} here)"


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return one hash of an identity, or of the record that holds it."""
    content = {key: _content(identity.get(key)) for key in _OTHER}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
