"""Compute the time of one kernel: compute, then memory, then the fixed cost of a kernel.

tensor    matrix products, padded to whole tiles and waves, on tensor cores
lanes     arithmetic and exponentials on CUDA cores, overlapping with the matrix products of the same kernel
select    the largest of a row, which one multiprocessor finds element by element
memory    bytes to and from memory, or sectors of scattered reads from L2, whichever takes longer
launch    the same for every kernel

Compute and memory are added: kernels of a single image are one or two waves of tiles, which have nothing to compute
while the first operands come and nothing to read while the last results go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Literal

from fine_edge.estimate.calibration import Constants
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.flops import Product
from fine_edge.estimate.work import KernelWork

# Tile sizes of the kernels in NVIDIA's libraries, in either direction.
_SHAPES = ((256, 128), (128, 128), (128, 64), (64, 64), (128, 32), (64, 32), (32, 32))
_TILES = tuple(dict.fromkeys((*_SHAPES, *((columns, rows) for rows, columns in _SHAPES))))
# The depth can be split too, as long as each part keeps some length.
_SPLITS = (1, 2, 4)
_SHORTEST_DEPTH = 256
# Tensor cores multiply 16 elements deep.
_DEPTH_STEP = 16


def padded_flops(products: Iterable[Product], multiprocessors: int) -> int:
    """Return the FLOPs that keep tensor cores busy with the best tiles for each product; at least its own FLOPs."""
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


Bound = Literal["compute", "memory", "launch"]

CLOCKS_PER_ELEMENT = 3.4
"""Clocks of TensorRT's top-k for an element of a row.

It takes 51 us for 24,000 elements, whatever k is (ultralytics, pull request 25666), if that was a T4 at 1590 MHz, the
GPU of its author's other figures.
"""


@dataclass(frozen=True)
class KernelTime:
    """The time of a kernel in ms, and what bounds it."""

    work: KernelWork
    compute_ms: float
    memory_ms: float
    launch_ms: float

    @property
    def ms(self) -> float:
        """Return the time of the whole kernel."""
        return self.compute_ms + self.memory_ms + self.launch_ms

    @property
    def bound(self) -> Bound:
        """Return the largest of its three times."""
        if self.launch_ms >= max(self.compute_ms, self.memory_ms):
            return "launch"
        return "compute" if self.compute_ms >= self.memory_ms else "memory"


@dataclass(frozen=True)
class Demand:
    """The times of a kernel in ms if the board reached its peaks; the fitted constants scale them."""

    tensor_ms: float
    lanes_ms: float
    memory_ms: float
    gather_ms: float
    select_ms: float

    def timed(self, work: KernelWork, constants: Constants) -> KernelTime:
        """Return the time with the shares of its peaks that the board reaches."""
        compute_ms = max(self.tensor_ms / constants.tensor_share, self.lanes_ms) + self.select_ms
        memory_ms = max(self.memory_ms / constants.memory_share, self.gather_ms / constants.gather_share)
        return KernelTime(work, compute_ms, memory_ms, constants.launch_us / 1e3)


def demands(works: Sequence[KernelWork], device: Device, mode: Mode) -> list[Demand]:
    """Return the demand of each kernel at the peaks of a power mode."""
    peaks = device.peaks(mode)
    special_slots = device.lanes / device.special_lanes
    return [
        Demand(
            tensor_ms=padded_flops(work.products, peaks.multiprocessors) / peaks.tensor_flops_per_ms,
            lanes_ms=(work.plain + special_slots * work.special) / peaks.slots_per_ms,
            memory_ms=work.memory_bytes / peaks.memory_bytes_per_ms,
            gather_ms=work.gathered_bytes / peaks.l2_bytes_per_ms,
            select_ms=_select_clocks(work, peaks.multiprocessors) / peaks.clocks_per_ms,
        )
        for work in works
    ]


def _select_clocks(work: KernelWork, multiprocessors: int) -> float:
    """Return the clocks of the selections: rows run in parallel on all multiprocessors, elements one by one."""
    return sum(CLOCKS_PER_ELEMENT * ceil(part.rows / multiprocessors) * part.length for part in work.selections)


def kernel_times(works: Sequence[KernelWork], device: Device, mode: Mode, constants: Constants) -> list[KernelTime]:
    """Return the times of all kernels of an engine, in the order of execution."""
    found = demands(works, device, mode)
    return [demand.timed(work, constants) for work, demand in zip(works, found, strict=True)]
