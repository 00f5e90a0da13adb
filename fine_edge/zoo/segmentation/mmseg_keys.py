"""mmsegmentation's Semantic FPN under our keys: the same layers by other names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fine_edge.zoo.tensors import State

_MARK = "decode_head.scale_heads."
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^backbone\.stem\.", "backbone.body.conv1."),
        (r"^backbone\.layer", "backbone.body.layer"),
        (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"backbone.fpn.inner_blocks.\1.0."),
        (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"backbone.fpn.layer_blocks.\1.0."),
        (r"^decode_head\.conv_seg\.", "semantic.classifier."),
    )
)
# A level's layers stand in one list there, an upsampling behind every convolution with its norm.
_STAGE = re.compile(r"^decode_head\.scale_heads\.(\d+)\.(\d+)\.(conv|bn)\.")


def from_mmseg(state: State) -> State:
    """The state under the keys of :class:`fine_edge.zoo.segmentation.semantic.SemanticFpn`; any other as it is."""
    if not any(key.startswith(_MARK) for key in state):
        return state
    return {_renamed(key): tensor for key, tensor in state.items()}


def class_names_of(checkpoint: dict[str, Any]) -> Sequence[object] | None:
    """Return the class names that a checkpoint of mmsegmentation's 0.x or 1.x says, ``None`` where it says none."""
    meta = checkpoint.get("meta")
    if not isinstance(meta, dict):
        return None
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes") if isinstance(dataset, dict) else meta.get("CLASSES")
    return names if isinstance(names, list | tuple) and names else None


def _renamed(key: str) -> str:
    if stage := _STAGE.match(key):
        layer = 0 if stage[3] == "conv" else 1
        return f"semantic.levels.{stage[1]}.{int(stage[2]) // 2}.{layer}.{key[stage.end() :]}"
    for pattern, replacement in _RULES:
        key, matches = pattern.subn(replacement, key)
        if matches:
            break
    return key
