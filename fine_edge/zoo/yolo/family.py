"""YOLOs of ultralytics: v5, v6, v8, v10 and v12, each with FINE or without.

Licence: ultralytics is licensed under the AGPL-3.0, or commercially by Ultralytics. No part of it is in this package,
which calls it where it is installed (extra ``yolo``). Its licence also covers what one makes with it, models and
weights included: https://ultralytics.com/license.
"""

from __future__ import annotations

import copy
import importlib.util
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError, MissingExtraError
from fine_edge.fusion.methods import MethodConfig
from fine_edge.preprocess import Preprocessing
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint
from fine_edge.zoo.count import Cost, params
from fine_edge.zoo.family import Family, GraphForm, Reference, Trainable, detection_outputs, quiet_exporter
from fine_edge.zoo.labels import COCO_LABELS
from fine_edge.zoo.random_weights import ScoreCalibration, photographs, randomise_layers, settle
from fine_edge.zoo.yolo import checkpoint
from fine_edge.zoo.yolo.fusion import backbone, fusions, inject
from fine_edge.zoo.yolo.graph import YoloGraph
from fine_edge.zoo.yolo.library import DetectionModel, Exporter, block, non_max_suppression, quiet, structure
from fine_edge.zoo.yolo.postprocess import CONFIDENCE, IOU, ROWS, one_to_one
from fine_edge.zoo.yolo.stated import StatedStructure, require_same_structure

# Of 80 classes at every anchor, a few dozen scores are then above 0.25 at 640x640, and a tenth of all above 0.001, the
# threshold of NMS.
LOGIT_MEAN, LOGIT_SPREAD = -9.0, 2.0

# Large enough for the deepest map to have a hundred positions, small enough to take seconds.
_SIZE = 320
# How much the logits of a side's bins differ between anchors, and how fast they fall off around a distance.
_BIN_SPREAD, _BIN_SLOPE = 2.0, 1.0


def _heads(head: Any) -> list[tuple[nn.ModuleList, nn.ModuleList]]:
    """Return the pairs of box and class branches; YOLOv10 has two."""
    pairs = [(head.cv2, head.cv3)]
    if getattr(head, "one2one_cv2", None) is not None:
        pairs.append((head.one2one_cv2, head.one2one_cv3))
    return pairs


def _randomise_boxes(branch: nn.ModuleList, bins: int) -> None:
    """Give box branches distances of 2 to 6 strides that differ between anchors, each with a peak among its bins."""
    distance = torch.arange(bins, dtype=torch.float32)
    for level in branch:
        last: Any = cast(nn.Sequential, level)[-1]
        nn.init.normal_(last.weight, std=_BIN_SPREAD * last.in_channels**-0.5)
        peak = 2 + 4 * torch.rand(4, 1)
        last.bias.copy_((-_BIN_SLOPE * (distance - peak).abs()).flatten())


def randomise(model: DetectionModel) -> None:
    """Replace the weights outside the fusion methods; the caller seeds torch."""
    norms = randomise_layers(model)
    for module in model.modules():
        if isinstance(module, block.DFL):  # holds the bins' distances, which are no weights
            module.conv.weight.copy_(torch.arange(module.c1).float().view(1, -1, 1, 1))
    head: Any = model.model[-1]
    heads = []
    scores = ScoreCalibration(LOGIT_MEAN, LOGIT_SPREAD)
    for boxes, classes in _heads(head):
        _randomise_boxes(boxes, head.reg_max)
        heads += [(cast(nn.Sequential, level)[-1], scores) for level in classes]
    pictures = photographs(_SIZE, _SIZE, Preprocessing("letterbox", align="center"))
    settle(model, norms, heads, lambda: model(pictures))


