"""#Params and FLOPs, by the convention that reproduces the paper's figures of each family.

The paper took each library's own way of counting, so a G of one family is not a G of another: RT-DETR's and YOLO's
are two operations a multiply-accumulate, the others' are one. What each way leaves out is said in its convention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fine_edge.errors import MissingExtraError
from fine_edge.fusion.config import DownName, FineConfig
from fine_edge.fusion.sampling import build_down
from fine_edge.zoo.macs import documented_macs, macs, on_meta

# What torchvision's and mmdetection's settings give a second stage to look at.
PROPOSALS, DETECTIONS = 1000, 100
# thop runs the smallest image that all YOLOs take: their cost per pixel is the same at every size.
_THOP_SIDE = 32

RTDETR = "2 x MACs by fvcore's rules; attention as explicit matmul"
TWO_STAGE = (
    f"MACs by fvcore's rules; batch norms frozen, {PROPOSALS} proposals, no detection (so nothing in a mask head);"
    " resizing not counted"
)
DOCUMENTED = "MACs of convolutions and matrix products alone, as torchvision documents its models"
UNFROZEN = "MACs by fvcore's rules with batch norms unfrozen, which the baseline's figure does not have"
YOLO = (
    f"2 x thop on a {_THOP_SIDE}x{_THOP_SIDE} image, times the area, which leaves most of attention's products out;"
    " convolutions and batch norms fused"
)
SEMANTIC = (
    "MACs by fvcore's rules up to the logits at stride 4; batch norms not frozen, products of attention not counted"
)
PANOPTIC = (
    f"MACs by fvcore's rules; {PROPOSALS} proposals, {DETECTIONS} masks, stuff at stride 4; batch norms not frozen,"
    " products of attention not counted"
)
DOWN = "MACs of Down(.) of two modules on the maps of a 640x640 image"


@dataclass(frozen=True)
class Cost:
    """What a model costs at one input size.

    Attributes:
        params: number of parameters.
        flops: floating-point operations of one forward pass at batch 1, as the family's convention counts them.
        convention: how ``flops`` was counted.
    """

    params: int
    flops: int
    convention: str

    @property
    def params_m(self) -> float:
        """Parameters in millions."""
        return self.params / 1e6

    @property
    def flops_g(self) -> float:
        """FLOPs in units of 10^9."""
        return self.flops / 1e9


def params(model: nn.Module) -> int:
    """Parameters of a model, each once; frozen batch norms have buffers instead and count nothing."""
    return sum(parameter.numel() for parameter in model.parameters())


def _image(height: int, width: int) -> Tensor:
    return torch.empty(1, 3, height, width, device="meta")


def _unfrozen(model: nn.Module) -> nn.Module:
    """A copy whose frozen batch norms, which are elementwise operators to a counter, are batch norms."""
    model = on_meta(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == "FrozenBatchNorm2d":
                channels = child.get_buffer("weight").numel()
                setattr(module, name, nn.BatchNorm2d(channels, device="meta").train(False))
    return model


def one_stage_pass(model: Any, image: Tensor) -> Any:
    """A one-stage detector of torchvision, up to what its heads give."""
    return model.head(list(model.backbone(image).values()))


def two_stage_pass(model: Any, image: Tensor) -> tuple[list[Tensor], Any, Any]:
    """A two-stage detector of torchvision: one image, and all proposals through the box head.

    Returns:
        The maps, and what the two stages' heads give.
    """
    maps = list(model.backbone(image).values())
    heads = model.roi_heads
    pooled = _pooled(PROPOSALS, maps[0], heads.box_roi_pool)
    return maps, model.rpn.head(maps), heads.box_predictor(heads.box_head(pooled))


def _pooled(count: int, like: Tensor, pooler: Any) -> Tensor:
    """What a pooler gives for ``count`` boxes."""
    return like.new_empty(count, like.shape[1], *pooler.output_size)


def panoptic_pass(model: Any, image: Tensor) -> None:
    """Both stages, all masks, and the semantic head."""
    maps, *_ = two_stage_pass(model, image)
    heads = model.roi_heads
    heads.mask_predictor(heads.mask_head(_pooled(DETECTIONS, maps[0], heads.mask_roi_pool)))
    model.semantic(maps[:4])


def count_rtdetr(model: nn.Module, height: int, width: int) -> Cost:
    """RT-DETR of transformers, attention chosen as eager."""
    return Cost(params(model), 2 * macs(model, _image(height, width)), RTDETR)


def count_two_stage(model: nn.Module, height: int, width: int) -> Cost:
    """Faster and Mask R-CNN of torchvision, with frozen batch norms."""
    return Cost(params(model), macs(model, _image(height, width), run=two_stage_pass), TWO_STAGE)


def count_one_stage(model: nn.Module, height: int, width: int, *, refined: bool) -> Cost:
    """RetinaNet and FCOS of torchvision, with frozen batch norms.

    The paper takes the baseline's figure from torchvision's documentation and counts its own models with another
    tool, so a row with FINE (``refined``) carries 0.3 G of batch norms that the row without it does not.
    """
    if refined:
        return Cost(params(model), macs(_unfrozen(model), _image(height, width), run=one_stage_pass), UNFROZEN)
    return Cost(params(model), documented_macs(model, _image(height, width), run=one_stage_pass), DOCUMENTED)


def count_yolo(fused: nn.Module, height: int, width: int) -> Cost:
    """YOLO of ultralytics, its convolutions and batch norms fused, all its heads kept.

    YOLOv10's second head must not have been dropped by the fusion: the paper's figures have it.

    Raises:
        MissingExtraError: without thop, which ultralytics brings.
    """
    try:
        from thop import profile
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "thop", "yolo") from error

    counted, _ = profile(fused, inputs=[torch.zeros(1, 3, _THOP_SIDE, _THOP_SIDE)], verbose=False)
    return Cost(params(fused), round(2 * counted * height * width / _THOP_SIDE**2), YOLO)


def count_semantic(model: nn.Module, height: int, width: int) -> Cost:
    """Semantic FPN; ``logits`` is its pass up to stride 4."""
    logits = macs(model, _image(height, width), run=lambda copied, image: copied.logits(image), attention=False)
    return Cost(params(model), logits, SEMANTIC)


def count_panoptic(model: nn.Module, height: int, width: int) -> Cost:
    """Panoptic FPN: a Mask R-CNN with a ``semantic`` head on its four finest maps."""
    return Cost(params(model), macs(model, _image(height, width), run=panoptic_pass, attention=False), PANOPTIC)


def count_down(down: DownName) -> Cost:
    """Down(.) of FINE's two modules (r = 2, k = 1 and 2) at 640x640: what Table 6 compares."""
    c = FineConfig().channels
    parts: list[tuple[nn.Module, int]] = []
    for k, low_side in ((1, 40), (2, 80)):
        config = FineConfig(k=k)
        parts += [(build_down(down, c, config.low_kernel), low_side)]
        parts += [(build_down(down, c, config.high_kernel), low_side // 2)]
    total = sum(macs(module, torch.empty(1, c, side, side, device="meta")) for module, side in parts)
    return Cost(sum(params(module) for module, _ in parts), total, DOWN)
