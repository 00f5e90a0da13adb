"""#Params and FLOPs, by the convention that reproduces the paper's figures of each family.

The paper took each library's own way of counting, so a G of one family is not a G of another: RT-DETR's and YOLO's
are two operations a multiply-accumulate, the others' are one. What each way leaves out is said in its convention.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from fine_edge.errors import MissingExtraError
from fine_edge.fusion.config import DownName, FineConfig
from fine_edge.fusion.sampling import build_down

_aten = torch.ops.aten
Run = Callable[..., object]
# From what an operator gave, its arguments and its keywords.
Rule = Callable[[Any, Any, Any], int]
Rules = dict[Any, Rule]


def on_meta(model: nn.Module) -> nn.Module:
    """A copy without values: it takes no memory, and runs in the time that its Python takes."""
    memo: dict[int, Any] = {id(x): nn.Parameter(x.to("meta"), requires_grad=False) for x in model.parameters()}
    memo |= {id(x): x.to("meta") for x in model.buffers()}
    return copy.deepcopy(model, memo)


def _product(packet: Any) -> Rule:
    """What torch has for it, which counts two operations a multiply-accumulate."""
    formula = flop_registry[packet]
    return lambda out, args, kwargs: formula(*args, **kwargs, out_val=out) // 2


def _each(times: int) -> Rule:
    """Of the elements that come out."""
    return lambda out, _args, _kwargs: times * (out if isinstance(out, Tensor) else out[0]).numel()


_PRODUCTS: Rules = {op: _product(op) for op in (_aten.convolution, _aten.addmm, _aten.mm, _aten.bmm, _aten.baddbmm)}
# fvcore's, for a batch norm in eval mode; a test holds the two together.
_FVCORE: Rules = {
    **_PRODUCTS,
    _aten.native_batch_norm: _each(2),
    _aten.native_layer_norm: _each(5),
    _aten.native_group_norm: _each(5),
    _aten.upsample_nearest2d: _each(1),
    _aten.upsample_bilinear2d: _each(4),
    _aten.grid_sampler_2d: _each(4),
}
_ATTENTION = (_aten.bmm, _aten.baddbmm)


class _Counter(TorchDispatchMode):
    """Sums up what each operator costs."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rules = rules
        self.counts: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if rule := self.rules.get(func.overloadpacket):
            self.counts[func.overloadpacket] += rule(out, args, kwargs)
        return out


def _count(model: nn.Module, inputs: tuple[Tensor, ...], run: Run | None, rules: Rules) -> Counter[Any]:
    """Operator to multiply-accumulates."""
    model, shapes = on_meta(model), [x.to("meta") for x in inputs]
    counter = _Counter(rules)
    with torch.no_grad(), counter:
        (run or nn.Module.__call__)(model, *shapes)
    return counter.counts


def macs(model: nn.Module, *inputs: Tensor, run: Run | None = None, attention: bool = True) -> int:
    """Multiply-accumulates by fvcore's rules, from shapes alone.

    As there, pooling, activations and other elementwise operators count nothing, and neither do deformable
    convolutions.

    Args:
        model: in eval mode.
        inputs: of which only the shapes matter.
        run: what to do with the model and the inputs, where it is not a call.
        attention: count products of two activations, which some counters do not see.
    """
    counts = _count(model, inputs, run, _FVCORE)
    return sum(count for operator, count in counts.items() if attention or operator not in _ATTENTION)


def documented_macs(model: nn.Module, *inputs: Tensor, run: Run | None = None) -> int:
    """Multiply-accumulates of convolutions and matrix products, which is what torchvision documents; see macs()."""
    return sum(_count(model, inputs, run, _PRODUCTS).values())


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
