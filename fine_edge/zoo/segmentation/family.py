"""Semantic and Panoptic FPN as a family of the zoo."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError
from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint, class_names, learned, own, read_file
from fine_edge.zoo.count import Cost
from fine_edge.zoo.family import Family, GraphForm, Reference, export_with_defaults
from fine_edge.zoo.labels import CITYSCAPES_LABELS, COCO_PANOPTIC_LABELS
from fine_edge.zoo.segmentation import panoptic, semantic
from fine_edge.zoo.segmentation.panoptic import PanopticFpn
from fine_edge.zoo.segmentation.semantic import CHANNELS, SemanticFpn
from fine_edge.zoo.tensors import State
from fine_edge.zoo.torchvision.fpn import pyramid_backbone, pyramid_fusions

# Only the head of mmsegmentation's Semantic FPN has keys of this prefix.
_MARK = "decode_head.scale_heads."
_RULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^backbone\.stem\.", "backbone.body.conv1."),
        (r"^backbone\.layer", "backbone.body.layer"),
        (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"backbone.fpn.inner_blocks.\1.0."),
        (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"backbone.fpn.layer_blocks.\1.0."),
        (r"^decode_head\.conv_seg\.", "semantic.classifier."),
    )
)
# mmsegmentation has a level's layers in one list, with an upsampling behind every convolution and its norm.
_STAGE = re.compile(r"^decode_head\.scale_heads\.(\d+)\.(\d+)\.(conv|bn)\.")


def from_mmseg(state: State) -> State:
    """Rename mmsegmentation's keys to those of :class:`SemanticFpn`; return any other state as it is."""
    if not any(key.startswith(_MARK) for key in state):
        return state
    return {_renamed(key): tensor for key, tensor in state.items()}


def class_names_of(checkpoint: dict[str, Any]) -> Sequence[object] | None:
    """Return the class names in a checkpoint of mmsegmentation 0.x or 1.x; ``None`` where it has none."""
    meta = checkpoint.get("meta")
    if not isinstance(meta, dict):
        return None
    # Version 1.x has {"meta": {"dataset_meta": {"classes": [...]}}}, 0.x {"meta": {"CLASSES": [...]}}.
    dataset = meta.get("dataset_meta")
    names = dataset.get("classes") if isinstance(dataset, dict) else meta.get("CLASSES")
    return names if isinstance(names, list | tuple) and names else None


def _renamed(key: str) -> str:
    if stage := _STAGE.match(key):
        layer = 0 if stage[3] == "conv" else 1
        return f"semantic.levels.{stage[1]}.{int(stage[2]) // 2}.{layer}.{key[stage.end() :]}"
    for pattern, replacement in _RULES:
        key, matches = pattern.subn(replacement, key)
        if matches:
            break
    return key


ANCHORS = ("semantic.classifier.weight", "decode_head.conv_seg.weight")
# The first dimensions of the class heads add up to the labels of a model.
_CLASS_HEADS = ("roi_heads.box_predictor.cls_score.weight", "semantic.classifier.weight")


class FpnSegmenter(Family):
    """Semantic FPN and Panoptic FPN: a semantic head on the feature pyramid, alone or beside Mask R-CNN.

    Labels are Cityscapes' 19 classes, or COCO's things and stuff. Checkpoints are state dicts of these models,
    mmsegmentation's files of Semantic FPN, and our own.
    """

    libraries = ("torch", "torchvision")

    def labels(self, entry: ModelEntry) -> tuple[str, ...]:
        return CITYSCAPES_LABELS if entry.variant == "semantic" else COCO_PANOPTIC_LABELS

    def build(self, entry: ModelEntry, num_labels: int, *, identity: bool = True) -> nn.Module:
        method = MethodConfig(entry.method, entry.options, identity=identity) if entry.method else None
        build = semantic.build if entry.variant == "semantic" else panoptic.build
        return build(num_labels, method).eval()

    def inject(self, model: nn.Module, config: MethodConfig) -> nn.Module:
        return semantic.refined(model, config)

    def fusions(self, model: nn.Module) -> list[nn.Module]:
        return pyramid_fusions(model)

    def backbone(self, model: nn.Module) -> list[nn.Module]:
        return pyramid_backbone(model)

    def read(self, path: Path) -> Checkpoint:
        found = read_file(path, ANCHORS)
        ours = own(found, path)
        if ours:
            return ours
        renamed = from_mmseg(found.state)
        if renamed is found.state:
            return Checkpoint(learned(renamed), "torch")
        names = class_names_of(found.beside)
        return Checkpoint(
            learned(renamed), "mmsegmentation", labels=None if names is None else class_names(names, path)
        )

    def num_labels(self, checkpoint: Checkpoint) -> int | None:
        heads = [checkpoint.state[key] for key in _CLASS_HEADS if key in checkpoint.state]
        # Every class has weights for the channels of its head, so that a file cannot claim classes which it lacks.
        whole = all(head.ndim in (2, 4) and len(head) and head.shape[1] >= CHANNELS for head in heads)
        if _CLASS_HEADS[-1] not in checkpoint.state or not whole:
            return None
        return sum(len(head) for head in heads)

    def randomise(self, model: nn.Module) -> None:
        if isinstance(model, PanopticFpn):
            panoptic.randomise(model)
        else:
            semantic.randomise(cast(SemanticFpn, model))

    def reference(self, model: nn.Module, images: Tensor, *, raw: bool) -> Reference:
        if isinstance(model, PanopticFpn):
            if raw:
                raise ConfigError("a two-stage detector has no raw form", hint="ask for its detections")
            return panoptic.reference(model, images)
        return semantic.reference(cast(SemanticFpn, model), images, raw=raw)

    def graph(self, model: nn.Module, form: GraphForm) -> nn.Module:
        if isinstance(model, PanopticFpn):
            return panoptic.PanopticGraph(model, form)
        return semantic.SemanticGraph(cast(SemanticFpn, model), form)

    def outputs(self, model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
        if isinstance(model, PanopticFpn):
            return panoptic.outputs(model, form)
        return semantic.outputs(cast(SemanticFpn, model), form)

    def count(self, model: nn.Module, height: int, width: int) -> Cost:
        if isinstance(model, PanopticFpn):
            return panoptic.count(model, height, width)
        return semantic.count(model, height, width)

    def plain(self, model: nn.Module, example: Tensor, path: Path) -> None:
        if isinstance(model, PanopticFpn):
            panoptic.plain(model, example, path)
        else:
            export_with_defaults(semantic.Classes(cast(SemanticFpn, model)), example, ["classes"], path)


FAMILY = FpnSegmenter()
