"""Reading torchvision's checkpoints: the published files, what its training scripts write, and our own.

The published files of 2020 to 2022 have older keys, and but for FCOS's they were made for frozen batch norms without
an epsilon, which torchvision sets to zero when it loads them itself. Here every model has torchvision's epsilon of
today, and the weights take up the difference.
"""

from __future__ import annotations

import re
from pathlib import Path

from fine_edge.errors import WeightsError
from fine_edge.zoo.checkpoints import Checkpoint, learned, own, read_file, weight_for_default_eps
from fine_edge.zoo.tensors import State
from fine_edge.zoo.torchvision.script_arguments import ScriptArguments, script_arguments

_CLASS_HEADS = ("head.classification_head.cls_logits.weight", "roi_heads.box_predictor.cls_score.weight")

# Keys of torchvision before 0.14: layers that are blocks of one convolution since.
_FORMER_KEYS = [
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
]
_FORMER_MASK_HEAD = re.compile(r"^(roi_heads\.mask_head)\.mask_fcn(\d)\.(weight|bias)$")
# RetinaNet's towers, a ReLU behind each convolution; FCOS's have norms between them and never changed.
_FORMER_TOWER = re.compile(r"^(head\.(?:classification|regression)_head\.conv)\.(\d)\.(weight|bias)$")
_BOX_HEAD_WIDTH = 1024
_FCOS_KEY = "head.regression_head.bbox_ctrness.weight"


def read(path: Path) -> Checkpoint:
    """Read a ``.pth`` of torchvision, or a file that :func:`fine_edge.zoo.checkpoints.save` wrote.

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
    """Refuse the weights of a training of another kind of detector than the zoo's.

    Args:
        arguments: of the training script.
        variant: of the zoo's model, such as ``fasterrcnn``.
        path: of the file, for the message.

    Raises:
        WeightsError: when the arguments name one.
    """
    kind = (arguments.model or "").partition("_")[0]
    if kind and kind != variant.partition("_")[0]:
        raise WeightsError(
            f"its args say model = {arguments.model!r}, which is another model",
            where=path,
            hint="choose the model that they were trained as: python -m fine_edge zoo lists all",
        )


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
    scores, boxes = (state.get(key) for key in (_CLASS_HEADS[0], "head.regression_head.bbox_reg.weight"))
    if scores is not None and boxes is not None:
        if scores.ndim != 4 or boxes.ndim != 4 or boxes.shape[0] < 4 or scores.shape[1:] != boxes.shape[1:]:
            return None
        return int(scores.shape[0]) // (int(boxes.shape[0]) // 4) or None
    second_stage = state.get(_CLASS_HEADS[1])
    # The width of the box head, so that a file cannot claim classes which it has no weights for.
    if second_stage is None or second_stage.ndim != 2 or second_stage.shape[1] != _BOX_HEAD_WIDTH:
        return None
    return int(second_stage.shape[0]) or None
