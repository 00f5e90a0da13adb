"""torchvision's RetinaNet and FCOS: how they are built, filled, run and counted, and the outputs of their graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection, mobilenet_v3_large
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import FrozenBatchNorm2d, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError
from fine_edge.zoo.catalog import find
from fine_edge.zoo.count import Cost, documented_macs, image, params, ptflops
from fine_edge.zoo.family import GraphForm, Reference, detection_outputs
from fine_edge.zoo.random_weights import ScoreCalibration, photographs, randomise_layers, settle
from fine_edge.zoo.torchvision.one_stage_graph import OneStage, anchors_of
from fine_edge.zoo.torchvision.preprocessed import preprocessed

# The small detector has half of the others' width, and two convolutions before each head's last instead of four.
_SMALL_CHANNELS, _SMALL_CONVS = 128, 2
# The last blocks of MobileNetV3-Large at strides 8, 16 and 32 with their channels; later blocks serve classification.
_MOBILENET_ENDS = {6: 40, 12: 112, 15: 160}


def _resnet_pyramid() -> nn.Module:
    """Build a ResNet-50 with its pyramid and, as in the published weights, frozen batch norms."""
    backbone: nn.Module = resnet_fpn_backbone(
        backbone_name="resnet50",
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    return backbone


def _retinanet(num_labels: int) -> nn.Module:
    model: nn.Module = detection.RetinaNet(_resnet_pyramid(), num_labels)
    return model


def _fcos(num_labels: int) -> nn.Module:
    model: nn.Module = detection.FCOS(_resnet_pyramid(), num_labels)
    return model


def _fcos_mobilenetv3(num_labels: int) -> nn.Module:
    """Build an FCOS that is small enough to train on a CPU: 4 M parameters, batch norms that learn."""
    body = mobilenet_v3_large(weights=None).features
    names = {str(index): str(level) for level, index in enumerate(_MOBILENET_ENDS)}
    backbone = BackboneWithFPN(
        body,
        names,
        list(_MOBILENET_ENDS.values()),
        _SMALL_CHANNELS,
        extra_blocks=LastLevelP6P7(_SMALL_CHANNELS, _SMALL_CHANNELS),
    )
    model: Any = detection.FCOS(backbone, num_labels)
    model.head = FCOSHead(_SMALL_CHANNELS, model.head.classification_head.num_anchors, num_labels, _SMALL_CONVS)
    return model  # type: ignore[no-any-return]


VARIANTS: dict[str, Callable[[int], nn.Module]] = {
    "retinanet": _retinanet,
    "fcos": _fcos,
    "fcos_mobilenetv3": _fcos_mobilenetv3,
}


def build(variant: str, num_labels: int) -> nn.Module:
    """Build the library's detector with its initial weights.

    Args:
        variant: a key of :data:`VARIANTS`.
        num_labels: number of labels with the background, which is label 0.
    """
    return VARIANTS[variant](num_labels).eval()


@dataclass(frozen=True)
class _TrainedStatistics:
    """The mean and spread of a head's outputs with random weights, on photographs at the finest level.

    With these about ten detections score above 0.5 at 640x640. Up to 800x800, fewer pairs of anchor and class pass the
    score threshold than go into suppression, of the one to ten million that there are.
    """

    logits: tuple[float, float]
    boxes: tuple[float, float]


_STATISTICS = {
    "RetinaNet": _TrainedStatistics(logits=(-21.5, 3.0), boxes=(0.0, 0.3)),
    "FCOS": _TrainedStatistics(logits=(-13.5, 2.5), boxes=(2.5, 1.0)),
}
_CALIBRATION_SIDE = 320


def randomise(model: nn.Module) -> None:
    """Fill a model with weights that have the statistics of trained ones; see :mod:`fine_edge.zoo.random_weights`."""
    detector: Any = model
    norms = randomise_layers(model)
    statistics = _STATISTICS[type(model).__name__]
    classes, regression = detector.head.classification_head, detector.head.regression_head
    heads = [
        (classes.cls_logits, ScoreCalibration(*statistics.logits)),
        (regression.bbox_reg, ScoreCalibration(*statistics.boxes)),
    ]
    if isinstance(model, detection.FCOS):
        heads.append((regression.bbox_ctrness, ScoreCalibration(0.0, 1.0)))
    preprocessing = find("retinanet_r50").detector.preprocessing
    images = photographs(_CALIBRATION_SIDE, _CALIBRATION_SIDE, preprocessing, count=2)
    settle(model, norms, heads, lambda: detector.head(list(detector.backbone(images).values())))


def outputs(model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
    """Return the outputs of :func:`graph`.

    Raises:
        ConfigError: for an input with fewer candidates than detections.
    """
    detector: Any = model
    anchors, classes = len(anchors_of(model, form)), detector.head.classification_head.num_classes
    if form.raw:
        return (
            TensorSpec("boxes_xyxy", "float32", (form.batch, anchors, 4), "x0, y0, x1, y1 in pixels of the input"),
            TensorSpec("scores", "float32", (form.batch, anchors, classes), "class score in [0, 1] of every anchor"),
        )
    if anchors * classes < detector.detections_per_img:
        raise ConfigError(
            f"input {form.height}x{form.width} has {anchors} anchors for {detector.detections_per_img} detections",
            hint="use at least 128x128",
        )
    return detection_outputs(form.batch, detector.detections_per_img)


def reference(model: nn.Module, images: Tensor, *, raw: bool = False) -> Reference:
    """Run the library's own forward pass on preprocessed images (B, 3, H, W); raw is its head and box coder alone."""
    if raw:
        return Reference(_dense(model, images))
    detector: Any = model
    with preprocessed(model):
        found = detector(list(images))
    rows = detector.detections_per_img
    names = {"labels": "labels", "boxes_xyxy": "boxes", "scores": "scores"}
    return Reference({name: torch.stack([_padded(one[key], rows) for one in found]) for name, key in names.items()})


