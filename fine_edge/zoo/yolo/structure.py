"""What ultralytics builds a detector from: its yaml by name, and one that it does not ship."""

from __future__ import annotations

from typing import Any

from fine_edge.errors import ConfigError
from fine_edge.zoo.yolo.library import yaml_model_load

VARIANTS = ("yolov5s", "yolov6s", "yolov8s", "yolov10s", "yolo12s", "yolov12s")
"""The last letter is the scale, which ultralytics reads from the file's name."""

# YOLOv12's authors made two early convolutions grouped in their turbo release (layer: groups; their repository's
# ultralytics/cfg/models/v12/yolov12.yaml). It is the one that the paper's figures are of, 9.1 M and 19.4 G;
# ultralytics' own yolo12s, without groups, has 9.3 M and 21.4 G.
_TURBO_GROUPS = {1: 2, 3: 4}


def structure(variant: str) -> dict[str, Any]:
    """The yaml of a variant as a dict; nothing is downloaded.

    Raises:
        ConfigError: for a name that is not in :data:`VARIANTS`.
    """
    if variant not in VARIANTS:
        raise ConfigError(f"ultralytics has no variant {variant!r} here", mend=f"known: {', '.join(VARIANTS)}")
    turbo = variant == "yolov12s"
    layers: dict[str, Any] = yaml_model_load("yolo12s.yaml" if turbo else f"{variant}.yaml")
    if turbo:
        for index, groups in _TURBO_GROUPS.items():
            channels, kernel, stride = layers["backbone"][index][3]
            layers["backbone"][index][3] = [channels, kernel, stride, 1, groups]
    return layers
