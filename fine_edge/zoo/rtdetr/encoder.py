"""The lowered hybrid encoder of RT-DETR: attention on the deepest map, top-down and bottom-up fusion with FINE."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fine_edge.fusion import Fine
from fine_edge.fusion.methods import method_of
from fine_edge.fusion.top_down import Laterals, TopDown
from fine_edge.lowering.fine import LoweredFine
from fine_edge.lowering.layers import attend, attention, conv, fold, folded, gelu, linear
from fine_edge.lowering.modules import fold_batch_norms, lower_modules
from fine_edge.zoo.rtdetr.fusion import Sum

Size = tuple[int, int]


def sine_position(height: int, width: int, channels: int, temperature: float) -> Tensor:
    """Compute [sin y | cos y | sin x | cos x] of each cell, row by row, in double: (height * width, channels)."""
    count = channels // 4
    omega = temperature ** -(torch.arange(count, dtype=torch.float64) / count)
    y, x = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    y, x = y.flatten()[:, None] * omega, x.flatten()[:, None] * omega
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], 1)


class AifiLayer(nn.Module):
    """A post-norm transformer layer whose constant position embedding is projected ahead of time.

    As W (x + p) = W x + W p, one product and one added constant give q, k and v.
    """

    def __init__(self, layer: Any, heads: int, position: Tensor) -> None:
        super().__init__()
        attn, self.heads = layer.self_attn, heads
        scale = attn.head_dim**-0.5
        q, k, v = attn.q_proj.weight * scale, attn.k_proj.weight, attn.v_proj.weight
        self.qkv = linear(torch.cat([q, k, v]))
        constant = [position @ q.T + attn.q_proj.bias * scale, position @ k.T, torch.zeros_like(position)]
        self.constant = nn.Buffer(torch.cat(constant, -1))  # (N, 3C)
        self.out = linear(attn.o_proj.weight, attn.o_proj.bias + attn.o_proj.weight @ attn.v_proj.bias)
        self.norm1, self.norm2 = layer.self_attn_layer_norm, layer.final_layer_norm
        self.fc1, self.fc2 = layer.mlp.fc1, layer.mlp.fc2

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, C) to (B, N, C)."""
        batch, count, channels = x.shape
        qkv = self.qkv(x) + self.constant
        if batch == 1:  # splitting by heads first costs one copy kernel instead of three
            by_head = qkv.reshape(count, 3 * self.heads, -1).transpose(0, 1)
            q, k, v = (by_head[i * self.heads : (i + 1) * self.heads] for i in range(3))
            attended = attend(q, k, v).transpose(0, 1).reshape(batch, count, channels)
        else:
            q, k, v = qkv.chunk(3, -1)
            attended = attention(q, k, v, self.heads)
        x = self.norm1(x + self.out(attended))
        out: Tensor = self.norm2(x + self.fc2(gelu(self.fc1(x))))
        return out


def _rep_vgg(block: Any) -> nn.Conv2d:
    """Merge RepVGG's 3x3 and 1x1 branches into one 3x3 convolution."""
    weight3, bias3 = fold(block.conv1.conv, block.conv1.norm)
    weight1, bias1 = fold(block.conv2.conv, block.conv2.norm)
    return conv(weight3 + F.pad(weight1, (1, 1, 1, 1)), bias3 + bias1)


class CspRep(nn.Module):
    """A CSP block of re-parameterised RepVGG convolutions."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        # conv1 and conv2 stay separate: TensorRT would copy each half out of a merged one.
        self.conv1 = folded(block.conv1.conv, block.conv1.norm)
        self.conv2 = folded(block.conv2.conv, block.conv2.norm)
        self.convs = nn.ModuleList(_rep_vgg(bottleneck) for bottleneck in block.bottlenecks)
        last = block.conv3
        self.conv3 = None if isinstance(last, nn.Identity) else folded(last.conv, last.norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 2C, H, W) to (B, C, H, W)."""
        a = F.silu(self.conv1(x))
        for layer in self.convs:
            a = F.silu(layer(a))
        x = a + F.silu(self.conv2(x))
        return x if self.conv3 is None else F.silu(self.conv3(x))


