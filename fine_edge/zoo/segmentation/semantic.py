"""Semantic FPN on torchvision's ResNet and feature pyramid, which gives a class for each pixel.

The backbone is the one of mmsegmentation for this model, ResNet-50 "v1c", with three 3x3 convolutions in the place of
the first 7x7 one. With it the counts are those of the paper's Table 7 (90.9 G); with torchvision's own stem they are
2.5 G lower.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any, TypeVar

from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from fine_edge.contract import TensorSpec
from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo.catalog import find
from fine_edge.zoo.count import Cost, image, macs, params
from fine_edge.zoo.family import GraphForm, Reference
from fine_edge.zoo.random_weights import ScoreCalibration, photographs, randomise_layers, settle
from fine_edge.zoo.segmentation.head import STRIDE, SemanticHead, batch_norm, check_size, upsampled
from fine_edge.zoo.torchvision.fpn import inject

# The spread of each class's logits over the pixels of a photograph, with random weights.
LOGIT_SPREAD = 3.0
_CALIBRATION_SIZE = (256, 512)


def _deep_stem(width: int = 32) -> nn.Sequential:
    """Build the stem, (B, 3, H, W) to (B, 64, H / 2, W / 2), its layers in mmsegmentation's order."""
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
    backbone.body["bn1"], backbone.body["relu"] = nn.Identity(), nn.Identity()  # the stem has its own norms
    backbone.fpn.extra_blocks = None  # strides 4 to 32 only
    return backbone


class SemanticFpn(nn.Module):
    """A ResNet-50, its feature pyramid and a semantic head for ``num_classes`` classes."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone: Any = _backbone()
        self.semantic = SemanticHead(self.backbone.out_channels, num_classes, batch_norm)

    def logits(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, K, H / 4, W / 4)."""
        check_size(*images.shape[-2:])
        maps = self.backbone(images)
        logits: Tensor = self.semantic(list(maps.values()))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, K, H, W), which a loss or an argmax takes."""
        return upsampled(self.logits(images), STRIDE)


class Classes(nn.Module):
    """The model as its users run it, with the best class of each pixel."""

    def __init__(self, model: SemanticFpn) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to classes (B, H, W)."""
        best: Tensor = self.model(images).argmax(1)
        return best


Segmenter = TypeVar("Segmenter", bound=nn.Module)


def refined(model: Segmenter, method: MethodConfig) -> Segmenter:
    """Put a method into the two deepest fusions; FINE's feed-forward has the ratio 4 that its authors' logs print."""
    return inject(model, method.with_ffn(4))


def build(num_classes: int, method: MethodConfig | None) -> SemanticFpn:
    """Build the model with initial weights and ``method`` in its two deepest fusions."""
    model = SemanticFpn(num_classes)
    return refined(model, method) if method else model


def randomise(model: SemanticFpn) -> None:
    """Fill the model as :mod:`fine_edge.zoo.random_weights` says, with logits of equal mean for all classes."""
    norms = randomise_layers(model)
    pictures = photographs(*_CALIBRATION_SIZE, find("semantic_fpn_r50").detector.preprocessing)
    classes = [(model.semantic.classifier, ScoreCalibration(0.0, LOGIT_SPREAD))]
    settle(model, norms, classes, lambda: model.logits(pictures))


def reference(model: SemanticFpn, images: Tensor, *, raw: bool) -> Reference:
    """Run the model's own forward pass; raw gives ``logits`` at stride 4, else the best class at full size."""
    if raw:
        return Reference({"logits": model.logits(images)})
    return Reference({"classes": Classes(model)(images)})


class FullSize(nn.Module):
    """The upsampling of logits at stride 4 to the input's size.

    It is a part of the decoder, and so FP16 where the decoder is: in postprocessing, which stays FP32, the logits would
    take twice the memory. Rounding them makes ties of 0.05 % of the pixels, a tenth of what FP16 changes elsewhere.
    """

    def forward(self, logits: Tensor) -> Tensor:
        """Interpolate before the best class is chosen, as the heads' own libraries do."""
        return upsampled(logits, STRIDE)


def full_size(head: nn.Module) -> nn.Sequential:
    """Return a semantic head with logits of the input's size."""
    return nn.Sequential(OrderedDict(head=head, full_size=FullSize()))


class ClassMap(nn.Module):
    """The choice of the best class of each pixel, the first of equal ones.

    Args:
        first: label of class 0.
    """

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self.first = first

    def forward(self, logits: Tensor) -> Tensor:
        """Map logits (B, K, H, W) to labels (B, H, W)."""
        best = logits.argmax(1)
        return best + self.first if self.first else best


class _Network(nn.Module):
    """The network, its parts under the names that graphs are read by."""

    def __init__(self, model: SemanticFpn, form: GraphForm) -> None:
        super().__init__()
        self.backbone = model.backbone.body
        self.encoder = model.backbone.fpn
        self.decoder = model.semantic if form.raw else full_size(model.semantic)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits, at stride 4 for the raw form, else at the size of the images."""
        logits: Tensor = self.decoder(list(self.encoder(self.backbone(images)).values()))
        return logits


class SemanticGraph(nn.Module):
    """The module that is exported; gives ``classes`` or, raw, ``logits``."""

    def __init__(self, model: SemanticFpn, form: GraphForm) -> None:
        super().__init__()
        check_size(form.height, form.width)
        self.detector = _Network(model, form)
        self.postprocess: nn.Module = nn.Identity() if form.raw else ClassMap()

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Map images (B, 3, H, W) to the one output."""
        return (self.postprocess(self.detector(images)),)


def outputs(model: SemanticFpn, form: GraphForm) -> tuple[TensorSpec, ...]:
    """Return the outputs of :class:`SemanticGraph`."""
    batch, height, width = form.batch, form.height, form.width
    if form.raw:
        shape = (batch, model.semantic.classifier.out_channels, height // STRIDE, width // STRIDE)
        return (TensorSpec("logits", "float32", shape, "class logits at a quarter of the input's size"),)
    return (TensorSpec("classes", "int64", (batch, height, width), "class index of each pixel of the input"),)


CONVENTION = (
    "MACs by fvcore's rules up to the logits at stride 4; batch norms not frozen, products of attention not counted"
)


def count(model: nn.Module, height: int, width: int) -> Cost:
    """Count a model up to its logits at stride 4."""
    logits = macs(model, image(height, width), run=lambda copied, images: copied.logits(images), attention=False)
    return Cost(params(model), logits, CONVENTION)
