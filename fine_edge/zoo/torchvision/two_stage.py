"""torchvision's Faster R-CNN and Mask R-CNN as one graph of fixed shapes, from images to detections.

torchvision works on lists of any length, this graph on a fixed number of rows, of which the absent ones have score 0:
1000 proposals, :data:`CANDIDATES` pairs of proposal and class, 100 detections. The results differ in one case alone.
torchvision suppresses all pairs that score above 0.05, this graph the best :data:`CANDIDATES` of them. Greedy
suppression never looks at lower scores, so that results are the same unless more pairs than that pass 0.05 and fewer
than 100 detections come out of the best of them.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from fine_edge.contract import TensorSpec
from fine_edge.errors import ConfigError
from fine_edge.lowering.box_coder import BoxDecoder, without_small
from fine_edge.lowering.nms import Nms
from fine_edge.lowering.roi_align import BinRows, Pooling, pool, tokens_of
from fine_edge.lowering.topk import largest, take_rows
from fine_edge.zoo.catalog import find
from fine_edge.zoo.count import Cost, image, macs, params, ptflops
from fine_edge.zoo.family import GraphForm, Reference, detection_outputs
from fine_edge.zoo.random_weights import ScoreCalibration, photographs, randomise_layers, settle
from fine_edge.zoo.torchvision.preprocessed import preprocessed

# The first stage of a two-stage detector, which selects a fixed number of proposals from the proposal head's maps.

Size = tuple[int, int]


def level_anchors(rpn: Any, form: GraphForm, sizes: list[Size]) -> list[Tensor]:
    """Return torchvision's anchors of each level, (H_i * W_i * A, 4) in pixels."""
    maps = [torch.empty(1, 1, *size) for size in sizes]
    images = ImageList(torch.empty(1, 3, form.height, form.width), [(form.height, form.width)])
    (anchors,) = rpn.anchor_generator(images, maps)
    per_cell = rpn.anchor_generator.num_anchors_per_location()
    rows = [height * width * count for (height, width), count in zip(sizes, per_cell, strict=True)]
    return list(anchors.split(rows))


class Proposals(nn.Module):
    """The selection of torchvision's ``filter_proposals`` from the region proposal head; must stay FP32.

    The best 1000 of each level go through non-maximum suppression. The levels form a batch, which keeps the matrices of
    overlaps small. The best 1000 remaining boxes of all levels are the proposals.

    Args:
        rpn: torchvision's RegionProposalNetwork.
        form: form of the graph.
        sizes: sizes (H_i, W_i) of the levels.
        bins: what the second stage pools of each box.
    """

    def __init__(self, rpn: Any, form: GraphForm, sizes: list[Size], bins: BinRows) -> None:
        super().__init__()
        anchors = level_anchors(rpn, form, sizes)
        for i, level in enumerate(anchors):
            self.register_buffer(f"anchors{i}", level)
        self.taken = [min(rpn.pre_nms_top_n(), len(level)) for level in anchors]
        self.rows = max(self.taken)
        self.count = min(rpn.post_nms_top_n(), len(anchors) * self.rows)
        self.decode = BoxDecoder(rpn.box_coder.weights, form.height, form.width)
        self.least_px = rpn.min_size
        self.nms = Nms(rpn.nms_thresh, self.rows, form.nms, ordered=True)
        self.bins = bins

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, ...]:
        """Select proposals from maps (B, A + 4 * A, H_i, W_i) of objectness and box deltas.

        Returns:
            Boxes (B, N, 4) and scores (B, N), best first, with score 0 for missing rows; and rows and shares of their
            bins.
        """
        best = torch.stack([self._best(i, level) for i, level in enumerate(maps)], 1)
        logits, deltas, anchors = best[..., 0], best[..., 1:5], best[..., 5:]
        batch, count, rows = logits.shape
        boxes = self.decode(deltas, anchors)  # (B, L, R, 4)
        scores = without_small(logits.sigmoid(), boxes, self.least_px)
        levels_apart = batch * count, rows
        groups = torch.zeros(levels_apart, dtype=torch.int64)  # one group, as rows of a batch are never compared
        boxes, scores, _ = self.nms(boxes.reshape(*levels_apart, 4), scores.reshape(levels_apart), groups)
        scores, index = largest(scores.reshape(batch, count * rows), self.count)
        boxes = take_rows(boxes.reshape(batch, count * rows, 4), index)
        return boxes, scores, *self.bins(boxes)

    def _best(self, i: int, level: Tensor) -> Tensor:
        """Return a level's best rows (B, R, 9) of logit, deltas and anchor, padded with zeros, which are no boxes."""
        batch = level.shape[0]
        level = level.permute(0, 2, 3, 1)  # (B, H, W, 5 * A)
        per_cell = level.shape[-1] // 5
        logits, index = largest(level[..., :per_cell].reshape(batch, -1), self.taken[i])
        deltas = take_rows(level[..., per_cell:].reshape(batch, -1, 4), index)
        anchors = self.get_buffer(f"anchors{i}").index_select(0, index.reshape(-1)).reshape(batch, -1, 4)
        return F.pad(torch.cat([logits.unsqueeze(2), deltas, anchors], 2), (0, 0, 0, self.rows - self.taken[i]))


