"""The lowered RT-DETR, its backbone and its graph, made of transformers' RTDetrForObjectDetection, with FINE or not."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import RTDetrForObjectDetection

from fine_edge.errors import ConfigError
from fine_edge.lowering.layers import conv, fold, folded
from fine_edge.lowering.topk import largest
from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.rtdetr.decoder import DecoderLayer, QuerySelection
from fine_edge.zoo.rtdetr.encoder import HybridEncoder

# RT-DETR's ResNet-D backbone with its batch norms folded.


def _conv_relu(layer: Any) -> nn.Sequential:
    return nn.Sequential(folded(layer.convolution, layer.normalization), nn.ReLU())


class Residual(nn.Module):
    """A basic or bottleneck block.

    In a basic block ResNet-D's average pool and 1x1 convolution become one 2x2 convolution of stride 2. That saves one
    kernel for 0.3 GFLOP more at 640x640. A bottleneck's shortcut is four times as wide on both sides. The pool stays
    there, as the change would cost 5 GFLOP more.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        *inner, last = block.layer
        self.layers = nn.Sequential(
            *(_conv_relu(layer) for layer in inner), folded(last.convolution, last.normalization)
        )
        shortcut = block.shortcut
        if isinstance(shortcut, nn.Identity):
            self.shortcut: nn.Module = shortcut
        elif isinstance(shortcut, nn.Sequential):
            pool, widen = shortcut
            if len(inner) == 1:
                weight, bias = fold(widen.convolution, widen.normalization)
                self.shortcut = conv(weight.expand(-1, -1, 2, 2) / 4, bias, stride=2, padding=0)
            else:
                self.shortcut = nn.Sequential(pool, folded(widen.convolution, widen.normalization))
        else:
            self.shortcut = folded(shortcut.convolution, shortcut.normalization)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H', W')."""
        # The shortcut comes first: TensorRT-RTX keeps this order, and then needs 2.8 MiB less at its peak with FINE.
        shortcut = self.shortcut(x)
        return F.relu(self.layers(x) + shortcut)


class Backbone(nn.Module):
    """The backbone, which gives the maps of the last three stages."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(*(_conv_relu(layer) for layer in backbone.embedder.embedder))
        self.pool = backbone.embedder.pooler
        self.stages = nn.ModuleList(
            nn.Sequential(*(Residual(block) for block in stage.layers)) for stage in backbone.encoder.stages
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W) to maps of strides 8, 16 and 32."""
        x, maps = self.pool(self.stem(images)), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[-3:]


# inverse_sigmoid clamps probabilities to [1e-5, 1 - 1e-5].
_LOGIT_LIMIT = -math.log(1e-5)
# The rewrites assume these values of a configuration.
_COVERED: dict[str, Any] = {
    "normalize_before": False,
    "learn_initial_query": False,
    "num_feature_levels": 3,
    "eval_size": None,
    "encode_proj_layers": [2],
    "activation_function": "silu",
    "encoder_activation_function": "gelu",
    "decoder_activation_function": "relu",
}


class BoxRefinement(nn.Module):
    """The refinement of boxes in the logit domain, layer by layer; a module of its own so that it can stay FP32.

    inverse_sigmoid(sigmoid(u)) is u with a clamp. Beyond |u| = 11.51 the two differ by at most 1e-5 in a box.
    """

    def forward(self, previous: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Add a correction to box logits (B, Q, 4); returns the next layer's box logits, and the boxes in [0, 1]."""
        box_logits = previous + delta
        return box_logits.clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT), box_logits.sigmoid()


class LoweredRTDetr(nn.Module):
    """The lowered detector; all sizes are static."""

    def __init__(self, detector: RTDetrForObjectDetection, form: GraphForm) -> None:
        super().__init__()
        _check(detector.config)
        config, model = detector.config, detector.model
        sizes = [(form.height // stride, form.width // stride) for stride in config.feat_strides]
        decoder: Any = model.decoder
        self.backbone = Backbone(model.backbone.model)
        self.encoder = HybridEncoder(model, sizes)
        self.selection = QuerySelection(model, form.batch, sizes)
        widen, narrow = decoder.query_pos_head.layers
        # Each decoder layer has a copy: the exporter transposes a weight ahead of time only if it is used once.
        self.position = nn.ModuleList(
            nn.Sequential(copy.deepcopy(widen), nn.ReLU(), copy.deepcopy(narrow)) for _ in decoder.layers
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(layer, head.layers, sizes, form.sampling)
            for layer, head in zip(decoder.layers, decoder.bbox_embed, strict=True)
        )
        self.refine = BoxRefinement()
        self.classes = decoder.class_embed[-1]
        self.requires_grad_(False)
        self.train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, 3, H, W) to logits (B, Q, K) and boxes (B, Q, 4) cx, cy, w, h in [0, 1]."""
        x, anchors, delta, values = self.selection(self.encoder(self.backbone(images)))
        box_logits, boxes = self.refine(anchors, delta)
        for layer, place, value in zip(self.decoder, self.position, values, strict=True):
            x, delta = layer(x, place(boxes), boxes, value)
            box_logits, boxes = self.refine(box_logits, delta)
        return self.classes(x), boxes


class TopPairs(nn.Module):
    """The postprocessing: logits and boxes to ``labels``, ``boxes_xyxy`` (pixels) and ``scores``.

    It takes the top Q of all Q x K pairs by logit, so that one query may stand for several classes. The sigmoid comes
    after the top-k, whose order it does not change.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        # cx, cy, w, h -> x0, y0, x1, y1 in pixels is one linear map.
        half = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]])
        self.to_corners = nn.Buffer(half * torch.tensor([width, height, width, height], dtype=torch.float32))

    def forward(self, logits: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Select the best pairs.

        Args:
            logits: (B, Q, K).
            boxes: (B, Q, 4) cx, cy, w, h in [0, 1].

        Returns:
            Labels (B, Q) int64, boxes (B, Q, 4) and scores (B, Q), best first.
        """
        batch, queries, classes = logits.shape
        best, index = largest(logits.reshape(batch, queries * classes), queries)
        query = index // classes  # (B, Q)
        if batch == 1:
            # A gather with one-dimensional indices, which stays one kernel.
            chosen = boxes.index_select(1, query.reshape(-1))
        else:
            chosen = boxes.gather(1, query.unsqueeze(-1).expand(-1, -1, 4))
        return index - query * classes, chosen @ self.to_corners, best.sigmoid()


class RTDetrGraph(nn.Module):
    """The module that is exported: the lowered detector, then its postprocessing unless raw outputs are wanted."""

    def __init__(self, detector: RTDetrForObjectDetection, form: GraphForm) -> None:
        super().__init__()
        self.detector = LoweredRTDetr(detector, form)
        self.postprocess = None if form.raw else TopPairs(form.height, form.width)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) in [0, 1] to (logits, boxes) or (labels, boxes_xyxy, scores)."""
        logits, boxes = self.detector(images)
        return (logits, boxes) if self.postprocess is None else self.postprocess(logits, boxes)


def _check(config: Any) -> None:
    """Refuse a configuration that the rewrites do not cover."""
    for name, value in _COVERED.items():
        found = getattr(config, name)
        if (list(found) if isinstance(found, (list, tuple)) else found) != value:
            raise ConfigError(f"export needs {name} = {value!r}, found {found!r}", where="RTDetrConfig")
    if config.backbone_config.hidden_act != "relu":
        raise ConfigError(f"export needs a relu backbone, found {config.backbone_config.hidden_act!r}")
