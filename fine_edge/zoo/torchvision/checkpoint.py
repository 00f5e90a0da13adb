"""Reading torchvision's checkpoints: the published files, what its training scripts write, and our own.

The published files of 2020 to 2022 have older keys. Except for FCOS's they were made for frozen batch norms without an
epsilon, which torchvision sets to zero when it loads them itself. Here every model has torchvision's present epsilon,
and the weights are rescaled to compensate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fine_edge.errors import WeightsError
from fine_edge.zoo.checkpoints import Checkpoint, learned, own, read_file, weight_for_default_eps
from fine_edge.zoo.inert import InertRecord
from fine_edge.zoo.tensors import State

_CLASS_HEADS = ("head.classification_head.cls_logits.weight", "roi_heads.box_predictor.cls_score.weight")

# torchvision before 0.14 had plain layers where it has blocks of one convolution since.
_FORMER_KEYS = [
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
]
_FORMER_MASK_HEAD = re.compile(r"^(roi_heads\.mask_head)\.mask_fcn(\d)\.(weight|bias)$")
# RetinaNet's towers have a ReLU behind each convolution; FCOS's have norms between them and never changed.
_FORMER_TOWER = re.compile(r"^(head\.(?:classification|regression)_head\.conv)\.(\d)\.(weight|bias)$")
_BOX_HEAD_WIDTH = 1024
_FCOS_KEY = "head.regression_head.bbox_ctrness.weight"
# torchvision's weights of 2020 and 2021 were made for frozen batch norms without an epsilon, and train on without it.
_WITHOUT_EPS = (".COCO_V1", ".DEFAULT", "COCO_V1", "DEFAULT")


@dataclass(frozen=True)
class ScriptArguments:
    """The arguments of torchvision's training scripts (``references/detection``) that change the computation.

    Attributes:
        model: name of torchvision's builder, ``None`` where the file does not say it.
        started_without_eps: whether the training started from published weights whose frozen batch norms have no
            epsilon.
    """

    model: str | None = None
    started_without_eps: bool = False


def script_arguments(beside: Any, path: Path) -> ScriptArguments:
    """Return the command line that a training script saved beside the weights; empty where there is none.

    Raises:
        WeightsError: for an argument that the weights need and the graph here does not support.
    """
    stated = beside.get("args") if isinstance(beside, dict) else None
    arguments = stated.attributes if isinstance(stated, InertRecord) else stated
    if not isinstance(arguments, Mapping):
        return ScriptArguments()
    threshold = arguments.get("rpn_score_thresh")
    if threshold:
        raise WeightsError(
            f"its args say rpn_score_thresh = {threshold!r}, which changes what is computed and is not supported",
            where=path,
            hint="supported: 0; remove it from args if the detector was trained without",
        )
    model = arguments.get("model") if isinstance(arguments.get("model"), str) else None
    # Scripts before torchvision 0.13 have --pretrained instead of --weights.
    weights = arguments.get("weights")
    published = arguments.get("pretrained") is True or (isinstance(weights, str) and weights.endswith(_WITHOUT_EPS))
    # torchvision sets the epsilon to zero for the first weights of a detector only, never for those of a _v2.
    return ScriptArguments(model, published and not (model or "").endswith("_v2"))


def read(path: Path) -> Checkpoint:
    """Read a ``.pth`` of torchvision, old or new, or a file that :func:`fine_edge.zoo.checkpoints.save` wrote.

    Raises:
        WeightsError: when the path holds no checkpoint, or one that would need its code run.
    """
    found = read_file(path, _CLASS_HEADS)
    ours = own(found, path)
    if ours:
        return ours
    arguments = script_arguments(found.beside, path)
    state = learned(found.state)
    fcos = _FCOS_KEY in state
    renamed = {_today(key, fcos=fcos): tensor for key, tensor in state.items()}
    former = renamed.keys() != state.keys()
    if (former or arguments.started_without_eps) and not fcos:
        renamed = _with_eps(renamed)
    return Checkpoint(renamed, "torchvision", settings=arguments, named=arguments.model)


def require_kind(arguments: ScriptArguments, variant: str, path: Path) -> None:
    """Refuse weights that were trained as another kind of detector.

    Args:
        arguments: the training script's arguments.
        variant: variant of the zoo's model, such as ``fasterrcnn``.
        path: path of the file, for the message.

    Raises:
        WeightsError: when the arguments name another kind.
    """
    kind = (arguments.model or "").partition("_")[0]
    if kind and kind != variant.partition("_")[0]:
        raise WeightsError(
            f"its args say model = {arguments.model!r}, which is another model",
            where=path,
            hint="choose the model that they were trained as: python -m fine_edge zoo lists all",
        )


def _today(key: str, *, fcos: bool) -> str:
    """Return torchvision's present name of a key."""
    for pattern, replacement in _FORMER_KEYS:
        key = pattern.sub(replacement, key)
    # mask_head.mask_fcn1.weight is mask_head.0.0.weight today.
    if mask := _FORMER_MASK_HEAD.match(key):
        return f"{mask[1]}.{int(mask[2]) - 1}.0.{mask[3]}"
    # conv.2.weight is conv.1.0.weight today.
    tower = None if fcos else _FORMER_TOWER.match(key)
    return f"{tower[1]}.{int(tower[2]) // 2}.0.{tower[3]}" if tower else key


def _with_eps(state: State) -> State:
    """Rescale weights of batch norms without an epsilon for batch norms with torchvision's."""
    changed = dict(state)
    for key, var in state.items():
        prefix, _, name = key.rpartition(".")
        if name == "running_var" and f"{prefix}.weight" in state:
            changed[f"{prefix}.weight"] = weight_for_default_eps(state[f"{prefix}.weight"], var, 0.0)
    return changed


def num_labels(checkpoint: Checkpoint) -> int | None:
    """Return the number of classes with the background; ``None`` when the weights are not a detector's."""
    state = checkpoint.state
    scores, boxes = (state.get(key) for key in (_CLASS_HEADS[0], "head.regression_head.bbox_reg.weight"))
    if scores is not None and boxes is not None:
        if scores.ndim != 4 or boxes.ndim != 4 or boxes.shape[0] < 4 or scores.shape[1:] != boxes.shape[1:]:
            return None
        # (A * K, C, 3, 3) over (A * 4, C, 3, 3), with A anchors a cell.
        return int(scores.shape[0]) // (int(boxes.shape[0]) // 4) or None
    second_stage = state.get(_CLASS_HEADS[1])
    # The width of the box head, so that a file cannot claim classes which it has no weights for.
    if second_stage is None or second_stage.ndim != 2 or second_stage.shape[1] != _BOX_HEAD_WIDTH:
        return None
    return int(second_stage.shape[0]) or None
