"""Rows picked by index, in the form that stays one gather with one-dimensional indices for any batch."""

from __future__ import annotations

import torch
from torch import Tensor


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """``x[b, index[b]]`` for every image b.

    Args:
        x: (B, N, ...).
        index: (B, K) int64, each in [0, N).

    Returns:
        (B, K, ...).
    """
    batch, count = x.shape[:2]
    if batch > 1:
        index = index + torch.arange(0, batch * count, count, device=index.device).unsqueeze(1)
    chosen = x.reshape(batch * count, *x.shape[2:]).index_select(0, index.reshape(-1))
    return chosen.reshape(*index.shape, *x.shape[2:])