def _lowered(method: nn.Module) -> nn.Module:
    """Return a rival's module in its inference form."""
    fold_batch_norms(method)
    return lower_modules(method)


class HybridEncoder(nn.Module):
    """The encoder of maps with strides 8, 16 and 32."""

    def __init__(self, model: Any, sizes: list[Size]) -> None:
        super().__init__()
        encoder, config = model.encoder, model.config
        laterals = method_of(encoder)
        self.laterals = _lowered(laterals) if isinstance(laterals, Laterals) else None
        if self.laterals is None:
            weight, bias = fold(*model.encoder_input_proj[-1])
            self.project_top = linear(weight.flatten(1), bias)
            self.project = nn.ModuleList(folded(*layers) for layers in model.encoder_input_proj[:-1])
        position = sine_position(*sizes[-1], config.encoder_hidden_dim, config.positional_encoding_temperature)
        layers = encoder.aifi[0].layers if config.encoder_layers else []
        self.aifi = nn.ModuleList(AifiLayer(layer, config.num_attention_heads, position.float()) for layer in layers)
        self.lateral, self.fpn = nn.ModuleList(), nn.ModuleList()
        self.fine, self.rival = nn.ModuleList(), nn.ModuleList()
        for lateral, block in zip(encoder.lateral_convs, encoder.fpn_blocks, strict=True):
            weight, bias = fold(lateral.conv, lateral.norm)
            self.lateral.append(linear(weight.flatten(1), bias))
            method = method_of(block)
            self.fine.append(LoweredFine(method) if isinstance(method, Fine) else nn.Identity())
            self.rival.append(_lowered(method) if isinstance(method, TopDown) else nn.Identity())
            self.fpn.append(Sum() if isinstance(block, Sum) else CspRep(block))
        self.down = nn.ModuleList(nn.Sequential(folded(d.conv, d.norm), nn.SiLU()) for d in encoder.downsample_convs)
        self.pan = nn.ModuleList(CspRep(block) for block in encoder.pan_blocks)

    def _projected(self, maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map the backbone's maps to the deepest one's pixels (B, h, w, C), and the others (B, C, H_i, W_i)."""
        if self.laterals is not None:
            *lows, top = self.laterals(maps)
            return top.permute(0, 2, 3, 1), lows
        # (B, h, w, C): TensorRT's convolutions have the layout of tokens already.
        x = maps[-1].permute(0, 2, 3, 1)
        pixels = self.project_top(x.flatten(1, 2)).reshape(*x.shape[:3], -1)
        return pixels, [project(low) for project, low in zip(self.project, maps, strict=False)]

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Map the backbone's three maps (B, C_i, H_i, W_i) to three fused maps (B, C, H_i, W_i)."""
        x, lows = self._projected(maps)
        batch, height, width, _ = x.shape
        x = x.reshape(batch, height * width, -1)
        for layer in self.aifi:
            x = layer(x)
        x = x.reshape(batch, height, width, -1)
        highs: list[Tensor] = []
        for lateral, fine, rival, block in zip(self.lateral, self.fine, self.rival, self.fpn, strict=True):
            pixels, low = F.silu(lateral(x)), lows.pop()  # (B, h, w, C) and (B, C, 2h, 2w)
            high = pixels.permute(0, 3, 1, 2)
            highs.append(high)
            if isinstance(rival, TopDown):
                low, up = rival(low, high)
            else:
                low = fine(low, pixels) if isinstance(fine, LoweredFine) else low
                up = F.interpolate(high, scale_factor=2.0, mode="nearest")
            fused = up + low if isinstance(block, Sum) else block(torch.cat([up, low], 1))
            x = fused.permute(0, 2, 3, 1)
        outputs = [fused]
        for down, block in zip(self.down, self.pan, strict=True):
            outputs.append(block(torch.cat([down(outputs[-1]), highs.pop()], 1)))
        return outputs
