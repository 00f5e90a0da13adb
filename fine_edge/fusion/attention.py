"""The five cross-level attention strategies of Table 3.

Each strategy takes projected queries of the low-level tokens, and keys and values of the high-level tokens. They come
as maps (B, H, W, C), so that the local strategies can cut them into regions, and the result is (B, H_low, W_low, C).
Dimension names: B batch, C channels, h heads, d = C / h, n and m the number of query and key tokens that see each
other. The 1 / sqrt(d) of Eq. 6 is already in the queries.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fine_edge.fine_options import AttentionName
from fine_edge.fusion.config import FineConfig


def _split_heads(x: Tensor, heads: int) -> Tensor:
    """Split (B, n, C) into heads (B, h, n, d)."""
    batch, count, channels = x.shape
    return x.reshape(batch, count, heads, channels // heads).transpose(1, 2)


def _merge_heads(x: Tensor) -> Tensor:
    """Compute Concat(.) of Eq. 7, from (B, h, n, d) to (B, n, C)."""
    batch, heads, count, dim = x.shape
    return x.transpose(1, 2).reshape(batch, count, heads * dim)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, key_mask: Tensor | None = None) -> Tensor:
    """Compute Eq. 6 for all heads, the scale already in q, from (B, n, C), (B, m, C), (B, m, C) to (B, n, C).

    ``key_mask`` (B, m) is True at keys that exist; padding gets no attention.
    """
    q, k, v = _split_heads(q, heads), _split_heads(k, heads), _split_heads(v, heads)
    scores = q @ k.transpose(-1, -2)  # (B, h, n, m)
    if key_mask is not None:
        # Added instead of filled in: with a static shape it folds to a constant, and FP16 can hold 1e4.
        scores = scores + (key_mask.to(scores.dtype) - 1)[:, None, None, :] * 1e4
    return _merge_heads(scores.softmax(dim=-1) @ v)


def global_attention(q: Tensor, k: Tensor, v: Tensor, config: FineConfig) -> Tensor:
    """Let every low-level token see every high-level token: AATS on sampled maps, vanilla on full ones."""
    out = attend(q.flatten(1, 2), k.flatten(1, 2), v.flatten(1, 2), config.num_heads)
    return out.reshape(q.shape)


def _regions(x: Tensor, rows: int, cols: int) -> Tensor:
    """Cut (B, H, W, C) into regions of rows x cols: (B * H/rows * W/cols, rows * cols, C)."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // rows, rows, width // cols, cols, channels)
    return x.transpose(2, 3).reshape(-1, rows * cols, channels)


def _unregions(x: Tensor, rows: int, cols: int, height: int, width: int) -> Tensor:
    """Join regions to (B, H, W, C), the inverse of :func:`_regions`."""
    channels = x.shape[-1]
    x = x.reshape(-1, height // rows, width // cols, rows, cols, channels)
    return x.transpose(2, 3).reshape(-1, height, width, channels)


def _pad_map(x: Tensor, height: int, width: int) -> Tensor:
    """Zero-pad (B, H, W, C) at the bottom and right to (B, height, width, C)."""
    if x.shape[1:3] == (height, width):
        return x
    return F.pad(x, (0, 0, 0, width - x.shape[2], 0, height - x.shape[1]))


def _regional(
    q: Tensor, k: Tensor, v: Tensor, heads: int, q_region: tuple[int, int], k_region: tuple[int, int]
) -> Tensor:
    """Attend inside corresponding regions of the two maps, which have the same number of regions."""
    rows, cols = q_region
    height, width = q.shape[1:3]
    padded = (height + -height % rows, width + -width % cols)
    grid = (padded[0] // rows, padded[1] // cols)
    k_padded = (grid[0] * k_region[0], grid[1] * k_region[1])
    key_mask = None
    if k.shape[1:3] != k_padded:
        exists = torch.ones((*k.shape[:3], 1), dtype=torch.bool, device=k.device)
        key_mask = _regions(_pad_map(exists, *k_padded), *k_region).squeeze(-1)
    k, v = (_regions(_pad_map(x, *k_padded), *k_region) for x in (k, v))
    out = attend(_regions(_pad_map(q, *padded), rows, cols), k, v, heads, key_mask)
    return _unregions(out, rows, cols, *padded)[:, :height, :width]


def window_attention(q: Tensor, k: Tensor, v: Tensor, config: FineConfig) -> Tensor:
    """Attend inside M x M windows of both maps at low-level resolution (Table 3, "Window").

    The caller resizes the high-level map to the low-level size before the projections, which the paper's +8.9 GFLOPs
    require; only the attention itself works on padded windows.
    """
    side = (config.window, config.window)
    return _regional(q, k, v, config.num_heads, side, side)


def area_attention(q: Tensor, k: Tensor, v: Tensor, config: FineConfig) -> Tensor:
    """Attend inside each of A horizontal areas of the two maps (Table 3, "Area"; areas as in YOLOv12)."""
    wanted = min(config.areas, q.shape[1], k.shape[1])
    k_rows = -(-k.shape[1] // wanted)  # rounded up: the last area may be smaller
    areas = -(-k.shape[1] // k_rows)  # fewer than wanted where rounding leaves the last ones without a key
    q_rows = -(-q.shape[1] // areas)
    q_padded = _pad_map(q, q_rows * areas, q.shape[2])
    out = _regional(q_padded, k, v, config.num_heads, (q_rows, q.shape[2]), (k_rows, k.shape[2]))
    return out[:, : q.shape[1]]


def linear_attention(q: Tensor, k: Tensor, v: Tensor, config: FineConfig) -> Tensor:
    """Attend as SimA: l1-normalised queries and keys, no softmax, linear in the tokens (Table 3, "Linear").

    SimA divides each channel by its l1 norm over the tokens. The query side divides by the mean instead of the sum. The
    constant factor n can be a part of W^O, and it keeps FP16 away from values of 1/n, which are subnormal at 6,400
    tokens.
    """
    shape = q.shape
    q, k, v = (x.flatten(1, 2) for x in (q, k, v))
    eps = 1e-6
    q = q / (q.abs().mean(dim=1, keepdim=True) + eps)  # (B, n, C)
    k = k / (k.abs().mean(dim=1, keepdim=True) + eps) / k.shape[1]  # (B, m, C)
    q, k, v = (_split_heads(x, config.num_heads) for x in (q, k, v))
    context = k.transpose(-1, -2) @ v  # (B, h, d, d)
    return _merge_heads(q @ context).reshape(shape)


Strategy = Callable[[Tensor, Tensor, Tensor, FineConfig], Tensor]

STRATEGIES: dict[AttentionName, Strategy] = {
    "aats": global_attention,
    "vanilla": global_attention,
    "window": window_attention,
    "area": area_attention,
    "linear": linear_attention,
}
