"""How a matrix product is cut into tiles, and what of the tensor cores' work that wastes.

Every product, convolutions included, is computed in tiles of rows x columns, one after the other on each of a few
multiprocessors. A tile that hangs over the edge computes zeros, and in the last wave some multiprocessors have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import ceil

from fine_edge.estimate.flops import Product

# Sizes that NVIDIA's libraries have kernels of, in either direction.
_SHAPES = ((256, 128), (128, 128), (128, 64), (64, 64), (128, 32), (64, 32), (32, 32))
_TILES = tuple(dict.fromkeys((*_SHAPES, *((columns, rows) for rows, columns in _SHAPES))))
# The depth can be cut as well, where each part still has some length.
_SPLITS = (1, 2, 4)
_SHORTEST_DEPTH = 256
# Tensor cores multiply 16 deep.
_DEPTH_STEP = 16


def padded_flops(products: Iterable[Product], multiprocessors: int) -> int:
    """FLOPs that tensor cores are kept busy for, by the best tiles for each product; at least its own."""
    return sum(_padded(product, multiprocessors) for product in products if not product.is_depthwise)


@lru_cache(maxsize=4096)
def _padded(product: Product, multiprocessors: int) -> int:
    return min(_candidates(product, multiprocessors))


def _candidates(product: Product, multiprocessors: int) -> Iterator[int]:
    depth = _DEPTH_STEP * ceil(product.depth / _DEPTH_STEP)
    for rows, columns in _TILES:
        tiles = product.batch * ceil(product.rows / rows) * ceil(product.columns / columns)
        for split in _SPLITS:
            if split == 1 or depth >= _SHORTEST_DEPTH * split:
                waves = ceil(tiles * split / multiprocessors)
                yield waves * multiprocessors * 2 * rows * columns * ceil(depth / split)
