"""Counters of parameters and multiply-accumulates, from which each family counts by its own convention.

The paper took each library's own way of counting, so that a G of one family is not a G of another: RT-DETR and YOLO
count two operations for a multiply-accumulate, the others one. Each family's ``CONVENTION`` states what it leaves out.
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

from fine_edge.fine_options import DownName
from fine_edge.fusion.config import FineConfig
from fine_edge.fusion.sampling import build_down

_aten = torch.ops.aten
Run = Callable[..., object]
# The count from an operator's output, its arguments and its keywords.
CountRule = Callable[[Any, Any, Any], int]
Rules = dict[Any, CountRule]


def on_meta(model: nn.Module) -> nn.Module:
    """Return a copy without values, which takes no memory and runs in the time of its Python code."""
    # Tells deepcopy that every parameter and buffer is copied already, into one without memory.
    memo: dict[int, Any] = {id(x): nn.Parameter(x.to("meta"), requires_grad=False) for x in model.parameters()}
    memo |= {id(x): x.to("meta") for x in model.buffers()}
    return copy.deepcopy(model, memo)


def _product(packet: Any) -> CountRule:
    """Return torch's own rule for an operator, halved: torch counts two operations for a multiply-accumulate."""
    formula = flop_registry[packet]
    return lambda out, args, kwargs: formula(*args, **kwargs, out_val=out) // 2


def _each(times: int) -> CountRule:
    """Return the rule that counts ``times`` for each element of the output."""
    return lambda out, _args, _kwargs: times * (out if isinstance(out, Tensor) else out[0]).numel()


_PRODUCTS: Rules = {op: _product(op) for op in (_aten.convolution, _aten.addmm, _aten.mm, _aten.bmm, _aten.baddbmm)}
# fvcore's rules, for batch norms in eval mode; a test compares the two.
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


def _biased(packet: Any, bias: int) -> CountRule:
    """Return the rule of a product that adds one operation an output where argument number ``bias`` is a tensor."""
    product = _product(packet)
    return lambda out, args, kwargs: product(out, args, kwargs) + (out.numel() if args[bias] is not None else 0)


def _of_pooling(out: Any, args: Any, kwargs: Any) -> int:
    """Count two operations for each element of the input."""
    del out, kwargs
    return 2 * int(args[0].numel())


def _deformable(out: Any, args: Any, kwargs: Any) -> int:
    """Count a deformable convolution with a mask: its product, 25 operations a point for the sampling, its bias."""
    del kwargs
    weight = args[1]  # (C_out, C / groups, kh, kw)
    points = weight.shape[2] * weight.shape[3]
    return int(out.numel() // out.shape[1] * (weight.numel() + 25 * points) + out.numel())


# ptflops' rules. An activation or a pooling counts as a layer and once more as the function that the layer calls; a
# frozen batch norm is a layer that it does not know and counts nothing.
_PTFLOPS: Rules = {
    **_PRODUCTS,
    _aten.convolution: _biased(_aten.convolution, 2),
    _aten.addmm: _biased(_aten.addmm, 0),
    _aten.relu: _each(2),
    _aten.relu_: _each(2),
    _aten.max_pool2d_with_indices: _of_pooling,
    _aten.native_batch_norm: _each(2),
    _aten.native_group_norm: _each(2),
    _aten.upsample_nearest2d: _each(1),
    _aten.upsample_bilinear2d: _each(1),
    _aten._softmax: _each(1),
}


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator on tensors without values; torch would sample a map step by step to find the known shape."""
    if func is _aten.grid_sampler_2d.default:
        maps, grid = args[:2]  # (B, C, H, W), (B, h, w, 2)
        return maps.new_empty(*maps.shape[:2], *grid.shape[1:3])
    return func(*args, **kwargs)


class _Counter(TorchDispatchMode):
    """A dispatch mode that sums up the cost of each operator."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rules = rules
        self.counts: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = _run(func, args, kwargs)
        if rule := self.rules.get(func.overloadpacket):
            self.counts[func.overloadpacket] += rule(out, args, kwargs)
        return out


def _count(model: nn.Module, inputs: tuple[Tensor, ...], run: Run | None, rules: Rules) -> Counter[Any]:
    """Return the multiply-accumulates of each operator."""
    model, shapes = on_meta(model), [x.to("meta") for x in inputs]
    counter = _Counter(rules)
    with torch.no_grad(), counter:
        (run or nn.Module.__call__)(model, *shapes)
    return counter.counts


def macs(model: nn.Module, *inputs: Tensor, run: Run | None = None, attention: bool = True) -> int:
    """Count multiply-accumulates by fvcore's rules, from shapes alone.

    As in fvcore, pooling, activations, other elementwise operators and deformable convolutions count nothing.

    Args:
        model: a module in eval mode.
        inputs: tensors of which only the shapes matter.
        run: a function that is called with the model and the inputs instead of the model itself.
        attention: whether to count products of two activations, which some counters do not see.
    """
    counts = _count(model, inputs, run, _FVCORE)
    return sum(count for operator, count in counts.items() if attention or operator not in _ATTENTION)


def documented_macs(model: nn.Module, *inputs: Tensor, run: Run | None = None) -> int:
    """Count the multiply-accumulates of convolutions and matrix products alone, as torchvision documents its models."""
    return sum(_count(model, inputs, run, _PRODUCTS).values())


def ptflops(model: nn.Module, *inputs: Tensor, run: Run | None = None) -> int:
    """Count operations by ptflops' rules, from shapes alone: multiply-accumulates, biases, activations, pooling."""
    import torchvision.ops  # noqa: F401 - registers its operators

    rules = {**_PTFLOPS, torch.ops.torchvision.deform_conv2d: _deformable}
    return sum(_count(model, inputs, run, rules).values())


def unfrozen(model: nn.Module) -> nn.Module:
    """Return a copy without values, with batch norms for frozen ones, which are elementwise operators to a counter."""
    model = on_meta(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            # torchvision's class, and RTDetrFrozenBatchNorm2d of transformers.
            if type(child).__name__.endswith("FrozenBatchNorm2d"):
                channels = child.get_buffer("weight").numel()
                setattr(module, name, nn.BatchNorm2d(channels, device="meta").train(False))
    return model


DOWN = "MACs of Down(.) of two modules on the maps of a 640x640 image"


@dataclass(frozen=True)
class Cost:
    """The cost of a model at one input size.

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
        """Return the number of parameters in millions."""
        return self.params / 1e6

    @property
    def flops_g(self) -> float:
        """Return the FLOPs in units of 10^9."""
        return self.flops / 1e9


def params(model: nn.Module) -> int:
    """Count a model's parameters, each once; frozen batch norms have buffers instead and count nothing."""
    return sum(parameter.numel() for parameter in model.parameters())


def image(height: int, width: int) -> Tensor:
    """Return an image (1, 3, H, W) without memory, for the shapes alone."""
    return torch.empty(1, 3, height, width, device="meta")


def count_down(down: DownName) -> Cost:
    """Count Down(.) of FINE's two modules (r = 2, k = 1 and 2) at 640x640, which Table 6 compares."""
    c = FineConfig().channels
    parts: list[tuple[nn.Module, int]] = []
    # The low-level maps of strides 16 and 8.
    for k, low_side in ((1, 40), (2, 80)):
        config = FineConfig(k=k)
        parts += [(build_down(down, c, config.low_kernel), low_side)]
        parts += [(build_down(down, c, config.high_kernel), low_side // 2)]
    total = sum(macs(module, torch.empty(1, c, side, side, device="meta")) for module, side in parts)
    return Cost(sum(params(module) for module, _ in parts), total, DOWN)
