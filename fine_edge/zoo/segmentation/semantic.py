"""Semantic FPN on torchvision's ResNet and pyramid, which gives a class for each pixel, and the head of both kinds.

The backbone is the one of mmsegmentation for this model, ResNet-50 "v1c", with three 3x3 convolutions in the place of
the first 7x7 one. With it the counts are those of the paper's Table 7 (90.9 G); with torchvision's own stem they are
2.5 G lower.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError
from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo.catalog import find
from fine_edge.zoo.count import Cost, image, macs, params
from fine_edge.zoo.family import GraphForm, Reference
from fine_edge.zoo.random_weights import ScoreCalibration, photographs, randomise_layers, settle
from fine_edge.zoo.torchvision.fpn import inject

# The semantic head of Panoptic FPN (Kirillov et al., 2019, Sec. 3.1), which makes one map at stride 4 of a pyramid.

# The stride of the pyramid's finest level and of the head's output.
STRIDE = 4
# The stride of the coarsest level. With multiples of it every level has exactly twice the size of the next one.
COARSEST_STRIDE = 32
# The number of channels of every stage and of the classifier's input.
CHANNELS = 128
_GROUPS = 32


def batch_norm() -> nn.Module:
    """Build the norm of Semantic FPN, mmsegmentation's choice that the paper counted; an export folds it away."""
    return nn.BatchNorm2d(CHANNELS)


def group_norm() -> nn.Module:
    """Build the norm of Panoptic FPN, its authors' choice, whose batches are too small for batch norms."""
    return nn.GroupNorm(_GROUPS, CHANNELS)


def upsampled(x: Tensor, factor: int) -> Tensor:
    """Resize (B, C, H, W) to (B, C, factor * H, factor * W) bilinearly."""
    return F.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)


def _stage(channels: int, norm: Callable[[], nn.Module], *, doubled: bool) -> nn.Sequential:
    """Build a convolution, a norm, a ReLU and, where ``doubled``, an upsampling."""
    conv = nn.Conv2d(channels, CHANNELS, 3, padding=1, bias=False)
    layers: list[nn.Module] = [conv, norm(), nn.ReLU(inplace=True)]
    if doubled:
        layers.append(nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


class SemanticHead(nn.Module):
    """Stages that bring each level to stride 4, the sum of the levels, and a classifier.

    Args:
        channels: number of channels of the pyramid.
        num_classes: number of classes K.
        norm: builds one norm.
        levels: number of the pyramid's levels that are used, from the finest on.
    """

    def __init__(self, channels: int, num_classes: int, norm: Callable[[], nn.Module], levels: int = 4) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(
                *(_stage(CHANNELS if j else channels, norm, doubled=bool(level)) for j in range(max(1, level)))
            )
            for level in range(levels)
        )
        self.classifier = nn.Conv2d(CHANNELS, num_classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map levels (B, C, H / 4, W / 4) and coarser, each half of the one before, to logits (B, K, H / 4, W / 4)."""
        # Deepest first, so that only the sum has to be kept in memory beside the next level.
        *finer, deepest = zip(self.levels, maps, strict=True)
        total: Tensor = deepest[0](deepest[1])
        for level, x in reversed(finer):
            total = total + level(x)
        logits: Tensor = self.classifier(total)
        return logits


def check_size(height: int, width: int) -> None:
    """Refuse sizes whose pyramid does not double from level to level.

    Raises:
        ConfigError: when one of them is not a multiple of 32.
    """
    if height % COARSEST_STRIDE or width % COARSEST_STRIDE:
        raise ConfigError(
            f"an input of {height}x{width} pixels does not divide by {COARSEST_STRIDE}",
            hint=f"choose multiples of {COARSEST_STRIDE}",
        )


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
    # As in Panoptic FPN, nothing is frozen where nothing is pretrained.
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
