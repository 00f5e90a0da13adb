"""Building blocks of lowered modules: layers from weights, folding, and attention that compiles without copies."""

from __future__ import annotations

import math
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch norm of any library."""
    # Frozen batch norms have classes of their own, with the same buffers.
    return hasattr(module, "running_mean") and hasattr(module, "running_var")


def fold(layer: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution with its batch norm (frozen or not) folded in, computed in double."""
    eps = getattr(norm, "eps", 1e-5)  # transformers' frozen norm has no attribute for its 1e-5
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + eps)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    if layer.bias is not None:
        bias = bias + layer.bias.double() * scale
    dtype = layer.weight.dtype
    return (layer.weight.double() * scale[:, None, None, None]).to(dtype), bias.to(dtype)


def conv(weight: Tensor, bias: Tensor, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    """Build a convolution with a copy of the given weights; ``padding=None`` keeps the size at stride 1."""
    out_channels, in_channels, kernel, _ = weight.shape
    layer = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2 if padding is None else padding)
    return _filled(layer, weight, bias)


def linear(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Build a linear layer with a copy of the given weights."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    return _filled(layer, weight, bias)


def _filled(layer: _Layer, weight: Tensor, bias: Tensor | None) -> _Layer:
    layer.weight.copy_(weight)
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)
    return layer


def folded(layer: Any, norm: Any) -> nn.Conv2d:
    """Fold a convolution and its batch norm into one convolution."""
    return conv(*fold(layer, norm), stride=layer.stride[0])


def after_norm(layer: nn.Linear, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """Return weight and bias of ``layer(norm(x))`` on the normalised x without the norm's affine."""
    return layer.weight * norm.weight, layer.bias + layer.weight @ norm.bias


def mlp3(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """Run RT-DETR's box head, three linear layers with ReLU between them."""
    first, second, last = layers
    return cast(Tensor, last(F.relu(second(F.relu(first(x))))))


def gelu(x: Tensor) -> Tensor:
    """Compute the exact GELU, its factors in the order that TensorRT-RTX fuses with the product before it.

    torch's exporter writes (0.5 x) (1 + erf), which remains a kernel of its own.
    """
    return x * (torch.erf(x / math.sqrt(2.0)) + 1) * 0.5


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute Eq. 6 on (..., N, d), with the scale already in q."""
    return torch.softmax(q @ k.transpose(-1, -2), -1) @ v


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Compute multi-head attention of tokens (B, N, C), with the scale already in q.

    Batch 1 uses 3-D tensors. TensorRT then reads the projections in place, where the 4-D form costs one copy kernel for
    each of q, k and v.
    """
    batch, count, channels = q.shape
    dim = channels // heads
    if batch == 1:
        q, k, v = (x.reshape(-1, heads, dim).transpose(0, 1) for x in (q, k, v))  # (h, N, d)
        return attend(q, k, v).transpose(0, 1).reshape(1, count, channels)
    q, k, v = (x.reshape(batch, -1, heads, dim).transpose(1, 2) for x in (q, k, v))  # (B, h, N, d)
    return attend(q, k, v).transpose(1, 2).reshape(batch, count, channels)
