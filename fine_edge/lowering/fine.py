"""The lowered FINE block, of pooling, matrix products, softmax, layer norm and elementwise operators alone.

LayerNorm's affine moves into the linear layer behind it, and Eq. 6's scale into W_Q. K's bias is dropped, as softmax
does not depend on it. V's bias goes through the attention, whose rows sum to one, into W_O's. The ``+ F_low`` of Eq. 9
moves into the last bias, so that modulation is one product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.fusion import Fine
from fine_edge.fusion.attention import STRATEGIES
from fine_edge.fusion.config import FineConfig
from fine_edge.fusion.fine import FeedForward
from fine_edge.fusion.sampling import feature_map, tokens, upsample
from fine_edge.lowering.layers import after_norm, attention, conv, gelu, linear

# Blocks of this side are upsampled by Resize instead of a broadcast. That is two kernels more. But at RT-DETR's deeper
# fusion, the broadcast's layout raises TensorRT-RTX's peak for the whole detector by 0.2 MiB over that without FINE.
RESIZED_KERNEL = 2


# These modules have no weights. They give their nodes the names of FINE's parts; see fine_edge/graph/parts.py.


class _Attention(nn.Module):
    """Eq. 6 by the configured strategy, with its scale already in q."""

    def __init__(self, config: FineConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, q: Tensor, k: Tensor, v: Tensor, low_size: tuple[int, ...], high_size: tuple[int, ...]) -> Tensor:
        """Map tokens (B, N_low, C), (B, N_high, C), (B, N_high, C) of maps of the given sizes to (B, N_low, C)."""
        if self.config.attention in ("aats", "vanilla"):
            return attention(q, k, v, self.config.num_heads)
        maps = torch.unflatten(q, 1, low_size), torch.unflatten(k, 1, high_size), torch.unflatten(v, 1, high_size)
        attended: Tensor = STRATEGIES[self.config.attention](*maps, self.config)
        return attended.flatten(1, 2)


class _Gelu(nn.Module):
    """The activation of the feed-forward."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply GELU to a tensor of any shape."""
        return gelu(x)


class _Modulate(nn.Module):
    """Eq. 8 and 9 as ``Up(M + 1) * F``, or the configured ablation of them."""

    def __init__(self, config: FineConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, low: Tensor, m: Tensor, rows: int, columns: int) -> Tensor:
        """Map low (B, C, H, W) and tokens m (B, rows * columns, C) to the aligned map (B, C, H, W)."""
        batch, channels, height, width = low.shape
        kernel = self.config.low_kernel
        if kernel == RESIZED_KERNEL:
            up = upsample(feature_map(m, rows, columns), kernel, height, width)
            return up if self.config.modulation == "none" else low * up
        # TensorRT's convolutions use channels last already, and Up(.) is then a broadcast.
        pixels = low.permute(0, 2, 3, 1)
        m = m.reshape(batch, rows, 1, columns, 1, channels)
        if (rows * kernel, columns * kernel) == (height, width):
            blocks = (batch, rows, kernel, columns, kernel, channels)
            if self.config.modulation == "none":
                out = m.expand(blocks).reshape(pixels.shape)
            else:
                out = (pixels.reshape(blocks) * m).reshape(pixels.shape)
        else:
            up = m.expand(-1, -1, kernel, -1, kernel, -1).reshape(batch, rows * kernel, columns * kernel, channels)
            up = up[:, :height, :width]  # blocks at the border are smaller than the kernel
            out = up if self.config.modulation == "none" else pixels * up
        return out.permute(0, 3, 1, 2)


