"""The comparison of a file of ultralytics with the model that its weights are put into, beyond the weights.

Activations, strides, epsilons, wiring and the head's settings are attributes of the modules instead of tensors. A model
with the same tensors and other attributes would find other objects without any error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fine_edge.errors import WeightsError
from fine_edge.zoo.inert import InertRecord
from fine_edge.zoo.yolo.fusion import FusedConcat
from fine_edge.zoo.yolo.library import VARIANTS

_DETECTORS = ("DetectionModel", "YOLOv10DetectionModel")
_TASKS = {
    "SegmentationModel": "-seg, segmentation",
    "PoseModel": "-pose, key points",
    "OBBModel": "-obb, turned boxes",
    "ClassificationModel": "-cls, classification",
    "RTDETRDetectionModel": "ultralytics' own RT-DETR",
    "WorldModel": "YOLO-World",
    "YOLOEModel": "YOLOE",
    "YOLOESegModel": "YOLOE",
}
_SUPPORTED = f"supported: {', '.join(name for name in VARIANTS if name != 'yolo12s')}, for boxes"

# yolov8 or yolo11, of which the scale stands beside the name.
_UNSCALED = re.compile(r"yolov?\d+")

# Attributes that change the computation of a layer; where older versions lack one, they had its present default.
_COMPUTING = {
    *("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode", "output_padding", "ceil_mode"),
    *("eps", "negative_slope", "mode", "size", "scale_factor", "align_corners", "d", "add", "area", "num_heads"),
    *("head_dim", "key_dim", "scale", "reg_max", "nl", "f", "end2end", "xyxy"),
}


@dataclass(frozen=True)
class StatedLayer:
    """A module of a file: the name of its class, and its attributes that change the computation."""

    kind: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class StatedStructure:
    """All modules of a file by path, and all strides in it."""

    layers: Mapping[str, StatedLayer]
    strides: frozenset[tuple[float, ...]]


def name_of(model: InertRecord) -> str:
    """Return a file's own name of its model, such as ``yolo11n``."""
    yaml = model.attributes.get("yaml")
    stated = yaml.get("yaml_file") if isinstance(yaml, dict) else None
    name = Path(stated).stem if isinstance(stated, str) else "a model"
    scale = yaml.get("scale") if isinstance(yaml, dict) else None
    return name + scale if isinstance(scale, str) and _UNSCALED.fullmatch(name) else name


def require_detector(model: InertRecord, path: Path) -> None:
    """Refuse models of ultralytics that do not find boxes.

    Raises:
        WeightsError: naming the model.
    """
    kind = type(model).__name__
    if kind not in _DETECTORS:
        what = _TASKS.get(kind, "no detector")
        raise WeightsError(
            f"is {name_of(model)} of ultralytics ({kind}: {what}), which is not supported", where=path, hint=_SUPPORTED
        )


def stated_structure(model: InertRecord, path: Path) -> StatedStructure:
    """Return the structure that a file states for its modules.

    Raises:
        WeightsError: for strides that are not numbers.
    """
    layers = {
        name: StatedLayer(type(record).__name__, _computing(record.attributes)) for name, record in model.modules()
    }
    # The model has strides, and its head has others to decode boxes with.
    strides = [record.attributes.get("stride") for _, record in model.modules()]
    return StatedStructure(layers, frozenset(_numbers(one, path) for one in strides if isinstance(one, Tensor)))


def _numbers(stride: Tensor, path: Path) -> tuple[float, ...]:
    if stride.device.type != "cpu" or stride.layout != stride.contiguous().layout or not 0 < stride.numel() < 10:
        raise WeightsError("its strides are no numbers", where=path)
    return tuple(float(value) for value in stride.flatten())


def trained_hw(data: object) -> tuple[int, int] | None:
    """Return height and width of the training, where the file states them."""
    arguments = data.get("train_args") if isinstance(data, dict) else None
    size = arguments.get("imgsz") if isinstance(arguments, dict) else None
    if type(size) is int and size > 0:
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int and side > 0 for side in size):
        return int(size[0]), int(size[1])
    return None


def require_same_structure(model: nn.Module, stated: StatedStructure, where: Path) -> None:
    """Refuse a file whose modules compute something else than those of the model.

    Fusion methods may be in both, and are not compared.

    Raises:
        WeightsError: naming the first module and setting that differ.
    """
    fused = [name for name, module in model.named_modules() if isinstance(module, FusedConcat)]
    for name, module in model.named_modules():
        found = stated.layers.get(name)
        if found is None or any(name == one or name.startswith(f"{one}.") for one in fused):
            continue
        kind = type(module).__name__
        # The model itself, of the empty name, may be a YOLOv10DetectionModel, which is a DetectionModel today.
        if found.kind != kind and name:
            raise _differs(f"{name} is {found.kind}", kind, where)
        for attribute, stated_value in found.attributes.items():
            value = getattr(module, attribute, stated_value)  # the class's default where the module has none
            if not _is_plain(value) or stated_value != _plain(value):
                raise _differs(f"{name}.{attribute} = {stated_value!r}", value, where)
    strides = _strides(model)
    for other in stated.strides - {strides}:
        raise _differs(f"stride = {other}", strides, where)


def _strides(model: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in model.stride.tolist())


def _differs(stated: str, built: object, where: Path) -> WeightsError:
    return WeightsError(
        f"its model says {stated}, where this detector has {built}: what is computed would change",
        where=where,
        hint=_SUPPORTED + " as ultralytics builds them",
    )


def _computing(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that change the computation, tuples as lists so that files compare with modules."""
    return {name: _plain(value) for name, value in attributes.items() if name in _COMPUTING and _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(value) < 20 and all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
