"""Reading torchvision's checkpoints: the published files, what its training scripts write, and our own.

The published files of 2020 to 2022 have older keys, and but for FCOS's they were made for frozen batch norms without
an epsilon, which torchvision sets to zero when it loads them itself. Here every model has torchvision's epsilon of
today, and the weights take up the difference.
"""

from __future__ import annotations

import re
from pathlib import Path

from fine_edge.zoo.checkpoints import Checkpoint, State, learned, own, read_file
from fine_edge.zoo.frozen_batch_norm import weight_for_default_eps

# Keys of torchvision before 0.14: layers that are blocks of one convolution since.
_FORMER_KEYS = [
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
]
_FORMER_MASK_HEAD = re.compile(r"^(roi_heads\.mask_head)\.mask_fcn(\d)\.(weight|bias)$")
# RetinaNet's towers, a ReLU behind each convolution; FCOS's have norms between them and never changed.
_FORMER_TOWER = re.compile(r"^(head\.(?:classification|regression)_head\.conv)\.(\d)\.(weight|bias)$")
_FCOS_KEY = "head.regression_head.bbox_ctrness.weight"


def read(path: Path) -> Checkpoint:
    """Read a ``.pth`` of torchvision, or a file that :func:`fine_edge.zoo.checkpoints.save` wrote.

    Raises:
        WeightsError: when the path holds no checkpoint, or one that would need its code run.
    """
    state, metadata = read_file(path)
    ours = own(state, metadata, path)
    if ours:
        return ours
    state = learned(state)
    renamed = {_today(key, fcos=_FCOS_KEY in state): tensor for key, tensor in state.items()}
    if renamed.keys() != state.keys() and _FCOS_KEY not in state:
        renamed = _with_eps(renamed)
    return Checkpoint(renamed, "torchvision")


def _today(key: str, *, fcos: bool) -> str:
    for pattern, replacement in _FORMER_KEYS:
        key = pattern.sub(replacement, key)
    if mask := _FORMER_MASK_HEAD.match(key):
        return f"{mask[1]}.{int(mask[2]) - 1}.0.{mask[3]}"
    tower = None if fcos else _FORMER_TOWER.match(key)
    return f"{tower[1]}.{int(tower[2]) // 2}.0.{tower[3]}" if tower else key


def _with_eps(state: State) -> State:
    changed = dict(state)
    for key, var in state.items():
        prefix, _, name = key.rpartition(".")
        if name == "running_var" and f"{prefix}.weight" in state:
            changed[f"{prefix}.weight"] = weight_for_default_eps(state[f"{prefix}.weight"], var, 0.0)
    return changed


def num_labels(checkpoint: Checkpoint) -> int | None:
    """Number of classes, the background included; ``None`` when these are no weights of a detector."""
    state = checkpoint.state
    scores, boxes = (
        state.get(f"head.{part}.weight") for part in ("classification_head.cls_logits", "regression_head.bbox_reg")
    )
    if scores is not None and boxes is not None and scores.ndim == boxes.ndim == 4 and boxes.shape[0] >= 4:
        return int(scores.shape[0]) // (int(boxes.shape[0]) // 4)
    second_stage = state.get("roi_heads.box_predictor.cls_score.weight")
    return int(second_stage.shape[0]) if second_stage is not None and second_stage.ndim == 2 else None
