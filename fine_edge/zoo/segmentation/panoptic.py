"""Panoptic FPN: torchvision's Mask R-CNN with the semantic head on the same pyramid.

It differs from torchvision's own Mask R-CNN in two points, both as in mmdetection, with which the paper's Table 7 was
counted: 80 things instead of 90 with gaps, and batch norms that are not frozen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError
from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo.catalog import find
from fine_edge.zoo.count import Cost, image, macs, params
from fine_edge.zoo.family import GraphForm, Reference, quiet_exporter
from fine_edge.zoo.labels import COCO_STUFF
from fine_edge.zoo.random_weights import ScoreCalibration, photographs, settle
from fine_edge.zoo.segmentation.semantic import (
    LOGIT_SPREAD,
    STRIDE,
    ClassMap,
    SemanticHead,
    check_size,
    full_size,
    group_norm,
    refined,
    upsampled,
)
from fine_edge.zoo.torchvision import two_stage

# The number of classes of the semantic head: the stuff, then all things as one.
SEMANTIC_CLASSES = len(COCO_STUFF) + 1

# torchvision's pyramid has one level more, which only the proposals use.
_SEMANTIC_LEVELS = 4
_CALIBRATION_SIZE = 320


class PanopticFpn(MaskRCNN):  # type: ignore[misc]  # torchvision has no types
    """A Mask R-CNN with torchvision's forward pass and training, and a semantic head beside its own heads.

    Args:
        num_labels: number of labels of the detector with the background.
    """

    def __init__(self, num_labels: int) -> None:
        # All five parts learn: by default torchvision freezes the first two, which are of use only when pretrained.
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
        )
        super().__init__(backbone, num_labels)
        self.semantic = SemanticHead(backbone.out_channels, SEMANTIC_CLASSES, group_norm, _SEMANTIC_LEVELS)

    @property
    def first_stuff(self) -> int:
        """Return the label of the semantic head's class 0; its labels follow those of the detector."""
        predictor: Any = self.roi_heads.box_predictor
        return int(predictor.cls_score.out_features)

    def stuff_logits(self, maps: dict[str, Tensor]) -> Tensor:
        """Map the levels of ``backbone`` to logits (B, 54, H / 4, W / 4)."""
        logits: Tensor = self.semantic(list(maps.values())[:_SEMANTIC_LEVELS])
        return logits


def build(num_labels: int, method: MethodConfig | None) -> PanopticFpn:
    """Build the model with ``method`` in its two deepest fusions; ``num_labels`` counts the labels of both heads.

    Raises:
        ConfigError: when the number leaves no class for the detector.
    """
    of_detector = num_labels - SEMANTIC_CLASSES
    if of_detector < 2:
        raise ConfigError(
            f"{num_labels} labels are too few: the semantic head has {SEMANTIC_CLASSES}, the background is one more"
        )
    model = PanopticFpn(of_detector)
    return refined(model, method) if method else model


def randomise(model: PanopticFpn) -> None:
    """Fill the detector as torchvision's, and the semantic head with logits of equal mean."""
    two_stage.randomise(model)
    preprocessing = find("panoptic_fpn_r50").detector.preprocessing
    pictures = photographs(_CALIBRATION_SIZE, _CALIBRATION_SIZE, preprocessing)
    # No norms are left to settle: the detector's are, and a group norm has no running statistics.
    classes = [(model.semantic.classifier, ScoreCalibration(0.0, LOGIT_SPREAD))]
    settle(model, [], classes, lambda: model.stuff_logits(model.backbone(pictures)))


def reference(model: PanopticFpn, images: Tensor) -> Reference:
    """Run torchvision's stages for the instances, and the semantic head on the same maps for the stuff.

    Raises:
        ConfigError: for sizes that are no multiples of 32.
    """
    check_size(*images.shape[-2:])
    # A hook catches the maps, so that the backbone and the pyramid run once for both heads.
    seen: list[dict[str, Tensor]] = []
    hook = model.backbone.register_forward_hook(lambda _module, _images, maps: seen.append(maps))
    try:
        instances = two_stage.reference(model, images)
    finally:
        hook.remove()
    stuff = ClassMap(model.first_stuff)(upsampled(model.stuff_logits(seen[0]), STRIDE))
    return Reference({**instances.outputs, "stuff": stuff}, instances.margin)


class _Outputs(nn.Module):
    """The model as its users run it, with the outputs of :func:`reference`."""

    def __init__(self, model: PanopticFpn) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to the outputs."""
        return tuple(reference(self.model, images).outputs.values())


def plain(model: PanopticFpn, example: Tensor, path: Path) -> None:
    """Write the model's own forward pass as ONNX."""
    # By torch.onnx's former exporter: the present one refuses torchvision's detectors, whose shapes depend on data.
    names = [spec.name for spec in outputs(model, GraphForm())]
    with torch.no_grad(), quiet_exporter():
        torch.onnx.export(
            _Outputs(model).eval(), (example,), path, input_names=["images"], output_names=names, dynamo=False
        )


class _Trunk(nn.Module):
    """The backbone and the pyramid, which both halves of the graph share."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone, self.encoder = backbone.body, backbone.fpn

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map images (B, 3, H, W) to the pyramid's maps by name, finest first."""
        maps: dict[str, Tensor] = self.encoder(self.backbone(images))
        return maps


class PanopticGraph(two_stage.TwoStage):
    """The module that is exported: Mask R-CNN's outputs and ``stuff``.

    Both halves use the same maps, so that the graph of Mask R-CNN gets these instead of images.

    Raises:
        ConfigError: for the raw form, and for sizes that are no multiples of 32.
    """

    def __init__(self, model: PanopticFpn, form: GraphForm) -> None:
        outputs(model, form)
        check_size(form.height, form.width)
        super().__init__(model, form)
        self.trunk = _Trunk(model.backbone)
        self.detector.backbone, self.detector.encoder = nn.Identity(), nn.Identity()
        self.decoder = full_size(model.semantic)
        self.postprocess.stuff = ClassMap(model.first_stuff)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to the outputs that :func:`outputs` lists."""
        maps: Any = self.trunk(images)
        logits = self.decoder(list(maps.values())[:_SEMANTIC_LEVELS])
        stuff: Any = self.postprocess.stuff
        return *super().forward(maps), stuff(logits)


def outputs(model: PanopticFpn, form: GraphForm) -> tuple[TensorSpec, ...]:
    """Return the outputs of :class:`PanopticGraph`.

    Raises:
        ConfigError: for the raw form.
    """
    meaning = f"label of the stuff at each pixel, {model.first_stuff} and up; the last is any thing"
    stuff = TensorSpec("stuff", "int64", (form.batch, form.height, form.width), meaning)
    return *two_stage.outputs(model, form), stuff


CONVENTION = (
    f"MACs by fvcore's rules; {two_stage.PROPOSALS} proposals, {two_stage.DETECTIONS} masks, stuff at stride 4; batch"
    " norms not frozen, products of attention not counted"
)


def forward_pass(model: Any, images: Tensor) -> None:
    """Run one image through both stages, all masks, and the semantic head."""
    maps, *_ = two_stage.forward_pass(model, images)
    heads = model.roi_heads
    heads.mask_predictor(heads.mask_head(two_stage.pooled(two_stage.DETECTIONS, maps[0], heads.mask_roi_pool)))
    model.semantic(maps[:_SEMANTIC_LEVELS])


def count(model: nn.Module, height: int, width: int) -> Cost:
    """Count a Mask R-CNN with a semantic head on its four finest maps."""
    return Cost(params(model), macs(model, image(height, width), run=forward_pass, attention=False), CONVENTION)
