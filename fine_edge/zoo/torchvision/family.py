"""torchvision's detectors for the zoo; what differs is in one file for one stage and in one for two."""

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
from fine_edge.zoo.count import Cost, count_one_stage, count_two_stage
from fine_edge.zoo.family import Family, GraphForm, Reference
from fine_edge.zoo.library_export import quiet_exporter
from fine_edge.zoo.torchvision import checkpoint as checkpoint_file
from fine_edge.zoo.torchvision import one_stage, two_stage
from fine_edge.zoo.torchvision.fpn import inject, pyramid_fusions
from fine_edge.zoo.torchvision.preprocessed import preprocessed
from fine_edge.zoo.torchvision.script_arguments import ScriptArguments


class _OneImage(nn.Module):
    """Names the outputs of the first image of a batch."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (1, 3, H, W) to as many rows as there are detections."""
        found = self.model([images[0]])[0]
        return tuple(found[name] for name in self.names)


def export(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write the library's own forward pass, for one image of the example's size, to an ONNX file."""
    names = ["labels", "boxes", "scores"]
    if getattr(getattr(model, "roi_heads", None), "mask_predictor", None) is not None:
        names.append("masks")
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
    """RetinaNet, FCOS, Faster R-CNN and Mask R-CNN on a ResNet-50 with a feature pyramid."""

    libraries = ("torch", "torchvision")

    def labels(self, entry: ModelEntry) -> tuple[str, ...]:  # noqa: ARG002 - all weights have the same
        """COCO's 91 categories of torchvision: the background is 0, and those that COCO does not use are ``N/A``."""
        return tuple(RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"])

    def build(self, entry: ModelEntry, num_labels: int, *, identity: bool = True) -> nn.Module:
        """See :meth:`Family.build`."""
        stage: Any = one_stage if entry.variant in one_stage.VARIANTS else two_stage
        model: nn.Module = stage.build(entry.variant, num_labels)
        if entry.method:
            inject(model, MethodConfig(entry.method, entry.attention or "aats", identity=identity))
        return model.eval()

    def fusions(self, model: nn.Module) -> list[nn.Module]:
        """See :meth:`Family.fusions`."""
        return pyramid_fusions(model)

    def read(self, path: Path) -> Checkpoint:
        """torchvision's ``.pth`` files, old and new, and our own."""
        return checkpoint_file.read(path)

    def require_settings(self, entry: ModelEntry, model: nn.Module, checkpoint: Checkpoint, where: Path) -> None:  # noqa: ARG002
        """Refuse what a training script trained as another kind of detector."""
        if isinstance(checkpoint.settings, ScriptArguments):
            checkpoint_file.require_kind(checkpoint.settings, entry.variant, where)

    def num_labels(self, checkpoint: Checkpoint) -> int | None:
        """See :meth:`Family.num_labels`."""
        return checkpoint_file.num_labels(checkpoint)

    def randomise(self, model: nn.Module) -> None:
        """See :meth:`Family.randomise`."""
        (one_stage if _is_one_stage(model) else two_stage).randomise(model)

    def reference(self, model: nn.Module, images: Tensor, *, raw: bool) -> Reference:
        """torchvision's forward pass without its resizing and normalisation, detections as it suppresses them."""
        if _is_one_stage(model):
            return one_stage.reference(model, images, raw=raw)
        if raw:
            raise ConfigError("a two-stage detector has no raw form", hint="ask for its detections")
        return two_stage.reference(model, images)

    def graph(self, model: nn.Module, form: GraphForm) -> nn.Module:
        """See :meth:`Family.graph`."""
        return one_stage.graph(model, form) if _is_one_stage(model) else two_stage.graph(model, form)

    def outputs(self, model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
        """See :meth:`Family.outputs`."""
        return one_stage.outputs(model, form) if _is_one_stage(model) else two_stage.outputs(model, form)

    def count(self, model: nn.Module, height: int, width: int) -> Cost:
        """See :meth:`Family.count`."""
        if _is_one_stage(model):
            return count_one_stage(model, height, width, refined=bool(self.fusions(model)))
        return count_two_stage(model, height, width)

    def plain(self, model: nn.Module, example: Tensor, path: Path) -> None:
        """torchvision's own forward pass through torch.onnx, its resizing left out."""
        export(model, example, path)


FAMILY = TorchvisionDetector()
