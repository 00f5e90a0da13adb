"""RT-DETR of transformers as a family of the zoo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert
from transformers import RTDetrConfig, RTDetrForObjectDetection

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError, FineEdgeError, WeightsError
from fine_edge.fusion.methods import MethodConfig, method_of
from fine_edge.fusion.mgc import Mgc
from fine_edge.preprocess import Preprocessing
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint
from fine_edge.zoo.count import Cost, image, macs, params, unfrozen
from fine_edge.zoo.family import (
    Batch,
    Family,
    GraphForm,
    Reference,
    Sample,
    Trainable,
    detection_outputs,
    export_with_defaults,
)
from fine_edge.zoo.fit import require_shapes
from fine_edge.zoo.labels import COCO_LABELS
from fine_edge.zoo.random_weights import (
    LOGIT_MEAN,
    LOGIT_SPREAD,
    ScoreCalibration,
    photographs,
    randomise_layers,
    settle,
)
from fine_edge.zoo.rtdetr import checkpoint
from fine_edge.zoo.rtdetr.fusion import inject, rtdetr_fusions
from fine_edge.zoo.rtdetr.lowered import RTDetrGraph, TopPairs
from fine_edge.zoo.rtdetr.settings import settings_behind, stated_settings

CONVENTION = "2 x MACs by fvcore's rules; attention as explicit matmul"
LOGGED = "as in its authors' log: 2 x MACs by fvcore; the backbone's batch norms are not frozen"
LOGGED_MGC = LOGGED.replace(";", ", the product of pixels and entities (0.63 G) twice;")
# Large enough for every stage to have a few hundred positions, small enough to take a second.
_CALIBRATION_SIZE = 320


def rtdetr_config(variant: str, num_labels: int = len(COCO_LABELS), decoder_layers: int | None = None) -> RTDetrConfig:
    """Return the configuration of ``r18`` or ``r50``, the official repository's rtdetr_r18vd and rtdetr_r50vd."""
    if variant == "r18":
        return _config(
            num_labels,
            backbone_config={
                "model_type": "rt_detr_resnet",
                "hidden_sizes": [64, 128, 256, 512],
                "depths": [2, 2, 2, 2],
                "layer_type": "basic",
                "out_features": ["stage2", "stage3", "stage4"],
            },
            encoder_in_channels=[128, 256, 512],
            hidden_expansion=0.5,
            decoder_layers=decoder_layers or 3,
        )
    if variant == "r50":
        return _config(num_labels, decoder_layers=decoder_layers or 6)
    raise ConfigError(f"RT-DETR has no variant {variant!r} here, known: r18, r50", where="rtdetr_config")


def _config(num_labels: int, **stated: Any) -> RTDetrConfig:
    labels: dict[str, Any] = {"num_labels": num_labels}
    if num_labels == len(COCO_LABELS):
        labels = {"id2label": dict(enumerate(COCO_LABELS)), "label2id": {x: i for i, x in enumerate(COCO_LABELS)}}
    config = RTDetrConfig(**labels, **stated)
    # Anchors follow the size of the input instead of one fixed size.
    config.anchor_image_size = None
    # Explicit matmul and softmax: fvcore does not count fused attention, and the exporter lowers it less well.
    config._attn_implementation = {"": "eager", "backbone_config": "eager"}
    return config


def _require_backbone(config: Any, entry: ModelEntry, where: Path) -> None:
    """Refuse a configuration with the backbone of another detector."""
    found, wanted = config.backbone_config, rtdetr_config(entry.variant).backbone_config
    for name in ("depths", "hidden_sizes", "layer_type", "embedding_size"):
        ours, theirs = (_listed(getattr(one, name)) for one in (wanted, found))
        if ours != theirs:
            raise WeightsError(
                f"backbone_config.{name} = {theirs!r}, {entry.detector.name} has {ours!r}",
                where=where,
                hint="supported: depths [2, 2, 2, 2] as rtdetr_r18, [3, 4, 6, 3] as rtdetr_r50",
            )


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value


