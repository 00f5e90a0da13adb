"""Semantic FPN on torchvision's ResNet and feature pyramid: a class for each pixel.

The backbone is mmsegmentation's for this model, ResNet-50 "v1c", three 3x3 convolutions for the first 7x7 one:
with it the counts are those of the paper's Table 7 (90.9 G), with torchvision's own stem they fall short by 2.5 G.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from fine_edge.contract import TensorSpec
from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import GraphForm, Reference
from fine_edge.zoo.random_weights import ScoreCalibration, photographs, randomise_layers, settle
from fine_edge.zoo.segmentation.head import STRIDE, SemanticHead, batch_norm, check_size, upsampled
from fine_edge.zoo.torchvision.fpn import FusionPlace, inject

# All three fusions, deepest first (level of the low-level map, FINE's k): the counts of Table 7 need the third.
PLACES = (FusionPlace(2, 1), FusionPlace(1, 2), FusionPlace(0, 4))

# Of random weights: each class's logits over the pixels of a photograph.
LOGIT_SPREAD = 3.0
_CALIBRATION_SIZE = (256, 512)


def _deep_stem(width: int = 32) -> nn.Sequential:
    """Images (B, 3, H, W) to (B, 64, H / 2, W / 2); layers in the order of mmsegmentation's ``stem``."""
    channels = (3, width, width, 2 * width)
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(itertools.pairwise(channels)):
        stride = 1 if index else 2
        layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _backbone() -> Any:
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    backbone.body["conv1"] = _deep_stem()
    backbone.body["bn1"], backbone.body["relu"] = nn.Identity(), nn.Identity()  # the stem has its own
    backbone.fpn.extra_blocks = None  # strides 4 to 32 only
    return backbone


class SemanticFpn(nn.Module):
    """ResNet-50, feature pyramid and semantic head, for ``num_classes`` classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone: Any = _backbone()
        self.semantic = SemanticHead(self.backbone.out_channels, num_classes, batch_norm)

    def logits(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, K, H / 4, W / 4)."""
        check_size(*images.shape[-2:])
        maps = self.backbone(images)
        logits: Tensor = self.semantic(list(maps.values()))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, K, H, W), which a loss or an argmax takes."""
        return upsampled(self.logits(images), STRIDE)


class Classes(nn.Module):
    """The model as its users run it: images (B, 3, H, W) to the best class of each pixel (B, H, W)."""

    def __init__(self, model: SemanticFpn) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """One pass."""
        best: Tensor = self.model(images).argmax(1)
        return best


def build(num_classes: int, method: MethodConfig | None) -> SemanticFpn:
    """The model with initial weights, ``method`` in all of its fusions."""
    model = SemanticFpn(num_classes)
    return inject(model, method, PLACES) if method else model


def randomise(model: SemanticFpn) -> None:
    """See :mod:`fine_edge.zoo.random_weights`; no class is more likely than another."""
    norms = randomise_layers(model)
    pictures = photographs(*_CALIBRATION_SIZE, find("semantic_fpn_r50").detector.preprocessing)
    classes = [(model.semantic.classifier, ScoreCalibration(0.0, LOGIT_SPREAD))]
    settle(model, norms, classes, lambda: model.logits(pictures))


def reference(model: SemanticFpn, images: Tensor, *, raw: bool) -> Reference:
    """The model's own forward pass: ``logits`` at stride 4 or, of the logits at full size, the best class."""
    if raw:
        return Reference({"logits": model.logits(images)})
    return Reference({"classes": Classes(model)(images)})


class FullSize(nn.Module):
    """Logits at stride 4 to logits (B, K, H, W).

    Part of the decoder, and so FP16 where that is: postprocessing, which stays FP32, would keep logits of twice the
    size for the best of them. Rounding them makes ties of 0.05 % of the pixels, a tenth of what FP16 changes elsewhere.
    """

    def forward(self, logits: Tensor) -> Tensor:
        """Interpolated before the best is chosen, as in the heads' own libraries."""
        return upsampled(logits, STRIDE)


def full_size(head: nn.Module) -> nn.Sequential:
    """A semantic head that gives logits of the input's size."""
    return nn.Sequential(OrderedDict(head=head, full_size=FullSize()))


class ClassMap(nn.Module):
    """Logits (B, K, H, W) to the label of the best class of each pixel (B, H, W), the first of equals.

    Args:
        first: label of class 0.
    """

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.first = first

    def forward(self, logits: Tensor) -> Tensor:
        """See the class."""
        best = logits.argmax(1)
        return best + self.first if self.first else best


class _Network(nn.Module):
    """Images (B, 3, H, W) to logits, its parts under the names that graphs are read by."""

    def __init__(self, model: SemanticFpn, form: GraphForm) -> None:
        super().__init__()
        self.backbone = model.backbone.body
        self.encoder = model.backbone.fpn
        self.decoder = model.semantic if form.raw else full_size(model.semantic)

    def forward(self, images: Tensor) -> Tensor:
        """At stride 4 for the raw form, else at the size of the images."""
        logits: Tensor = self.decoder(list(self.encoder(self.backbone(images)).values()))
        return logits


class SemanticGraph(nn.Module):
    """What is exported: images (B, 3, H, W) to ``classes`` or, raw, to ``logits``."""

    def __init__(self, model: SemanticFpn, form: GraphForm) -> None:
        super().__init__()
        check_size(form.height, form.width)
        self.detector = _Network(model, form)
        self.postprocess: nn.Module = nn.Identity() if form.raw else ClassMap()

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """One output."""
        return (self.postprocess(self.detector(images)),)


def outputs(model: SemanticFpn, form: GraphForm) -> tuple[TensorSpec, ...]:
    """Of :class:`SemanticGraph`."""
    batch, height, width = form.batch, form.height, form.width
    if form.raw:
        shape = (batch, model.semantic.classifier.out_channels, height // STRIDE, width // STRIDE)
        return (TensorSpec("logits", "float32", shape, "class logits at a quarter of the input's size"),)
    return (TensorSpec("classes", "int64", (batch, height, width), "class index of each pixel of the input"),)