# Pairs of proposal and class that go into suppression; see the module's docstring. About ten proposals find the same
# object, so that 100 detections come out of about 1000 pairs. The others are a reserve. More rows would cost the
# suppression another block of kernels.
CANDIDATES = 1440

# Detections narrower or lower than this are dropped; a literal in torchvision.
LEAST_SIDE_PX = 1e-2

MASK_SIDE = 28

# By how much random weights put the background's logit above the mean of a class.
BACKGROUND_LOGIT = 9.0

_KINDS = {"fasterrcnn": detection.FasterRCNN, "maskrcnn": detection.MaskRCNN}


def build(variant: str, num_labels: int) -> nn.Module:
    """Build the library's detector with its initial weights and, as in the published ones, frozen batch norms.

    Args:
        variant: ``fasterrcnn`` or ``maskrcnn``.
        num_labels: number of labels with the background, which is label 0.
    """
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d)
    model: nn.Module = _KINDS[variant](backbone, num_labels)
    return model.eval()


def outputs(model: nn.Module, form: GraphForm) -> tuple[TensorSpec, ...]:
    """Return the outputs of :func:`graph`.

    Raises:
        ConfigError: for the raw form.
    """
    if form.raw:
        raise ConfigError(
            "a two-stage detector has no raw form: its second stage looks at what its first one found",
            hint="export it postprocessed",
        )
    heads: Any = model.get_submodule("roi_heads")
    rows = (form.batch, heads.detections_per_img)
    specs = detection_outputs(*rows)
    if not heads.has_mask():
        return specs
    meaning = "probability that a point of the box is the object's"
    return *specs, TensorSpec("masks", "float32", (*rows, MASK_SIDE, MASK_SIDE), meaning)


def reference(model: nn.Module, images: Tensor) -> Reference:
    """Run torchvision's own stages on preprocessed images (B, 3, H, W), without its resizing and normalisation."""
    detector: Any = model
    with preprocessed(model):
        found = detector(list(images))
    rows = detector.roi_heads.detections_per_img
    names = {"labels": "labels", "boxes_xyxy": "boxes", "scores": "scores"}
    padded = {name: torch.stack([_padded(one[key], rows) for one in found]) for name, key in names.items()}
    if detector.roi_heads.has_mask():
        padded["masks"] = torch.stack([_padded(one["masks"][:, 0], rows) for one in found])
    return Reference(padded)


def _padded(x: Tensor, rows: int) -> Tensor:
    return F.pad(x, [0, 0] * (x.ndim - 1) + [0, rows - len(x)])


def randomise(model: nn.Module) -> None:
    """Fill a model with weights that have the statistics of trained ones; see :mod:`fine_edge.zoo.random_weights`."""
    detector: Any = model
    heads = detector.roi_heads
    norms = randomise_layers(model)
    calibrated = [
        (detector.rpn.head.cls_logits, ScoreCalibration(-5.0, 2.0)),
        (detector.rpn.head.bbox_pred, ScoreCalibration(0.0, 0.2)),
        (heads.box_predictor.cls_score, ScoreCalibration(0.0, 2.0)),
        (heads.box_predictor.bbox_pred, ScoreCalibration(0.0, 0.7)),
    ]
    if heads.has_mask():
        calibrated.append((heads.mask_predictor.mask_fcn_logits, ScoreCalibration(0.0, 3.0)))
    images = photographs(320, 320, find("fasterrcnn_r50").detector.preprocessing, count=2)
    settle(model, norms, calibrated, lambda: reference(model, images))
    heads.box_predictor.cls_score.bias[0] += BACKGROUND_LOGIT


def graph(model: nn.Module, form: GraphForm) -> nn.Module:
    """Return the detector in its static form; takes the model apart.

    Raises:
        ConfigError: for the raw form.
    """
    outputs(model, form)
    return TwoStage(model, form).eval()


def pooling_of(pooler: Any) -> Pooling:
    """Return the pooling of a MultiScaleRoIAlign of torchvision."""
    side, _ = pooler.output_size
    return Pooling(side, pooler.sampling_ratio, pooler.canonical_scale, pooler.canonical_level)


class RpnHead(nn.Module):
    """The region proposal head, its objectness and box deltas predicted by one convolution."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.conv = head.conv
        layers = head.cls_logits, head.bbox_pred
        self.predict = nn.Conv2d(layers[0].in_channels, sum(layer.out_channels for layer in layers), 1)
        self.predict.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]))
        self.predict.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map levels (B, C, H_i, W_i) to objectness and box deltas (B, A + 4 * A, H_i, W_i); all share the weights."""
        return [self.predict(self.conv(x)) for x in maps]


