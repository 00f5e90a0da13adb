"""What the kernel computes, in numpy: Eq. 8 and 9, ``F * Up(M) + F``, rounded once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def upsample(m: NDArray[np.floating], kernel: int, height: int, width: int) -> NDArray[np.floating]:
    """Up(.) of Eq. 8: (B, C, ceil(H / kernel), ceil(W / kernel)) to (B, C, H, W); border blocks may be smaller."""
    return m.repeat(kernel, axis=2).repeat(kernel, axis=3)[:, :, :height, :width]


def modulate(low: NDArray[np.floating], m: NDArray[np.floating], kernel: int) -> NDArray[np.floating]:
    """Eq. 9: F (B, C, H, W) and M (B, C, ceil(H / kernel), ceil(W / kernel)), both FP16 or both FP32, to F's shape.

    Products and sums of FP16 numbers are exact in double, so the FP16 result is that of a fused multiply-add. A sum of
    FP32 numbers may be rounded twice here, which makes it differ from a fused multiply-add in the last bit.
    """
    height, width = low.shape[2:]
    exact = low.astype(np.float64)
    exact = exact * upsample(m, kernel, height, width) + exact
    with np.errstate(over="ignore"):  # beyond 65504 FP16 is infinite, as on the GPU
        return exact.astype(low.dtype)