def _padded(x: Tensor, rows: int) -> Tensor:
    return torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])])


def _dense(model: Any, images: Tensor) -> dict[str, Tensor]:
    found = model.head(list(model.backbone(images).values()))
    anchors = anchors_of(model, GraphForm(1, *images.shape[-2:]))
    scores = found["cls_logits"].sigmoid()
    if isinstance(model, detection.FCOS):
        scores, decode = torch.sqrt(scores * found["bbox_ctrness"].sigmoid()), model.box_coder.decode
    else:
        decode = model.box_coder.decode_single
    boxes = torch.stack([decode(deltas, anchors) for deltas in found["bbox_regression"]])
    return {"boxes_xyxy": clip_boxes_to_image(boxes, tuple(images.shape[-2:])), "scores": scores}


def graph(model: nn.Module, form: GraphForm) -> nn.Module:
    """Return the detector in its static form; takes the model apart.

    Raises:
        ConfigError: see :func:`outputs`.
    """
    outputs(model, form)
    return OneStage(model, form).eval()


DOCUMENTED = "MACs of convolutions and matrix products alone, as torchvision documents its models"
LOGGED = (
    "as in its authors' log: MACs by ptflops; these count biases, resizing, and activations and pooling twice, where"
    " the row without FINE is torchvision's documented figure"
)


def forward_pass(model: Any, images: Tensor) -> Any:
    """Run a detector up to the outputs of its heads."""
    return model.head(list(model.backbone(images).values()))


def count(model: nn.Module, height: int, width: int) -> Cost:
    """Count a detector as torchvision documents it."""
    return Cost(params(model), documented_macs(model, image(height, width), run=forward_pass), DOCUMENTED)


def count_as_logged(model: nn.Module, height: int, width: int) -> Cost:
    """Count a detector as the FINE authors' training logs do."""
    return Cost(params(model), ptflops(model, image(height, width), run=forward_pass), LOGGED)