class BoxHead(nn.Module):
    """The second stage's head for classes and boxes."""

    def __init__(self, head: Any, predictor: Any, pooler: Any) -> None:
        super().__init__()
        self.pooling = pooling_of(pooler)
        self.fc6, self.fc7 = copy.deepcopy(head.fc6), head.fc7
        # Pooled features come bin by bin, and torchvision's channel by channel.
        by_channel = head.fc6.weight.unflatten(1, (-1, self.pooling.output**2))
        self.fc6.weight = nn.Parameter(by_channel.transpose(1, 2).flatten(1))
        self.classes, self.deltas = predictor.cls_score, predictor.bbox_pred

    def forward(self, tokens: Tensor, rows: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Pool the boxes' features and predict from them.

        Args:
            tokens: tokens of all levels (B, M, C).
            rows: tokens of each bin of the boxes (B, N, bins, K).
            shares: their shares, likewise.

        Returns:
            Class logits (B, N, K) and box deltas (B, N, K * 4), K with the background.
        """
        pooled = pool(tokens, rows, shares)
        x = F.relu(self.fc7(F.relu(self.fc6(pooled.flatten(0, 1).flatten(1)))))
        x = x.reshape(len(tokens), -1, x.shape[1])  # (B, N, 1024)
        return self.classes(x), self.deltas(x)


class MaskHead(nn.Module):
    """The mask head, which computes the mask of each box's own label alone."""

    def __init__(self, head: nn.Module, predictor: Any, pooler: Any) -> None:
        super().__init__()
        self.pooling = pooling_of(pooler)
        self.head = head
        self.up = predictor.conv5_mask
        last = predictor.mask_fcn_logits
        self.weight, self.bias = nn.Buffer(last.weight.flatten(1)), nn.Buffer(last.bias[:, None])  # (K, C), (K, 1)

    def forward(self, tokens: Tensor, rows: Tensor, shares: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
        """Compute masks (B, N, 28, 28).

        Args:
            tokens: tokens of all levels (B, M, C).
            rows: tokens of each bin of the boxes (B, N, bins, K).
            shares: their shares, likewise.
            labels: labels of the boxes (B, N).
            scores: scores of the boxes (B, N).
        """
        side = self.pooling.output
        pooled = pool(tokens, rows, shares).flatten(0, 1).transpose(1, 2)  # (B * N, C, bins)
        pooled = pooled.reshape(*pooled.shape[:2], side, side)
        x = F.relu(self.up(self.head(pooled)))  # (B * N, C, 28, 28)
        index = labels.reshape(-1)
        weight = self.weight.index_select(0, index).unsqueeze(1)  # (B * N, 1, C)
        logits = weight @ x.flatten(2) + self.bias.index_select(0, index).unsqueeze(1)
        masks = logits.sigmoid().reshape(*labels.shape, *x.shape[-2:])
        return torch.where((scores > 0)[..., None, None], masks, 0.0)


class TwoStageBoxDecoder(nn.Module):
    """The second stage's predictions to :data:`CANDIDATES` pairs of box and class. In pixels, so keep it FP32."""

    def __init__(self, heads: Any, form: GraphForm) -> None:
        super().__init__()
        self.decode = BoxDecoder(heads.box_coder.weights, form.height, form.width)
        self.threshold = heads.score_thresh

    def forward(self, logits: Tensor, deltas: Tensor, proposals: Tensor, found: Tensor) -> tuple[Tensor, ...]:
        """Select from logits (B, N, K), deltas (B, N, K * 4), proposals (B, N, 4) and their scores (B, N).

        Returns:
            Boxes (B, M, 4), scores (B, M) and labels (B, M), best first; a row without a box has score 0.
        """
        batch, count, labels = logits.shape
        objects = labels - 1  # label 0 is the background
        scores = logits.softmax(-1)[..., 1:] * (found > 0).unsqueeze(-1)
        scores, index = largest(scores.reshape(batch, count * objects), min(CANDIDATES, count * objects))
        proposal = index // objects
        label = index - proposal * objects + 1
        deltas = take_rows(deltas.reshape(batch, count * labels, 4), proposal * labels + label)
        boxes = self.decode(deltas, take_rows(proposals, proposal))
        scores = torch.where(scores > self.threshold, scores, 0.0)
        return boxes, without_small(scores, boxes, LEAST_SIDE_PX), label


class Decoder(nn.Module):
    """The heads, all that has weights behind the neck; called part by part, with FP32 computations in between."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        heads = model.roi_heads
        self.rpn = RpnHead(model.rpn.head)
        self.box = BoxHead(heads.box_head, heads.box_predictor, heads.box_roi_pool)
        self.mask = MaskHead(heads.mask_head, heads.mask_predictor, heads.mask_roi_pool) if heads.has_mask() else None


class TwoStageNetwork(nn.Module):
    """Images to candidates, and the tokens that masks are pooled from."""

    def __init__(self, model: Any, form: GraphForm, sizes: list[Size]) -> None:
        super().__init__()
        pooled = len(model.roi_heads.box_roi_pool.featmap_names)
        self.pooled = tuple(sizes[:pooled])
        self.backbone, self.encoder = model.backbone.body, model.backbone.fpn
        self.decoder = Decoder(model)
        bins = BinRows(self.pooled, form.height, pooling_of(model.roi_heads.box_roi_pool))
        self.proposals = Proposals(model.rpn, form, sizes, bins)
        self.boxes = TwoStageBoxDecoder(model.roi_heads, form)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to tokens (B, T, C), boxes (B, M, 4), scores (B, M) and labels (B, M)."""
        maps = list(self.encoder(self.backbone(images)).values())
        proposals, found, rows, shares = self.proposals(self.decoder.rpn(maps))
        tokens = tokens_of(maps[: len(self.pooled)])
        logits, deltas = self.decoder.box(tokens, rows, shares)
        return tokens, *self.boxes(logits, deltas, proposals, found)


class TwoStagePostprocess(nn.Module):
    """The suppression of overlapping candidates."""

    def __init__(self, heads: Any, form: GraphForm, sizes: tuple[Size, ...]) -> None:
        super().__init__()
        self.nms = Nms(heads.nms_thresh, heads.detections_per_img, form.nms, ordered=True)
        self.bins = BinRows(sizes, form.height, pooling_of(heads.mask_roi_pool)) if heads.has_mask() else None

    def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return labels (B, D), boxes (B, D, 4) and scores (B, D), best first."""
        boxes, scores, index = self.nms(boxes, scores, labels)
        return labels.gather(1, index) * (scores > 0), boxes, scores


class TwoStage(nn.Module):
    """The graph from images to ``labels``, ``boxes_xyxy``, ``scores`` and, of Mask R-CNN, ``masks``."""

    def __init__(self, model: Any, form: GraphForm) -> None:
        super().__init__()
        levels = len(model.rpn.anchor_generator.sizes)
        sizes = [(-(-form.height // stride), -(-form.width // stride)) for stride in (4 << i for i in range(levels))]
        self.detector = TwoStageNetwork(model, form, sizes)
        self.postprocess = TwoStagePostprocess(model.roi_heads, form, self.detector.pooled)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to the outputs that :func:`outputs` lists."""
        tokens, *candidates = self.detector(images)
        labels, boxes, scores = self.postprocess(*candidates)
        if self.detector.decoder.mask is None or self.postprocess.bins is None:
            return labels, boxes, scores
        masks = self.detector.decoder.mask(tokens, *self.postprocess.bins(boxes), labels, scores)
        return labels, boxes, scores, masks


# torchvision's and mmdetection's settings give a second stage that many boxes.
PROPOSALS, DETECTIONS = 1000, 100
CONVENTION = (
    f"MACs by fvcore's rules; batch norms frozen, {PROPOSALS} proposals, no detection (so nothing in a mask head);"
    " resizing not counted"
)


def forward_pass(model: Any, images: Tensor) -> tuple[list[Tensor], Any, Any]:
    """Run one image through both stages, with all proposals through the box head.

    Returns:
        The maps, and the outputs of the heads of both stages.
    """
    maps = list(model.backbone(images).values())
    heads = model.roi_heads
    features = pooled(PROPOSALS, maps[0], heads.box_roi_pool)
    return maps, model.rpn.head(maps), heads.box_predictor(heads.box_head(features))


def pooled(count: int, like: Tensor, pooler: Any) -> Tensor:
    """Return a tensor of the shape that a pooler gives for ``count`` boxes."""
    return like.new_empty(count, like.shape[1], *pooler.output_size)


def count(model: nn.Module, height: int, width: int) -> Cost:
    """Count a detector with frozen batch norms."""
    return Cost(params(model), macs(model, image(height, width), run=forward_pass), CONVENTION)


LOGGED = (
    "as in its authors' log: MACs by ptflops; these count biases, resizing, and activations and pooling twice, and"
    " #Params without what torchvision freezes in training"
)
_FROZEN = ("conv1.", "layer1.")


def count_as_logged(model: Any, height: int, width: int) -> Cost:
    """Count a detector as the FINE authors' training logs do."""
    frozen = sum(x.numel() for name, x in model.backbone.body.named_parameters() if name.startswith(_FROZEN))
    return Cost(params(model) - frozen, ptflops(model, image(height, width), run=forward_pass), LOGGED)
