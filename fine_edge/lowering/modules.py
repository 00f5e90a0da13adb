"""The lowering of a detector's modules: norms into convolutions, FINE, and deformable convolutions."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from fine_edge.fusion import Fine
from fine_edge.lowering.deform import LoweredDeformConv2d, is_deformable
from fine_edge.lowering.fine import MappedFine
from fine_edge.lowering.layers import fold, is_batch_norm

_Module = TypeVar("_Module", bound=nn.Module)


def lower_modules(module: _Module) -> _Module:
    """Replace all modules below a module that have a lowered form, in place."""
    # A list, as children are replaced on the way.
    for name, child in list(module.named_children()):
        if isinstance(child, Fine):
            module.add_module(name, MappedFine(child))
        elif is_deformable(child):
            module.add_module(name, LoweredDeformConv2d(child))
        else:
            lower_modules(child)
    return module


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm, frozen or not, into the convolution before it, in place.

    A norm belongs to the convolution that is its previous sibling, in a sequence or in a block whose children run one
    after the other, as torchvision's ``conv1`` and ``bn1``.
    """
    previous: nn.Module | None = None
    for name, child in list(module.named_children()):
        if isinstance(previous, nn.Conv2d) and is_batch_norm(child):
            _absorb(previous, child)
            # Not removed: a Sequential counts its children, and a block's forward pass calls the norm by its name.
            module.add_module(name, nn.Identity())
        else:
            fold_batch_norms(child)
        previous = child


def _absorb(conv: nn.Conv2d, norm: Any) -> None:
    weight, bias = fold(conv, norm)
    conv.weight = nn.Parameter(weight, requires_grad=False)
    conv.bias = nn.Parameter(bias, requires_grad=False)
