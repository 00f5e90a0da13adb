"""Eq. 4 to 9 once more, in float64 numpy and loops, written from the paper and not from the block.

Slow and plain on purpose: which query sees which key is a brute-force rule per strategy.
"""

from __future__ import annotations

import math

import numpy as np

from fine_edge.fusion import Fine, FineConfig


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    mean = x.mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def down(x: np.ndarray, kernel: int, name: str, weight: np.ndarray | None) -> np.ndarray:
    """(C, H, W) to one value per block of kernel x kernel pixels; blocks at the border are smaller."""
    channels, height, width = x.shape
    out = np.zeros((channels, math.ceil(height / kernel), math.ceil(width / kernel)))
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            block = x[:, i * kernel : (i + 1) * kernel, j * kernel : (j + 1) * kernel]
            if name == "avg" or kernel == 1:
                out[:, i, j] = block.mean(axis=(1, 2))
            elif name == "max":
                out[:, i, j] = block.max(axis=(1, 2))
            else:
                out[:, i, j] = (block * weight[:, 0, : block.shape[1], : block.shape[2]]).sum(axis=(1, 2))
    return out


def strips(areas: int, query_rows: int, key_rows: int) -> int:
    """The most horizontal strips, up to ``areas``, that all hold a row of keys."""
    possible = range(1, min(areas, query_rows, key_rows) + 1)
    return max(n for n in possible if math.ceil(key_rows / n) * (n - 1) < key_rows)


def visible(config: FineConfig, query_hw: tuple[int, int], key_hw: tuple[int, int]) -> np.ndarray:
    """(N_query, N_key): whether a query may look at a key, token by token."""
    yq, xq = np.divmod(np.arange(query_hw[0] * query_hw[1])[:, None], query_hw[1])
    yk, xk = np.divmod(np.arange(key_hw[0] * key_hw[1])[None, :], key_hw[1])
    if config.attention == "window":
        side = config.window
        return (yq // side == yk // side) & (xq // side == xk // side)
    if config.attention == "area":
        count = strips(config.areas, query_hw[0], key_hw[0])
        return yq // math.ceil(query_hw[0] / count) == yk // math.ceil(key_hw[0] / count)
    return np.ones((len(yq), yk.shape[1]), dtype=bool)


def softmax_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, seen: np.ndarray) -> np.ndarray:
    dim = q.shape[1] // heads
    out = np.zeros_like(q)
    for head in range(heads):
        part = slice(head * dim, (head + 1) * dim)
        scores = np.where(seen, q[:, part] @ k[:, part].T / math.sqrt(dim), -np.inf)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        out[:, part] = weights / weights.sum(axis=1, keepdims=True) @ v[:, part]
    return out


def sima(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, guard: float = 0.0) -> np.ndarray:
    """SimA: every channel of queries and keys divided by its l1 norm over the tokens; no softmax.

    ``guard`` keeps a channel of zeros from dividing by zero: it is added to the mean absolute value.
    """
    dim = q.shape[1] // heads
    q, k = (x / (np.abs(x).sum(axis=0, keepdims=True) + len(x) * guard) for x in (q, k))
    out = np.zeros_like(q)
    for head in range(heads):
        part = slice(head * dim, (head + 1) * dim)
        out[:, part] = q[:, part] @ k[:, part].T @ v[:, part]
    return out


def fine(block: Fine, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """One image: low (C, H, W) and high (C_high, h, w) to (C, H, W), with the block's weights."""
    config = block.config
    w = {name: tensor.numpy() for name, tensor in block.state_dict().items()}
    channels, height, width = low.shape
    if "unify.weight" in w:
        high = np.einsum("oc,chw->ohw", w["unify.weight"][:, :, 0, 0], high)  # Eq. 10
    sampled = config.attention == "aats"
    low_kernel, high_kernel = (config.r * config.k, config.k) if sampled else (1, 1)
    low_map = down(low, low_kernel, config.down, w.get("down_low.conv.weight"))  # Eq. 4
    high_map = down(high, high_kernel, config.down, w.get("down_high.conv.weight"))
    if config.attention == "window":  # nearest: each low pixel takes the high pixel it lies on
        rows = [y * high_map.shape[1] // height for y in range(height)]
        cols = [x * high_map.shape[2] // width for x in range(width)]
        high_map = high_map[:, rows][:, :, cols]

    t = layer_norm(low_map.reshape(channels, -1).T, w["norm_low.weight"], w["norm_low.bias"])
    u = layer_norm(high_map.reshape(channels, -1).T, w["norm_high.weight"], w["norm_high.bias"])
    q = t @ w["query.weight"].T + w["query.bias"]  # Eq. 5
    k = u @ w["key.weight"].T + w["key.bias"]
    v = u @ w["value.weight"].T + w["value.bias"]
    if config.attention == "linear":
        # The block leaves the factor N to W^O. Eq. 6's scale of the queries cancels but for the guard.
        scaled = q / math.sqrt(config.channels / config.num_heads)
        attended = len(q) * sima(scaled, k, v, config.num_heads, guard=1e-6)
    else:
        attended = softmax_attention(q, k, v, config.num_heads, visible(config, low_map.shape[1:], high_map.shape[1:]))
    o = attended @ w["project.weight"].T + w["project.bias"]  # Eq. 7
    if config.ffn_ratio:
        hidden = gelu(layer_norm(o, w["ffn.norm.weight"], w["ffn.norm.bias"]) @ w["ffn.up.weight"].T + w["ffn.up.bias"])
        o = o + hidden @ w["ffn.down.weight"].T + w["ffn.down.bias"]

    out = np.zeros_like(low)
    for y in range(height):  # Eq. 8: every token onto its own block; Eq. 9
        for x in range(width):
            m = o[y // low_kernel * low_map.shape[2] + x // low_kernel]
            here = low[:, y, x]
            out[:, y, x] = {"residual": here * m + here, "direct": here * m, "none": m}[config.modulation]
    return out