def export(model: DetectionModel, example: Tensor, path: Path) -> None:
    """Write the file of ``YOLO.export(format="onnx")`` for this size, with YOLOv10's NMS-free head where there is one.

    All else are its defaults: the opset and, where onnxslim is installed, its simplification. Without onnxslim
    ultralytics tries to install it and then skips that step with a warning. ONNX Runtime's own optimiser arrives at the
    same operators (counted for YOLOv8-S).
    """
    model = copy.deepcopy(model)  # the exporter fuses it and changes its head
    model.task = "detect"
    options = {
        "format": "onnx",
        "imgsz": list(example.shape[-2:]),
        "batch": example.shape[0],
        "device": "cpu",
        "max_det": ROWS,
        "nms": False,  # keeps the NMS-free head where there is one
        "simplify": importlib.util.find_spec("onnxslim") is not None,
    }
    with tempfile.TemporaryDirectory(prefix="fine_edge-") as folder, quiet(), quiet_exporter():
        model.pt_path = str(Path(folder) / "model.pt")  # the exporter puts its file beside this one
        shutil.copyfile(Exporter(overrides=options)(model), path)


# Without a limit as long as this, ultralytics' NMS stops after a while and leaves images out.
_PATIENCE_S = 600.0


def reference(model: DetectionModel, images: Tensor, *, raw: bool) -> Reference:
    """Run ultralytics' forward pass and NMS on letterboxed images (B, 3, H, W) in [0, 1]; pads rows to ``ROWS``."""
    model.end2end = one_to_one(model)  # off by default, although YOLOv10 is made for it
    predictions, _ = model(images)  # (B, 4 + K, A), or (B, 300, 6) of YOLOv10
    if raw:
        return Reference({"predictions": predictions})
    with quiet():
        found = non_max_suppression(
            predictions.clone(),
            CONFIDENCE,
            IOU,
            multi_label=True,
            max_det=ROWS,
            max_time_img=_PATIENCE_S,
            end2end=model.end2end,
        )
    rows = torch.stack([_padded(image) for image in found])  # (B, 300, 6): x0, y0, x1, y1, score, class
    return Reference({"labels": rows[..., 5].long(), "boxes_xyxy": rows[..., :4], "scores": rows[..., 4]})


def _padded(rows: Tensor) -> Tensor:
    return torch.cat([rows, rows.new_zeros(ROWS - len(rows), 6)])


# The width of the class branch at ultralytics' smallest scale, n; it grows with the scale and the classes.
_LEAST_WIDTH = 64


