"""The identity of a training: everything that its result depends on, by content.

Two trainings of equal identity give the same weights on one machine. A folder or checkpoint of another training is
refused, and the message names the difference.
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

LIBRARIES = ("torch", "torchvision", "transformers", "accelerate", "numpy", "pillow")
"""Libraries whose versions can change weights. The number of threads, which changes only last bits, is left out."""
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
"""The description of a difference, by the key of an identity's part."""
_NAMES = ("file",)
"""Fields that hold names, which do not count as content."""


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
