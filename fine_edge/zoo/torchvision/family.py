"""torchvision's detectors as a family of the zoo; one-stage and two-stage detectors have a file of their own each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet, RetinaNet_ResNet50_FPN_Weights

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError
from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint
from fine_edge.zoo.count import Cost
from fine_edge.zoo.family import Family, GraphForm, Reference, Trainable, quiet_exporter
from fine_edge.zoo.labels import BACKGROUND
from fine_edge.zoo.torchvision import checkpoint as checkpoint_file
from fine_edge.zoo.torchvision import one_stage, two_stage
from fine_edge.zoo.torchvision.fpn import inject, pyramid_backbone, pyramid_fusions
from fine_edge.zoo.torchvision.preprocessed import Losses, collate, preprocessed


class _OneImage(nn.Module):
    """The detector on the first image of a batch, with its outputs in the order of ``names``."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (1, 3, H, W) to outputs with one row for each detection."""
        found = self.model([images[0]])[0]
        return tuple(found[name] for name in self.names)


def export(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write the library's own forward pass for one image of the example's size, without its resizing, as ONNX."""
    names = ["labels", "boxes", "scores"]
    if getattr(getattr(model, "roi_heads", None), "mask_predictor", None) is not None:
        names.append("masks")
    # By torch.onnx's former exporter: the present one refuses these detectors, whose shapes depend on data.
    with torch.no_grad(), quiet_exporter(), preprocessed(model):
        torch.onnx.export(
            _OneImage(model, names).eval(),
            (example[:1],),
            str(path),
            input_names=["images"],
            output_names=names,
            dynamo=False,
        )


def _is_one_stage(model: nn.Module) -> bool:
    return isinstance(model, RetinaNet | FCOS)


class TorchvisionDetector(Family):
    """RetinaNet, FCOS, Faster R-CNN and Mask R-CNN with a feature pyramid.

    Labels are COCO's 91 categories of torchvision: 0 is the background, and categories that COCO does not use are
    ``N/A``.
    """

    libraries = ("torch", "torchvision")

    def labels(self, entry: ModelEntry) -> tuple[str, ...]:  # noqa: ARG002 - all weights have the same
        return tuple(RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"])

    def build(self, entry: ModelEntry, num_labels: int, *, identity: bool = True) -> nn.Module:
        stage: Any = one_stage if entry.variant in one_stage.VARIANTS else two_stage
        model: nn.Module = stage.build(entry.variant, num_labels)
        if entry.method:
            inject(model, MethodConfig(entry.method, entry.options, identity=identity))
        return model.eval()

    def inject(self, model: nn.Module, config: MethodConfig) -> nn.Module:
        return inject(model, config)

    def fusions(self, model: nn.Module) -> list[nn.Module]:
        return pyramid_fusions(model)

    def backbone(self, model: nn.Module) -> list[nn.Module]:
        return pyramid_backbone(model)

    def read(self, path: Path) -> Checkpoint:
        return checkpoint_file.read(path)

    def require_settings(self, entry: ModelEntry, model: nn.Module, checkpoint: Checkpoint, where: Path) -> None:  # noqa: ARG002
        if isinstance(checkpoint.settings, checkpoint_file.ScriptArguments):
            checkpoint_file.require_kind(checkpoint.settings, entry.variant, where)

    def num_labels(self, checkpoint: Checkpoint) -> int | None:
        return checkpoint_file.num_labels(checkpoint)

    def randomise(self, model: nn.Module) -> None:
        (one_stage if _is_one_stage(model) else two_stage).randomise(model)

    def reference(self, model: nn.Module, images: Tensor, *, raw: bool) -> Reference:
        if _is_one_stage(model):
            return one_stage.reference(model, images, raw=raw)
        if raw:
            raise ConfigError("a two-stage detector has no raw form", hint="ask for its detections")
        return two_stage.reference(model, images)

    def graph(self, model: nn.Module, form: GraphForm) -> nn.Module:
        return one_stage.graph(model, form) if _is_one_stage(model) else two_stage.graph(model, form)

    def outputs(self, model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
        return one_stage.outputs(model, form) if _is_one_stage(model) else two_stage.outputs(model, form)

    def count(self, model: nn.Module, height: int, width: int) -> Cost:
        count = one_stage.count if _is_one_stage(model) else two_stage.count
        return count(model, height, width)

    def count_as_logged(self, model: nn.Module, height: int, width: int) -> Cost:
        count = one_stage.count_as_logged if _is_one_stage(model) else two_stage.count_as_logged
        return count(model, height, width)

    def plain(self, model: nn.Module, example: Tensor, path: Path) -> None:
        export(model, example, path)

    def labels_of(self, categories: tuple[str, ...]) -> tuple[str, ...]:
        return BACKGROUND, *categories

    def trainable(self, entry: ModelEntry, model: nn.Module) -> Trainable:  # noqa: ARG002 - all variants train alike
        return Trainable(Losses(model), collate)


FAMILY = TorchvisionDetector()
