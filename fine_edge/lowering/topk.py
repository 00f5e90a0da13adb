"""The top-k of a long row, computed in groups that a GPU works on in parallel."""

from __future__ import annotations

import torch
from torch import Tensor

# The number of rows that TensorRT selects from in parallel on an Orin Nano, one on each multiprocessor.
SIDE_BY_SIDE = 8
_MOST_GROUPS = 2 * SIDE_BY_SIDE
# The least saving in elements, 27 us at 3.4 clocks each, as groups cost three kernels more.
_WORTH = 8192


def largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Compute ``scores.topk(count, dim=1)`` of (B, N): values and indices (B, count), the largest first.

    TensorRT reads a row element by element for any ``count``: 51 us for 24,000 (ultralytics, pull request 25666). A
    long row is therefore cut into groups. The largest of each group are found in parallel, then the largest of these.
    The values are the same, and so are the indices where a runtime prefers the first of equal values.
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
    """Return the number of groups that a row is cut into; 1 where groups would not save enough time."""
    for groups in range(SIDE_BY_SIDE, _MOST_GROUPS + 1):
        turns = -(-groups // SIDE_BY_SIDE)
        if length % groups == 0 and length // groups >= count:
            return groups if length - turns * length // groups - groups * count >= _WORTH else 1
    return 1


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Take ``x[b, index[b]]`` for every image b.

    Args:
        x: rows (B, N, ...).
        index: indices (B, K) int64, each in [0, N).

    Returns:
        The rows (B, K, ...).
    """
    batch, count = x.shape[:2]
    if batch > 1:
        index = index + torch.arange(0, batch * count, count, device=index.device).unsqueeze(1)
    chosen = x.reshape(batch * count, *x.shape[2:]).index_select(0, index.reshape(-1))
    return chosen.reshape(*index.shape, *x.shape[2:])
