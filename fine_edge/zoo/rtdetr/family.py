"""RT-DETR of transformers, with FINE or a rival injected at the two fusions of its hybrid encoder's top-down path.

Injection is surgery at named points of the loaded model: the class is not forked, and
the keys of its own weights stay what they were, so any RT-DETR checkpoint still loads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import RTDetrConfig, RTDetrForObjectDetection

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError, FineEdgeError, ForeignModelError, WeightsError
from fine_edge.fusion.methods import STAGE_KERNELS, MethodConfig, Place, build_method, method_of
from fine_edge.fusion.top_down import top_down
from fine_edge.lowering.topk import largest
from fine_edge.preprocess import Preprocessing
from fine_edge.zoo.catalog import ModelEntry
from fine_edge.zoo.checkpoints import Checkpoint
from fine_edge.zoo.count import Cost, count_rtdetr
from fine_edge.zoo.family import Family, GraphForm, Reference, detection_outputs
from fine_edge.zoo.fit import require_shapes
from fine_edge.zoo.labels import COCO_LABELS
from fine_edge.zoo.library_export import export_with_defaults
from fine_edge.zoo.random_weights import (
    LOGIT_MEAN,
    LOGIT_SPREAD,
    ScoreCalibration,
    photographs,
    randomise_layers,
    settle,
)
from fine_edge.zoo.rtdetr import checkpoint
from fine_edge.zoo.rtdetr.settings import settings_behind


class TopPairs(nn.Module):
    """Logits (B, Q, K) and boxes (B, Q, 4) cx, cy, w, h in [0, 1] to ``labels``, ``boxes_xyxy`` (pixels), ``scores``.

    The top Q of all Q x K pairs by logit, so that one query may speak for several classes; the
    sigmoid comes after the top-k, which it does not reorder.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        # cx, cy, w, h -> x0, y0, x1, y1 in pixels is one linear map.
        half = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]])
        self.to_corners = nn.Buffer(half * torch.tensor([width, height, width, height], dtype=torch.float32))

    def forward(self, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (B, Q) int64, boxes (B, Q, 4), scores (B, Q), best first."""
        batch, queries, classes = logits.shape
        best, index = largest(logits.reshape(batch, queries * classes), queries)
        query = index // classes  # (B, Q)
        if batch == 1:
            # A gather with one-dimensional indices, which stays one kernel.
            chosen = boxes.index_select(1, query.reshape(-1))
        else:
            chosen = boxes.gather(1, query.unsqueeze(-1).expand(-1, -1, 4))
        return index - query * classes, chosen @ self.to_corners, best.sigmoid()


# Large enough for every stage to have a few hundred positions, small enough to take a second.
_CALIBRATION_SIZE = 320


def rtdetr_config(variant: str, num_labels: int = len(COCO_LABELS), decoder_layers: int | None = None) -> RTDetrConfig:
    """Configuration of ``r18`` or ``r50`` as the official repository's rtdetr_r18vd and rtdetr_r50vd have it."""
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
    """Refuse a configuration whose backbone is another detector's."""
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


def _join(fpn_block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Forward pre-hook of an FPN block: run the fusion method on the two halves of the concatenated map.

    The block receives (B, 2C, H, W), the upsampled high-level map first. Nearest upsampling by two
    repeats every pixel, so every second pixel is the high-level map itself, bit for bit.
    """
    (fused,) = inputs
    upsampled, low = fused.chunk(2, dim=1)  # (B, C, H, W) each
    high = upsampled[:, :, ::2, ::2]  # (B, C, H / 2, W / 2)
    low, upsampled = top_down(method_of(fpn_block), low, high)
    return (torch.cat([upsampled, low], dim=1),)


def inject(model: RTDetrForObjectDetection, config: MethodConfig | None = None) -> RTDetrForObjectDetection:
    """Put a fusion method, FINE by default, in front of both top-down fusions of a loaded RT-DETR, in place.

    Raises:
        ForeignModelError: for a model of another class.
        ConfigError: when the model has no such two fusions, or already has a method.
    """
    config = config or MethodConfig()
    if not isinstance(model, RTDetrForObjectDetection):
        raise ForeignModelError(
            f"a {type(model).__name__} is no RT-DETR with its heads",
            hint="give transformers' RTDetrForObjectDetection: RTDetrForObjectDetection.from_pretrained(FOLDER)",
        )
    encoder = model.model.encoder
    blocks = list(getattr(encoder, "fpn_blocks", []))
    if len(blocks) != len(STAGE_KERNELS):
        raise ConfigError(
            f"expected {len(STAGE_KERNELS)} top-down fusions, found {len(blocks)}", where="model.encoder.fpn_blocks"
        )
    if any(method_of(block) is not None for block in blocks):
        raise ConfigError("a fusion method is already there", where="model.encoder.fpn_blocks")
    channels = encoder.config.encoder_hidden_dim
    for block, k in zip(blocks, STAGE_KERNELS, strict=True):
        block.add_module(config.name, build_method(Place(channels, channels, k), config))
        block.register_forward_pre_hook(_join)
    return model


def rtdetr_fusions(model: RTDetrForObjectDetection) -> list[nn.Module]:
    """The injected methods, deepest fusion first; empty without any."""
    found = (method_of(block) for block in model.model.encoder.fpn_blocks)
    return [method for method in found if method is not None]


class RTDetr(Family):
    """RT-DETR of transformers."""

    libraries = ("torch", "transformers")

    def labels(self, entry: ModelEntry) -> tuple[str, ...]:  # noqa: ARG002 - all variants have the same
        """COCO's 80 classes."""
        return COCO_LABELS

    def build(self, entry: ModelEntry, num_labels: int, *, identity: bool = True) -> RTDetrForObjectDetection:
        """See :meth:`Family.build`."""
        return self._ready(RTDetrForObjectDetection(rtdetr_config(entry.variant, num_labels)), entry, identity=identity)

    def rebuild(
        self, entry: ModelEntry, checkpoint: Checkpoint, num_labels: int, where: Path, *, identity: bool = True
    ) -> nn.Module:
        """The detector that ``config.json`` states; first without memory, as nothing there need be true."""
        if checkpoint.settings is None:
            return self.build(entry, num_labels, identity=identity)
        try:
            config = _config(num_labels, **checkpoint.settings)
            _require_backbone(config, entry, where)
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
            inject(model, MethodConfig(entry.method, entry.attention or "aats", identity=identity))
        model.train(False)
        return model

    def fusions(self, model: nn.Module) -> list[nn.Module]:
        """See :meth:`Family.fusions`."""
        return rtdetr_fusions(cast(RTDetrForObjectDetection, model))

    def read(self, path: Path) -> Checkpoint:
        """Transformers' folders and files, the official repository's ``.pth``, our own."""
        return checkpoint.read(path)

    def num_labels(self, checkpoint: Checkpoint) -> int | None:
        """See :meth:`Family.num_labels`."""
        head = checkpoint.state.get("model.decoder.class_embed.0.weight")
        # The width of the decoder, so that a file cannot claim classes which it has no weights for.
        norm = checkpoint.state.get("model.decoder.layers.0.final_layer_norm.weight")
        if head is None or norm is None or head.ndim != 2 or head.shape[1:] != norm.shape:
            return None
        return len(head) or None

    def randomise(self, model: nn.Module) -> None:
        """See :meth:`Family.randomise`."""
        norms = randomise_layers(model)
        detector = cast(RTDetrForObjectDetection, model)
        _randomise_heads(detector)
        scores = ScoreCalibration()
        heads = [(head, scores) for head in detector.model.decoder.class_embed]
        pictures = photographs(_CALIBRATION_SIZE, _CALIBRATION_SIZE, Preprocessing())
        settle(model, norms, heads, lambda: model(pictures))

    def reference(self, model: nn.Module, images: Tensor, *, raw: bool) -> Reference:
        """Transformers' forward pass; detections as its image processor takes them."""
        outputs = model(images)
        margin = _selection_margin(outputs.enc_outputs_class, int(cast(Any, model).config.num_queries))
        if raw:
            return Reference({"logits": outputs.logits, "boxes": outputs.pred_boxes}, margin)
        selected = TopPairs(*images.shape[-2:])(outputs.logits, outputs.pred_boxes)
        return Reference(dict(zip(("labels", "boxes_xyxy", "scores"), selected, strict=True)), margin)

    def graph(self, model: nn.Module, form: GraphForm) -> nn.Module:
        """Transformers' own forward pass; exports take the lowered one instead, see fine_edge/export/lowering."""
        return DetectorGraph(_RawOutputs(cast(RTDetrForObjectDetection, model)), form)

    def outputs(self, model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
        """See :meth:`Family.outputs`."""
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
        """See :meth:`Family.count`."""
        return count_rtdetr(model, height, width)

    def plain(self, model: nn.Module, example: Tensor, path: Path) -> None:
        """torch.onnx's defaults on transformers' model, as raw outputs."""
        export_with_defaults(_RawOutputs(cast(RTDetrForObjectDetection, model)), example, ["logits", "boxes"], path)


class _RawOutputs(nn.Module):
    """Names the two outputs that count; everything else of the model's output is training material."""

    def __init__(self, model: RTDetrForObjectDetection) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) to logits and normalised boxes."""
        outputs = self.model(images)
        return outputs.logits, outputs.pred_boxes


class DetectorGraph(nn.Module):
    """What a graph of RT-DETR is traced from: the detector, then its postprocessing unless raw outputs are wanted."""

    def __init__(self, detector: nn.Module, form: GraphForm) -> None:
        super().__init__()
        self.detector = detector
        self.postprocess = None if form.raw else TopPairs(form.height, form.width)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) in [0, 1] to (logits, boxes) or (labels, boxes_xyxy, scores)."""
        logits, boxes = self.detector(images)
        return (logits, boxes) if self.postprocess is None else self.postprocess(logits, boxes)


def _randomise_heads(model: RTDetrForObjectDetection) -> None:
    """Weights of trained magnitude where transformers starts with zeros or equal scores."""
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
    """How far apart, in logits, the last proposal taken and the first one left out are.

    Rounding decides which of two nearly equal proposals becomes a query, and the queries attend to each other.
    """
    best = proposal_logits.amax(-1)  # (B, N)
    if best.shape[1] <= queries:
        return float("inf")
    ranked = best.topk(queries + 1, dim=1).values
    return float((ranked[:, -2] - ranked[:, -1]).min())


FAMILY = RTDetr()
