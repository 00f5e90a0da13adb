"""torchvision's RetinaNet and FCOS: how they are built, filled, run and counted, and their graphs of fixed shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection, mobilenet_v3_large
from torchvision.models.detection import FCOS
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d, clip_boxes_to_image
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError
from fine_edge.lowering.box_coder import BoxDecoder
from fine_edge.lowering.nms import Nms
from fine_edge.lowering.topk import largest, take_rows
from fine_edge.zoo.catalog import find
from fine_edge.zoo.count import Cost, documented_macs, image, params, ptflops
from fine_edge.zoo.family import GraphForm, Reference, detection_outputs
from fine_edge.zoo.random_weights import ScoreCalibration, photographs, randomise_layers, settle
from fine_edge.zoo.torchvision.preprocessed import preprocessed

# The graphs of RetinaNet and FCOS as modules of fixed shapes, made of torchvision's own layers.
#
# torchvision suppresses all pairs of anchor and class that pass its score threshold, up to 1000 a level. These modules
# suppress the best :data:`CANDIDATES` of all levels. Greedy suppression never looks at lower scores, so that results
# are the same unless more pairs than that pass and fewer than the wanted number of detections come out of the best of
# them.

# Pairs of anchor and class that go into suppression; see above.
CANDIDATES = 1000

STRIDES = (8, 16, 32, 64, 128)


def anchors_of(model: nn.Module, form: GraphForm) -> Tensor:
    """Return the library's anchors of all levels for one input size, (A, 4) x0, y0, x1, y1 in pixels."""
    detector: Any = model
    # Strides double from 8 on, and each halving rounds up.
    maps = [torch.empty(1, 1, -(-form.height // stride), -(-form.width // stride)) for stride in STRIDES]
    image = ImageList(torch.empty(1, 3, form.height, form.width), [(form.height, form.width)])
    (anchors,) = detector.anchor_generator(image, maps)
    return anchors  # type: ignore[no-any-return]


class DistanceDecoder(nn.Module):
    """The decoding of FCOS's distances to the sides of a box, in units of the anchor's side; must stay FP32."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.limit = nn.Buffer(torch.tensor([float(width), float(height)] * 2))

    def forward(self, distances: Tensor, anchors: Tensor) -> Tensor:
        """Decode distances (..., 4) left, top, right, bottom and anchors (..., 4) to boxes inside the image."""
        centre = (anchors[..., :2] + anchors[..., 2:]) * 0.5
        scaled = distances * (anchors[..., 2:] - anchors[..., :2]).repeat_interleave(2, -1)
        boxes = torch.cat([centre - scaled[..., :2], centre + scaled[..., 2:]], -1)
        return torch.minimum(boxes.clamp_min(0.0), self.limit)


class OneStageBoxDecoder(nn.Module):
    """Regression of anchors, all or those of the candidates, to boxes in pixels."""

    def __init__(self, model: Any, form: GraphForm) -> None:
        super().__init__()
        self.anchors = nn.Buffer(anchors_of(model, form))
        self.decode = (
            DistanceDecoder(form.height, form.width)
            if isinstance(model, FCOS)
            else BoxDecoder(model.box_coder.weights, form.height, form.width)
        )

    def forward(self, deltas: Tensor, index: Tensor | None = None) -> Tensor:
        """Decode deltas (B, N, 4) of all anchors, or of those at ``index`` (B, N), to boxes (B, N, 4)."""
        anchors: Tensor = self.anchors
        if index is not None:
            anchors = anchors.index_select(0, index.reshape(-1)).reshape(*index.shape, 4)
        boxes: Tensor = self.decode(deltas, anchors)
        return boxes


def _quality(logits: Tensor, centreness: Tensor | None) -> Tensor:
    """Return the rank of pairs: class logits (B, N, K), or their probability times FCOS's centreness (B, N, 1)."""
    # A sigmoid keeps the order, so that RetinaNet's follows the selection; FCOS's product needs it before.
    return logits if centreness is None else logits.sigmoid() * centreness.sigmoid()


class CandidateSelection(nn.Module):
    """The selection of the best pairs of anchor and class, all of which belong to the best anchors."""

    def forward(self, logits: Tensor, centreness: Tensor | None, deltas: Tensor) -> tuple[Tensor, ...]:
        """Select from class logits (B, A, K), FCOS's centreness logits (B, A, 1) and the regression (B, A, 4).

        Returns:
            Quality (B, N) of the best pairs, best first; their anchors (B, N), regression (B, N, 4) and labels (B, N).
        """
        batch, anchors, classes = logits.shape
        best = _quality(logits.amax(2, keepdim=True), centreness).squeeze(2)  # (B, A)
        _, index = largest(best, min(CANDIDATES, anchors))  # (B, n)
        rows = take_rows(logits, index), None if centreness is None else take_rows(centreness, index)
        pairs = _quality(*rows).reshape(batch, -1)  # (B, n * K)
        quality, pair = largest(pairs, min(CANDIDATES, pairs.shape[1]))
        row = pair // classes
        anchor = take_rows(index, row)
        return quality, anchor, take_rows(deltas, anchor), pair - row * classes


class Scores(nn.Module):
    """The score of a quality: its sigmoid, or FCOS's geometric mean of class score and centreness."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.geometric_mean = isinstance(model, FCOS)

    def forward(self, quality: Tensor) -> Tensor:
        """Map a quality of any shape to scores."""
        return quality.sqrt() if self.geometric_mean else quality.sigmoid()


class OneStageNetwork(nn.Module):
    """Images to candidates, or to the boxes and scores of all anchors."""

    def __init__(self, model: Any, form: GraphForm) -> None:
        super().__init__()
        self.backbone, self.encoder, self.decoder = model.backbone.body, model.backbone.fpn, model.head
        self.boxes = OneStageBoxDecoder(model, form)
        self.selection, self.scores, self.raw = CandidateSelection(), Scores(model), form.raw

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run images (B, 3, H, W).

        Returns:
            Boxes (B, N, 4), quality (B, N) and labels (B, N) of the candidates, best first; or boxes (B, A, 4) and
            scores (B, A, K) of all anchors.
        """
        found: dict[str, Tensor] = self.decoder(list(self.encoder(self.backbone(images)).values()))
        logits, centreness, deltas = found["cls_logits"], found.get("bbox_ctrness"), found["bbox_regression"]
        if self.raw:
            return self.boxes(deltas), self.scores(_quality(logits, centreness))
        quality, anchor, deltas, labels = self.selection(logits, centreness, deltas)
        return self.boxes(deltas, anchor), quality, labels


class OneStagePostprocess(nn.Module):
    """The suppression of overlapping candidates."""

    def __init__(self, model: Any, form: GraphForm) -> None:
        super().__init__()
        self.scores, self.threshold = Scores(model), float(model.score_thresh)
        self.nms = Nms(model.nms_thresh, model.detections_per_img, form.nms, ordered=True)

    def forward(self, boxes: Tensor, quality: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return labels (B, D), boxes (B, D, 4) and scores (B, D), best first."""
        scores = self.scores(quality)
        scores = torch.where(scores > self.threshold, scores, 0.0)
        boxes, scores, index = self.nms(boxes, scores, labels)
        return torch.where(scores > 0, labels.gather(1, index), 0), boxes, scores


class OneStage(nn.Module):
    """The module that is exported; :func:`fine_edge.zoo.torchvision.one_stage.outputs` lists its outputs."""

    def __init__(self, model: nn.Module, form: GraphForm) -> None:
        super().__init__()
        self.detector = OneStageNetwork(model, form)
        self.postprocess = None if form.raw else OneStagePostprocess(model, form)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to the tuple of outputs."""
        found: tuple[Tensor, ...] = self.detector(images)
        return found if self.postprocess is None else self.postprocess(*found)


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