class LoweredFine(nn.Module):
    """The inference form of a FINE block, equal to it in real arithmetic."""

    def __init__(self, fine: Fine) -> None:
        super().__init__()
        self.config = config = fine.config
        self.unify = fine.unify
        self.down_low, self.down_high = fine.down_low, fine.down_high
        # LayerNorm of tokens (B, N, C) without its affine, which the projections behind it contain.
        self.norm = nn.LayerNorm(config.channels, fine.norm_low.eps, elementwise_affine=False)
        self.attention, self.activation = _Attention(config), _Gelu()
        self.modulate: nn.Module = _Modulate(config)  # or a plugin's node, see fine_edge/export/plugin.py
        query, query_bias = after_norm(fine.query, fine.norm_low)
        key, key_bias = after_norm(fine.key, fine.norm_high)
        value, value_bias = after_norm(fine.value, fine.norm_high)
        self.query = linear(query * fine.scale, query_bias * fine.scale)
        project_bias: Tensor = fine.project.bias
        if config.attention == "linear":  # without softmax neither bias can move
            self.key, self.value = linear(key, key_bias), linear(value, value_bias)
        else:
            self.key, self.value = linear(key), linear(value)
            project_bias = project_bias + fine.project.weight @ value_bias
        # M + 1 instead of M where Eq. 9 adds F_low.
        offset = 1.0 if config.modulation == "residual" else 0.0
        self.ffn_up = self.ffn_down = None
        if isinstance(fine.ffn, FeedForward):
            self.ffn_up = linear(*after_norm(fine.ffn.up, fine.ffn.norm))
            self.ffn_down = linear(fine.ffn.down.weight, fine.ffn.down.bias + offset)
            offset = 0.0
        self.project = linear(fine.project.weight, project_bias + offset)

    def _sample_high(self, pixels: Tensor, low_size: tuple[int, int]) -> Tensor:
        """Sample tokens as a map (B, h, w, C) from the high-level map (B, H, W, C_high), channels last."""
        if self.config.high_kernel == 1 and isinstance(self.unify, nn.Identity) and self.config.attention != "window":
            return pixels  # channels first would cost a copy
        high = self.down_high(self.unify(pixels.permute(0, 3, 1, 2)))
        if self.config.attention == "window":
            high = F.interpolate(high, size=low_size, mode="nearest")
        channels_last: Tensor = high.permute(0, 2, 3, 1)
        return channels_last

    def _attended(self, low: Tensor, high: Tensor) -> Tensor:
        """Attend from sampled low (B, C, h, w) to high (B, h', w', C); returns tokens (B, N_low, C)."""
        low_size, high_size = tuple(low.shape[-2:]), tuple(high.shape[1:3])
        u = self.norm(high.reshape(high.shape[0], -1, self.config.channels))
        q, k, v = self.query(self.norm(tokens(low))), self.key(u), self.value(u)
        attended: Tensor = self.attention(q, k, v, low_size, high_size)
        return attended

    def forward(self, low: Tensor, high_pixels: Tensor) -> Tensor:
        """Low (B, C, H, W) and high (B, H', W', C_high), channels last, to the aligned low-level map (B, C, H, W)."""
        height, width = low.shape[-2:]
        low_sampled = self.down_low(low)
        rows, columns = low_sampled.shape[-2:]
        high_sampled = self._sample_high(high_pixels, (height, width))
        m: Tensor = self.project(self._attended(low_sampled, high_sampled))  # (B, N_low, C)
        if self.ffn_up is not None and self.ffn_down is not None:
            m = m + self.ffn_down(self.activation(self.ffn_up(self.norm(m))))
        aligned: Tensor = self.modulate(low, m, rows, columns)
        return aligned


class _ModulateMap(nn.Module):
    """Eq. 8 and 9 as ``Up(M + 1) * F`` on maps, or the configured ablation of them."""

    def __init__(self, config: FineConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, low: Tensor, m: Tensor) -> Tensor:
        """Map low (B, C, H, W) and m (B, C, h, w) to the aligned map (B, C, H, W)."""
        up = upsample(m, self.config.low_kernel, *low.shape[-2:])
        return up if self.config.modulation == "none" else low * up


def _pixelwise(layer: nn.Linear) -> nn.Conv2d:
    """Return the 1x1 convolution that computes on maps what the layer computes on tokens."""
    return conv(layer.weight[:, :, None, None], layer.bias)


class MappedFine(LoweredFine):
    """The inference form of a FINE block with the block's own arguments, equal to it in real arithmetic.

    A convolution gives M as a map, and the wide low-level map never changes its layout. ONNX Runtime then keeps
    upsampling and product in its blocked layout: YOLOv8-S with FINE at 640x640 takes 1.05 x its baseline on a CPU,
    where the tokens of :class:`LoweredFine` took 1.12 x; TensorRT-RTX needs four kernels more and 0.8 MiB less.
    """

    def __init__(self, fine: Fine) -> None:
        super().__init__(fine)
        self.add_module("project", _pixelwise(self.project))
        if self.ffn_down is not None:
            self.add_module("ffn_down", _pixelwise(self.ffn_down))
        self.modulate = _ModulateMap(self.config)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Map low (B, C, H, W) and high (B, C_high, H', W') to the aligned low-level map (B, C, H, W)."""
        height, width = low.shape[-2:]
        low_sampled = self.down_low(low)
        rows, columns = low_sampled.shape[-2:]
        high_sampled = self._sample_high(high.permute(0, 2, 3, 1), (height, width))
        m: Tensor = self.project(feature_map(self._attended(low_sampled, high_sampled), rows, columns))
        if self.ffn_up is not None and self.ffn_down is not None:
            hidden = self.activation(self.ffn_up(self.norm(tokens(m))))
            m = m + self.ffn_down(feature_map(hidden, rows, columns))
        if isinstance(self.modulate, _ModulateMap):
            aligned: Tensor = self.modulate(low, m)
        else:  # a plugin's node, which takes tokens
            aligned = self.modulate(low, tokens(m), rows, columns)
        return aligned
