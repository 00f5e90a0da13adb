"""Compute the time of one kernel: compute or memory, whichever takes longer, and what every kernel takes beside.

tensor    matrix products on tensor cores, as whole tiles in whole waves; each tile also reads, starts and ends
lanes     arithmetic and exponentials on CUDA cores, overlapping with the matrix products of the same kernel
gates     sigmoids behind a convolution, after its products
select    the largest of a row, which one multiprocessor finds element by element
memory    bytes to and from memory, or sectors of scattered reads from L2, whichever takes longer
launch    clocks that every kernel takes; without a CUDA graph, the gap to the one before as well
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Literal

from fine_edge.estimate.calibration import Constants, Precision
from fine_edge.estimate.device import Device, Mode
from fine_edge.estimate.flops import Product
from fine_edge.estimate.work import KernelWork

# Tile sizes of the kernels in NVIDIA's libraries, in either direction. Fewer filters than the narrowest tile, and
# products less deep, take as long as so many.
_NARROWEST = 64
_SHAPES = ((256, 128), (128, 128), (128, 64), (64, 64), (128, 32), (64, 32), (32, 32))
_TILES = tuple(dict.fromkeys((*_SHAPES, *((columns, rows) for rows, columns in _SHAPES))))
# The depth can be split too, as long as each part keeps some length.
_SPLITS = (1, 2, 4)
_SHORTEST_DEPTH = 256
# Tensor cores multiply 16 elements deep.
_DEPTH_STEP = 16
# Reading an element of an operand takes as long as so many multiply-accumulates, so narrow tiles are slower.
_OPERAND = 8
# Depth whose time a tile takes beside its products: its pipeline fills, and its results are written.  Products side by
# side, such as those of an attention's heads, hide the ends of each other's tiles.
TILE_ENDS = 144


def padded_flops(products: Iterable[Product], multiprocessors: int) -> int:
    """Return the FLOPs that tensor cores could do in the time of the best tiles for each product.

    Products marked as INT8 take half the time.
    """
    return sum(_padded(product, multiprocessors) for product in products if not product.is_depthwise)


@lru_cache(maxsize=4096)
def _padded(product: Product, multiprocessors: int) -> int:
    return min(_candidates(product, multiprocessors)) // (2 if product.int8 else 1)


def _candidates(product: Product, multiprocessors: int) -> Iterator[int]:
    ends = TILE_ENDS if product.batch == 1 else 0
    depth = max(_DEPTH_STEP * ceil(product.depth / _DEPTH_STEP), _NARROWEST)
    columns_of_all = max(product.columns, _NARROWEST)
    for rows, columns in _TILES:
        tiles = product.batch * ceil(product.rows / rows) * ceil(columns_of_all / columns)
        step = 2 * (rows * columns + _OPERAND * (rows + columns))
        for split in _SPLITS:
            if split == 1 or depth >= _SHORTEST_DEPTH * split:
                waves = ceil(tiles * split / multiprocessors)
                yield waves * multiprocessors * step * (ceil(depth / split) + ends)


Bound = Literal["compute", "memory", "launch"]

# Clocks of TensorRT's top-k for an element of a row.  It takes 51 us for 24,000 elements, whatever k is (ultralytics,
# pull request 25666), if that was a T4 at 1590 MHz, the GPU of its author's other figures.
CLOCKS_PER_ELEMENT = 3.4


# Rate of tensor cores over that in FP16; FP32 graphs are multiplied in TF32.
_TENSOR_RATE: dict[Precision, float] = {"fp32": 0.5, "fp16": 1.0, "int8": 2.0}
# Scores that are not fused are written, read and written again by the softmax, and read.
_PASSES_OF_SCORES = 4


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
        return max(self.compute_ms, self.memory_ms) + self.launch_ms

    @property
    def bound(self) -> Bound:
        """Return the largest of its three times."""
        if self.launch_ms >= max(self.compute_ms, self.memory_ms):
            return "launch"
        return "compute" if self.compute_ms >= self.memory_ms else "memory"


@dataclass(frozen=True)
class Demand:
    """The times of a kernel in ms if the board reached its peaks; the fitted constants scale them.

    Attributes:
        tensor_ms: matrix products.
        lanes_ms: arithmetic and exponentials.
        gate_ms: sigmoids and the like, were each one lane-clock.
        memory_ms: bytes from and to memory.
        gather_ms: scattered reads.
        convert_ms: bytes of an input that is brought into the kernels' layout.
        select_ms: selections of the largest, which no constant scales.
        clock_ms: one clock of the GPU.
    """

    tensor_ms: float
    lanes_ms: float
    gate_ms: float
    memory_ms: float
    gather_ms: float
    convert_ms: float
    select_ms: float
    clock_ms: float

    def timed(self, work: KernelWork, constants: Constants, precision: Precision, *, graph: bool) -> KernelTime:
        """Return the time with the shares of its peaks that the board reaches."""
        tensor_share = constants.share_of_tensor_cores(precision)
        products_ms = max(self.tensor_ms / tensor_share, self.lanes_ms / constants.lanes_share)
        memory_ms = max(self.memory_ms / constants.memory_share, self.gather_ms / constants.gather_share)
        launch_ms = constants.kernel_clocks * self.clock_ms + (0.0 if graph else constants.gap_us / 1e3)
        return KernelTime(
            work,
            compute_ms=products_ms + constants.gate_slots * self.gate_ms + self.select_ms,
            memory_ms=memory_ms + self.convert_ms / constants.input_share,
            launch_ms=launch_ms,
        )


def demands(works: Sequence[KernelWork], device: Device, mode: Mode, precision: Precision) -> list[Demand]:
    """Return the demand of each kernel at the peaks of a power mode."""
    peaks = device.peaks(mode)
    tensor_flops_per_ms = peaks.tensor_flops_per_ms * _TENSOR_RATE[precision]
    special_slots = device.lanes / device.special_lanes
    return [
        Demand(
            tensor_ms=padded_flops(work.products, peaks.multiprocessors) / tensor_flops_per_ms,
            lanes_ms=(work.plain + special_slots * work.special) / peaks.slots_per_ms,
            gate_ms=work.gates / peaks.slots_per_ms,
            memory_ms=(work.memory_bytes + _PASSES_OF_SCORES * work.scores_bytes) / peaks.memory_bytes_per_ms,
            gather_ms=work.gathered_bytes / peaks.l2_bytes_per_ms,
            convert_ms=work.converted_bytes / peaks.memory_bytes_per_ms,
            select_ms=_select_clocks(work, peaks.multiprocessors) / peaks.clocks_per_ms,
            clock_ms=1 / peaks.clocks_per_ms,
        )
        for work in works
    ]


def _select_clocks(work: KernelWork, multiprocessors: int) -> float:
    """Return the clocks of the selections: rows run in parallel on all multiprocessors, elements one by one."""
    return sum(CLOCKS_PER_ELEMENT * ceil(part.rows / multiprocessors) * part.length for part in work.selections)


def in_int8(works: Iterable[KernelWork]) -> tuple[KernelWork, ...]:
    """Return kernels of an FP16 engine as INT8 would have them: products read and write half as many bytes."""
    return tuple(
        replace(work, memory_bytes=work.memory_bytes // 2, tensor_bytes=work.tensor_bytes // 2)
        if work.products
        else work
        for work in works
    )


def kernel_times(
    works: Sequence[KernelWork],
    device: Device,
    mode: Mode,
    constants: Constants,
    precision: Precision = "fp16",
    *,
    graph: bool = True,
) -> list[KernelTime]:
    """Return the times of all kernels of an engine, in the order of execution."""
    found = demands(works, device, mode, precision)
    return [demand.timed(work, constants, precision, graph=graph) for work, demand in zip(works, found, strict=True)]
