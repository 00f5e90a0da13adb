"""Deformable convolution as GridSample and an ordinary convolution.

ONNX has DeformConv from opset 19 on. TensorRT maps it to a plugin, and TensorRT-RTX does not know it. It is a
convolution of the samples at the kernel's points:

    y(p) = b + sum_k W_k (mask_k(p) * x(p * stride - padding + k * dilation + offset_k(p)))

One GridSample samples all points, below each other, and one 1x1 convolution of C * K channels computes the sum. The
samples come channel-major, so that the weight (C_out, C, kh, kw) needs no reordering. Deformable groups go into the
batch, so that GridSample stays 4-D. Its zero padding is the deformable convolution's own: a neighbour outside counts as
zero, and a point a pixel or more outside gives zero. The rewrite is exact in real arithmetic.

TensorRT-RTX compiles it to three kernels: positions, samples times mask, product. The samples take C * K values for
every pixel in memory: 44 MiB in FP16 for 256 channels at 100 x 100.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LoweredPointSampling(nn.Module):
    """The sampling of a map at every point of the kernel; a module of its own so that it can stay FP32.

    In FP16 a position would be off by about 1/8192 of the map's side, 0.012 pixels in 100. TensorRT needs map and
    positions of one type, and TensorRT-RTX fuses the casts around them into other kernels. FP32 costs no kernel, and 4
    bytes instead of 2 a coordinate.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.kernel, self.stride = layer.kernel_size, layer.stride
        self.padding, self.dilation = layer.padding, layer.dilation

    def _undeformed(self, out: tuple[int, int], size: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Return the positions (K, H_out, W_out, 2) at offsets of zero."""
        y, x = (
            np.arange(self.kernel[i])[:, None] * self.dilation[i] + np.arange(out[i]) * self.stride[i] - self.padding[i]
            for i in (0, 1)
        )  # pixels, (kernel, out) each
        shape = (*self.kernel, *out)
        pixels = np.stack(
            [np.broadcast_to(x[None, :, None, :], shape), np.broadcast_to(y[:, None, :, None], shape)], -1
        )
        return ((2 * pixels + 1) / np.array([size[1], size[0]]) - 1).reshape(-1, *out, 2)  # type: ignore[no-any-return]

    def positions(self, offset: Tensor, height: int, width: int) -> Tensor:
        """Map offsets (N, K * 2, H_out, W_out), y before x, to positions (N, K, H_out, W_out, 2), x before y.

        Offsets are in pixels; in positions, the map's borders are at -1 and 1.
        """
        count, doubled, rows, columns = offset.shape
        # Computed and rounded by numpy, so that they trace as one constant.
        undeformed = self._undeformed((rows, columns), (height, width))
        undeformed = undeformed.astype(np.float64 if offset.dtype == torch.float64 else np.float32)
        dy, dx = offset.reshape(count, doubled // 2, 2, rows, columns).unbind(2)
        return offset.new_tensor(undeformed) + torch.stack([dx * (2 / width), dy * (2 / height)], -1)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """Sample maps (N, C, H, W) at offsets (N, K * 2, H_out, W_out) to (N, C, K * H_out, W_out)."""
        height, width = x.shape[-2:]
        positions = self.positions(offset, height, width).flatten(1, 2)  # (N, K * H_out, W_out, 2)
        return F.grid_sample(x, positions, mode="bilinear", padding_mode="zeros", align_corners=False)


class LoweredDeformConv2d(nn.Module):
    """The inference form of torchvision's ``DeformConv2d`` with its arguments, equal to it in real arithmetic.

    Args:
        layer: a layer with any kernel, stride, padding, dilation and groups.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.sampling = LoweredPointSampling(layer)
        self.points = layer.kernel_size[0] * layer.kernel_size[1]
        self.groups = layer.groups
        self.weight = nn.Buffer(layer.weight.detach().flatten(1)[:, :, None, None])  # (C_out, C / groups * K, 1, 1)
        self.bias = None if layer.bias is None else nn.Buffer(layer.bias.detach())

    def forward(self, x: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolve x (B, C, H, W) to (B, C_out, H_out, W_out).

        Offsets are (B, G * K * 2, H_out, W_out), y before x for each point, and the mask is (B, G * K, H_out, W_out); G
        is the number of deformable groups.
        """
        batch, channels, height, width = x.shape
        rows, columns = offset.shape[-2:]
        groups = offset.shape[1] // (2 * self.points)
        by_group = x.reshape(batch * groups, channels // groups, height, width)
        samples = self.sampling(by_group, offset.reshape(batch * groups, 2 * self.points, rows, columns))
        if mask is not None:
            samples = samples * mask.reshape(batch * groups, 1, self.points * rows, columns)
        # (B * G, C / G, K * H_out, W_out) reads as (B, C * K, H_out, W_out), the points of each channel in order.
        samples = samples.reshape(batch, channels * self.points, rows, columns)
        return F.conv2d(samples, self.weight, self.bias, groups=self.groups)


def is_deformable(module: nn.Module) -> bool:
    """Return whether a module is torchvision's ``DeformConv2d``; without torchvision none is."""
    operators = sys.modules.get("torchvision.ops")
    return operators is not None and isinstance(module, operators.DeformConv2d)