class RTDetr(Family):
    """RT-DETR of transformers, with COCO's 80 classes."""

    libraries = ("torch", "transformers")
    # Only RT-DETR's encoder needs sides that are multiples of 32, so a training refuses the others.
    trains_at_any_size = False

    def labels(self, entry: ModelEntry) -> tuple[str, ...]:  # noqa: ARG002 - all variants have the same
        return COCO_LABELS

    def build(self, entry: ModelEntry, num_labels: int, *, identity: bool = True) -> RTDetrForObjectDetection:
        return self._ready(RTDetrForObjectDetection(rtdetr_config(entry.variant, num_labels)), entry, identity=identity)

    def rebuild(
        self, entry: ModelEntry, checkpoint: Checkpoint, num_labels: int, where: Path, *, identity: bool = True
    ) -> nn.Module:
        if checkpoint.settings is None:
            return self.build(entry, num_labels, identity=identity)
        try:
            config = _config(num_labels, **checkpoint.settings)
            _require_backbone(config, entry, where)
            # First without memory: the file may claim sizes that its tensors do not have.
            with torch.device("meta"):
                probe = RTDetrForObjectDetection(config)
        except (ValueError, TypeError, RuntimeError, IndexError, AttributeError) as error:
            if isinstance(error, FineEdgeError):
                raise
            raise WeightsError(f"its configuration is no RT-DETR's ({error})", where=where) from error
        require_shapes(probe, checkpoint, where, lambda key: settings_behind(key, checkpoint.settings))
        return self._ready(RTDetrForObjectDetection(config), entry, identity=identity)

    def _ready(self, model: RTDetrForObjectDetection, entry: ModelEntry, *, identity: bool) -> RTDetrForObjectDetection:
        if entry.method:
            inject(model, MethodConfig(entry.method, entry.options, identity=identity))
        model.train(False)
        return model

    def inject(self, model: nn.Module, config: MethodConfig) -> nn.Module:
        return inject(cast(RTDetrForObjectDetection, model), config)

    def fusions(self, model: nn.Module) -> list[nn.Module]:
        return rtdetr_fusions(cast(RTDetrForObjectDetection, model))

    def backbone(self, model: nn.Module) -> list[nn.Module]:
        resnet = cast(Any, model).model.backbone.model
        return [resnet.embedder, *resnet.encoder.stages]

    def read(self, path: Path) -> Checkpoint:
        return checkpoint.read(path)

    def stated_settings(self, model: nn.Module) -> dict[str, Any] | None:
        return stated_settings(model)

    def num_labels(self, checkpoint: Checkpoint) -> int | None:
        head = checkpoint.state.get("model.decoder.class_embed.0.weight")
        # The width of the decoder, so that a file cannot claim classes which it has no weights for.
        norm = checkpoint.state.get("model.decoder.layers.0.final_layer_norm.weight")
        if head is None or norm is None or head.ndim != 2 or head.shape[1:] != norm.shape:
            return None
        return len(head) or None

    def randomise(self, model: nn.Module) -> None:
        norms = randomise_layers(model)
        detector = cast(RTDetrForObjectDetection, model)
        _randomise_heads(detector)
        scores = ScoreCalibration()
        heads = [(head, scores) for head in detector.model.decoder.class_embed]
        pictures = photographs(_CALIBRATION_SIZE, _CALIBRATION_SIZE, Preprocessing())
        settle(model, norms, heads, lambda: model(pictures))

    def lower_layers(self, model: nn.Module) -> nn.Module:
        return model  # the graph lowers the detector as a whole

    def reference(self, model: nn.Module, images: Tensor, *, raw: bool) -> Reference:
        outputs = model(images)
        margin = _selection_margin(outputs.enc_outputs_class, int(cast(Any, model).config.num_queries))
        if raw:
            return Reference({"logits": outputs.logits, "boxes": outputs.pred_boxes}, margin)
        # Transformers' image processor selects the same pairs.
        selected = TopPairs(*images.shape[-2:])(outputs.logits, outputs.pred_boxes)
        return Reference(dict(zip(("labels", "boxes_xyxy", "scores"), selected, strict=True)), margin)

    def graph(self, model: nn.Module, form: GraphForm) -> nn.Module:
        return RTDetrGraph(cast(RTDetrForObjectDetection, model), form)

    def outputs(self, model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
        config: Any = model.config
        queries, classes = int(config.num_queries), int(config.num_labels)
        tokens = sum(-(-form.height // stride) * -(-form.width // stride) for stride in config.feat_strides)
        if tokens < queries:
            raise ConfigError(
                f"input {form.height}x{form.width} has {tokens} positions for {queries} queries",
                hint="use at least 128x128",
            )
        if form.raw:
            return (
                TensorSpec("logits", "float32", (form.batch, queries, classes), "class logits per query"),
                TensorSpec(
                    "boxes", "float32", (form.batch, queries, 4), "cx, cy, w, h per query, normalised to [0, 1]"
                ),
            )
        return detection_outputs(form.batch, queries)

    def count(self, model: nn.Module, height: int, width: int) -> Cost:
        return Cost(params(model), 2 * macs(model, image(height, width)), CONVENTION)

    def count_as_logged(self, model: nn.Module, height: int, width: int) -> Cost:
        trained = unfrozen(model)
        found, laterals = macs(trained, image(height, width)), method_of(cast(Any, model).model.encoder)
        if not isinstance(laterals, Mgc):
            return Cost(params(trained), 2 * found, LOGGED)
        strides = cast(Any, model).config.feat_strides
        sizes = [(-(-height // stride), -(-width // stride)) for stride in strides]
        return Cost(params(trained), 2 * (found + laterals.entity_macs(sizes)), LOGGED_MGC)

    def plain(self, model: nn.Module, example: Tensor, path: Path) -> None:
        export_with_defaults(_RawOutputs(cast(RTDetrForObjectDetection, model)), example, ["logits", "boxes"], path)

    def trainable(self, entry: ModelEntry, model: nn.Module) -> Trainable:  # noqa: ARG002 - all variants train alike
        return Trainable(model, _collate)


def _collate(samples: Sequence[Sample]) -> Batch:
    """Make a batch of transformers' arguments; boxes are centres and sizes as shares of the input."""
    images = torch.stack([sample.image for sample in samples])
    size = torch.tensor([images.shape[-1], images.shape[-2]] * 2)
    labels = [
        {"class_labels": sample.classes, "boxes": box_convert(sample.boxes_xyxy / size, "xyxy", "cxcywh")}
        for sample in samples
    ]
    return {"pixel_values": images, "labels": labels}


class _RawOutputs(nn.Module):
    """The two outputs of transformers' model that inference needs; the others serve training."""

    def __init__(self, model: RTDetrForObjectDetection) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, 3, H, W) to logits and normalised boxes."""
        outputs = self.model(images)
        return outputs.logits, outputs.pred_boxes


def _randomise_heads(model: RTDetrForObjectDetection) -> None:
    """Give heads weights of trained magnitude where transformers starts with zeros or equal scores."""
    width = model.config.d_model
    for layer in model.model.decoder.layers:
        nn.init.normal_(layer.encoder_attn.sampling_offsets.weight, std=width**-0.5)
        nn.init.normal_(layer.encoder_attn.attention_weights.weight, std=width**-0.5)
    for head in (model.model.enc_bbox_head, *model.model.decoder.bbox_embed):
        nn.init.normal_(head.layers[-1].weight, std=0.5 * width**-0.5)
        nn.init.normal_(head.layers[-1].bias, std=0.1)
    # The proposal head is not centred: positions outside the valid anchors, all alike, would then come out on top.
    nn.init.normal_(model.model.enc_score_head.weight, std=LOGIT_SPREAD * width**-0.5)
    nn.init.constant_(model.model.enc_score_head.bias, LOGIT_MEAN)


def _selection_margin(proposal_logits: Tensor, queries: int) -> float:
    """Return the distance in logits between the last proposal that is taken and the first one that is left out.

    Rounding decides which of two nearly equal proposals becomes a query, and the queries attend to each other.
    """
    best = proposal_logits.amax(-1)  # (B, N)
    if best.shape[1] <= queries:
        return float("inf")
    ranked = best.topk(queries + 1, dim=1).values
    return float((ranked[:, -2] - ranked[:, -1]).min())


FAMILY = RTDetr()
