"""Multiply-accumulates of a module, from the shapes of its tensors alone.

fvcore, which the paper counted with, traces a model that really runs: a second to ten each, and all of its memory.
Here the model is copied without its values, and its operators are counted by the same rules as they pass.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

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