class Yolo(Family):
    """Detectors of ultralytics, with COCO's 80 classes."""

    libraries = ("torch", "ultralytics")
    builds_on_meta = False  # a model runs itself once to find its strides

    def labels(self, entry: ModelEntry) -> tuple[str, ...]:  # noqa: ARG002 - all variants have the same
        return COCO_LABELS

    def build(self, entry: ModelEntry, num_labels: int, *, identity: bool = True) -> DetectionModel:
        with quiet():
            model = DetectionModel(structure(entry.variant), nc=num_labels, verbose=False)
        names = COCO_LABELS if num_labels == len(COCO_LABELS) else [f"class_{index}" for index in range(num_labels)]
        # ultralytics' own code reads these attributes when a model is saved, loaded, trained or exported.
        model.names, model.task = dict(enumerate(names)), "detect"
        if entry.method:
            config = MethodConfig(entry.method, entry.options, identity=identity)
            inject(model, config)
        model.train(False)
        return model

    def inject(self, model: nn.Module, config: MethodConfig) -> nn.Module:
        inject(cast(DetectionModel, model), config)
        return model

    def fusions(self, model: nn.Module) -> list[nn.Module]:
        return fusions(cast(DetectionModel, model))

    def backbone(self, model: nn.Module) -> list[nn.Module]:
        return backbone(cast(DetectionModel, model))

    def read(self, path: Path) -> Checkpoint:
        return checkpoint.read(path)

    def require_settings(self, entry: ModelEntry, model: nn.Module, checkpoint: Checkpoint, where: Path) -> None:  # noqa: ARG002
        if isinstance(checkpoint.settings, StatedStructure):
            require_same_structure(model, checkpoint.settings, where)

    def num_labels(self, checkpoint: Checkpoint) -> int | None:
        return checkpoint_classes(checkpoint)

    def randomise(self, model: nn.Module) -> None:
        randomise(cast(DetectionModel, model))

    def reference(self, model: nn.Module, images: Tensor, *, raw: bool) -> Reference:
        return reference(cast(DetectionModel, model), images, raw=raw)

    def graph(self, model: nn.Module, form: GraphForm) -> nn.Module:
        return YoloGraph(cast(DetectionModel, model), form).eval()

    def outputs(self, model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
        head: Any = cast(DetectionModel, model).model[-1]
        strides = [int(stride) for stride in head.stride.tolist()]
        if form.height % max(strides) or form.width % max(strides):
            raise ConfigError(
                f"input {form.height}x{form.width} is no multiple of {max(strides)}", hint="choose sides that are"
            )
        anchors = sum((form.height // stride) * (form.width // stride) for stride in strides)
        if anchors < ROWS:
            raise ConfigError(
                f"input {form.height}x{form.width} has {anchors} anchors for {ROWS} detections",
                hint="use at least 128x128",
            )
        if not form.raw:
            return detection_outputs(form.batch, ROWS)
        if one_to_one(cast(DetectionModel, model)):
            shape, meaning = (form.batch, ROWS, 6), "x0, y0, x1, y1 in pixels of the input, score, class; best first"
        else:
            shape, meaning = (form.batch, 4 + head.nc, anchors), "cx, cy, w, h in pixels of the input, class scores"
        return (TensorSpec("predictions", "float32", shape, meaning),)

    def count(self, model: nn.Module, height: int, width: int) -> Cost:
        fused: Any = copy.deepcopy(model)
        # Fusing would drop YOLOv10's second head, which the paper's figures include.
        fused.model[-1].fuse = lambda: None
        with quiet():
            fused.fuse(verbose=False)
        return count(fused, height, width)

    def plain(self, model: nn.Module, example: Tensor, path: Path) -> None:
        export(cast(DetectionModel, model), example, path)

    def trainable(self, entry: ModelEntry, model: nn.Module) -> Trainable:
        del model
        raise ConfigError(
            f"{entry.name} is trained by its own library", where=entry.name, hint="see examples/finetune_yolo.py"
        )


# thop runs the smallest image that all YOLOs take: their cost per pixel is the same at every size.
_THOP_SIDE = 32
CONVENTION = (
    f"2 x thop on a {_THOP_SIDE}x{_THOP_SIDE} image, times the area, which leaves most of attention's products out;"
    " convolutions and batch norms fused"
)


def count(fused: nn.Module, height: int, width: int) -> Cost:
    """Count a model with its convolutions and batch norms fused and all its heads kept.

    Raises:
        MissingExtraError: without thop, which ultralytics brings.
    """
    try:
        from thop import profile
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "thop", "yolo") from error

    counted, _ = profile(fused, inputs=[torch.zeros(1, 3, _THOP_SIDE, _THOP_SIDE)], verbose=False)
    return Cost(params(fused), round(2 * counted * height * width / _THOP_SIDE**2), CONVENTION)


def checkpoint_classes(checkpoint: Checkpoint) -> int | None:
    """Return the number of classes, from the last convolution of the finest level's class branch."""
    heads = [
        tensor
        for key, tensor in checkpoint.state.items()
        if key.startswith("model.") and key.endswith(".cv3.0.2.weight") and tensor.ndim == 4 and len(tensor)
        # The width of the branch, so that a file cannot claim classes which it has no weights for.
        if tensor.shape[1] >= _LEAST_WIDTH
    ]
    return int(heads[0].shape[0]) if heads else None


FAMILY = Yolo()
