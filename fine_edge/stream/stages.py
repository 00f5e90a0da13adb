"""Times of the stages of a stream, in memory that does not grow with its length."""

from __future__ import annotations

import math

import numpy as np

STAGES = ("decode", "preprocess", "inference", "postprocess", "draw")
"""In the order of a frame's way. Draw includes writing the frame."""

# Bins of 1 %, from a microsecond to a quarter of an hour.
_STEP = math.log(1.01)
_LEAST_MS = 1e-3
_BINS = 2100


class Distribution:
    """Counts of times in bins of 1 %, so that percentiles are exact to half a per cent."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, dtype=np.int64)

    def add(self, ms: float, times: int = 1) -> None:
        """Count a time."""
        place = int(math.log(max(ms, _LEAST_MS) / _LEAST_MS) / _STEP)
        self._counts[min(place, _BINS - 1)] += times

    def __len__(self) -> int:
        """Return how many times were counted."""
        return int(self._counts.sum())

    def percentile(self, percent: float) -> float | None:
        """Return the time in ms that ``percent`` of the counted ones do not exceed; ``None`` of nothing."""
        total = len(self)
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self._counts), math.ceil(total * percent / 100)))
        return float(_LEAST_MS * math.exp((place + 0.5) * _STEP))
