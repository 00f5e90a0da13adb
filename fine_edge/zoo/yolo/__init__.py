"""YOLOs of ultralytics: v5, v6, v8, v10 and v12, each with FINE or without.

Licence: ultralytics is AGPL-3.0, or commercial from Ultralytics; nothing of it is part of this package, which calls it
where it is installed (extra ``yolo``). What one makes with it, models and weights included, is for its licence to
settle: https://ultralytics.com/license.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError
from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint
from fine_edge.zoo.coco import COCO_LABELS
from fine_edge.zoo.count import Cost, count_yolo
from fine_edge.zoo.family import Family, GraphForm, Reference, detection_outputs
from fine_edge.zoo.yolo import checkpoint, plain
from fine_edge.zoo.yolo.fusion import fusions, inject
from fine_edge.zoo.yolo.graph import YoloGraph
from fine_edge.zoo.yolo.library import DetectionModel, quiet
from fine_edge.zoo.yolo.postprocess import ROWS, one_to_one
from fine_edge.zoo.yolo.reference import reference
from fine_edge.zoo.yolo.stated import StatedStructure, require_same_structure
from fine_edge.zoo.yolo.structure import structure
from fine_edge.zoo.yolo.weights import randomise

_LEAST_WIDTH = 64

__all__ = ["FAMILY", "Yolo", "inject"]


class Yolo(Family):
    """Detectors of ultralytics."""

    libraries = ("torch", "ultralytics")
    builds_on_meta = False  # it runs itself once to find its strides

    def labels(self, entry: ModelEntry) -> tuple[str, ...]:  # noqa: ARG002 - all variants have the same
        """COCO's 80 classes."""
        return COCO_LABELS

    def build(self, entry: ModelEntry, num_labels: int, *, identity: bool = True) -> DetectionModel:
        """See :meth:`Family.build`."""
        with quiet():
            model = DetectionModel(structure(entry.variant), nc=num_labels, verbose=False)
        names = COCO_LABELS if num_labels == len(COCO_LABELS) else [f"class_{index}" for index in range(num_labels)]
        # What ultralytics' own code asks of a model that is saved, loaded, trained or exported.
        model.names, model.task = dict(enumerate(names)), "detect"
        if entry.method:
            config = MethodConfig(entry.method, entry.attention or "aats", identity=identity)
            inject(model, config)
        model.train(False)
        return model

    def fusions(self, model: nn.Module) -> list[nn.Module]:
        """See :meth:`Family.fusions`."""
        return fusions(cast(DetectionModel, model))

    def read(self, path: Path) -> Checkpoint:
        """The ``.pt`` files of ultralytics, state dicts, our own; see :mod:`fine_edge.zoo.yolo.checkpoint`."""
        return checkpoint.read(path)

    def require_settings(self, entry: ModelEntry, model: nn.Module, checkpoint: Checkpoint, where: Path) -> None:  # noqa: ARG002
        """Refuse a file whose layers compute something else than the model's."""
        if isinstance(checkpoint.settings, StatedStructure):
            require_same_structure(model, checkpoint.settings, where)

    def num_labels(self, checkpoint: Checkpoint) -> int | None:
        """See :meth:`Family.num_labels`."""
        return checkpoint_classes(checkpoint)

    def randomise(self, model: nn.Module) -> None:
        """See :meth:`Family.randomise`."""
        randomise(cast(DetectionModel, model))

    def reference(self, model: nn.Module, images: Tensor, *, raw: bool) -> Reference:
        """The forward pass and NMS of ultralytics."""
        return reference(cast(DetectionModel, model), images, raw=raw)

    def graph(self, model: nn.Module, form: GraphForm) -> nn.Module:
        """See :mod:`fine_edge.zoo.yolo.graph`."""
        return YoloGraph(cast(DetectionModel, model), form).eval()

    def outputs(self, model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
        """See :meth:`Family.outputs`."""
        head: Any = cast(DetectionModel, model).model[-1]
        strides = [int(stride) for stride in head.stride.tolist()]
        if form.height % max(strides) or form.width % max(strides):
            raise ConfigError(
                f"input {form.height}x{form.width} is no multiple of {max(strides)}", mend="choose sides that are"
            )
        anchors = sum((form.height // stride) * (form.width // stride) for stride in strides)
        if anchors < ROWS:
            raise ConfigError(
                f"input {form.height}x{form.width} has {anchors} anchors for {ROWS} detections",
                mend="use at least 128x128",
            )
        if not form.raw:
            return detection_outputs(form.batch, ROWS)
        if one_to_one(cast(DetectionModel, model)):
            shape, meaning = (form.batch, ROWS, 6), "x0, y0, x1, y1 in pixels of the input, score, class; best first"
        else:
            shape, meaning = (form.batch, 4 + head.nc, anchors), "cx, cy, w, h in pixels of the input, class scores"
        return (TensorSpec("predictions", "float32", shape, meaning),)

    def count(self, model: nn.Module, height: int, width: int) -> Cost:
        """Parameters and FLOPs of the fused model; YOLOv10 keeps both heads, as the paper's figures have it."""
        fused: Any = copy.deepcopy(model)
        fused.model[-1].fuse = lambda: None  # would drop the head that inference does not use
        with quiet():
            fused.fuse(verbose=False)
        return count_yolo(fused, height, width)

    def plain(self, model: nn.Module, example: Tensor, path: Path) -> None:
        """The exporter of ultralytics."""
        plain.export(cast(DetectionModel, model), example, path)


def checkpoint_classes(checkpoint: Checkpoint) -> int | None:
    """K, from the last convolution of the finest level's class branch."""
    heads = [
        tensor
        for key, tensor in checkpoint.state.items()
        if key.startswith("model.") and key.endswith(".cv3.0.2.weight") and tensor.ndim == 4 and len(tensor)
        # The width of the branch, so that a file cannot claim classes which it has no weights for.
        if tensor.shape[1] >= _LEAST_WIDTH
    ]
    return int(heads[0].shape[0]) if heads else None


FAMILY = Yolo()
