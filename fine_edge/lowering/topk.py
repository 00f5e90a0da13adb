"""The largest of a long row, found in pieces that a GPU works on side by side."""

from __future__ import annotations

import torch
from torch import Tensor

SIDE_BY_SIDE = 8
"""Rows that TensorRT selects from at the same time on an Orin Nano, which has so many multiprocessors."""
_MOST_GROUPS = 2 * SIDE_BY_SIDE
# Elements, 27 us at 3.4 clocks each: groups cost three kernels more.
_WORTH = 8192


def largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As ``scores.topk(count, dim=1)`` of (B, N): values and indices (B, count), the largest first.

    TensorRT goes through a row element after element, whatever ``count`` is: 51 us for 24,000 (ultralytics, pull
    request 25666). A long row is therefore cut into groups, whose largest are found side by side, and the largest of
    these after them: the same values, and where runtimes prefer the first of equal ones, the same indices.
    """
    batch, length = scores.shape
    groups = group_count(length, count)
    if groups == 1:
        found = scores.topk(count, dim=1)
        return found.values, found.indices
    best, index = scores.reshape(batch, groups, length // groups).topk(count, dim=2)  # (B, G, count)
    first = torch.arange(0, length, length // groups).reshape(1, groups, 1)
    best, slot = best.reshape(batch, groups * count).topk(count, dim=1)
    return best, (index + first).reshape(batch, groups * count).gather(1, slot)


def group_count(length: int, count: int) -> int:
    """Into how many groups a row is cut; 1 where that would not shorten the way to the last element enough."""
    for groups in range(SIDE_BY_SIDE, _MOST_GROUPS + 1):
        turns = -(-groups // SIDE_BY_SIDE)
        if length % groups == 0 and length // groups >= count:
            return groups if length - turns * length // groups - groups * count >= _WORTH else 1
    return 1


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
