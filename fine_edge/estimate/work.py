"""Compute the work of every kernel: the arithmetic of its nodes, and the bytes of its tensors."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fine_edge.engine.rtx_log import Kernel
from fine_edge.estimate.flops import NodeWork, Product, SelectedKernels
from fine_edge.layers.layer import attribute

# Kinds of kernels that compute matrix products; other kernels that name such a node only prepare its input.
_MATRIX_KINDS = ("correlation", "gemm", "runtime_fusion", "runtime_function")
# Scores of an attention, elements, up to which TensorRT 10.7 is taken to fuse it as the compiler here does. A log of
# RT-DETR R18 with dense attention (8 x 6400 x 1600) shows them in memory; one with 16 x 400 x 400 does not, and the
# paper's time with areas (64 x 1600 x 400) leaves no room for them.
MOST_FUSED_SCORES = 2**26
_FP32_BYTES, _FP16_BYTES = 4, 2
_GATHERS = ("gather", "gridsample", "gath", "grid_sample")


@dataclass(frozen=True)
class KernelWork:
    """The work of one kernel, from which its time is computed.

    Attributes:
        name: the compiler's name of the kernel.
        module: module of the detector, and for FINE its part.
        products: matrix products.
        plain: number of instructions of CUDA cores.
        special: number of results of special-function units.
        memory_bytes: bytes that it reads from memory and writes to it, without reads that hit the L2 cache.
        tensor_bytes: bytes of all its tensors, wherever they are.
        gathered_bytes: bytes of the sectors that scattered reads fetch.
        selections: selections of the largest elements.
        gates: elements that sigmoids and the like make.
        scores_bytes: scores of an attention that TensorRT 10.7 does not fuse, though the compiler here does.
        converted_bytes: bytes of a network's input that are brought into the kernels' layout.
    """

    name: str
    module: str
    products: tuple[Product, ...]
    plain: int
    special: int
    memory_bytes: int
    tensor_bytes: int
    gathered_bytes: int
    selections: tuple[SelectedKernels, ...] = ()
    gates: int = 0
    scores_bytes: int = 0
    converted_bytes: int = 0

    @property
    def flops(self) -> int:
        """Return the FLOPs of its matrix products."""
        return sum(product.flops for product in self.products)

    def moving(self, memory_bytes: int) -> KernelWork:
        """Return the same work with other bytes from and to memory."""
        return replace(self, memory_bytes=memory_bytes)

    def to_json(self) -> dict[str, Any]:
        """Return the data for a file of recorded kernels."""
        sizes = {
            name: [list(vars(part).values()) for part in getattr(self, name)] for name in ("products", "selections")
        }
        return {**vars(self), **sizes}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> KernelWork:
        """Read the data of :meth:`to_json`."""
        products = tuple(Product(*sizes) for sizes in data["products"])
        selections = tuple(SelectedKernels(*sizes) for sizes in data["selections"])
        return cls(**{**data, "products": products, "selections": selections})


def kernel_works(kernels: Sequence[Kernel], nodes: Mapping[str, NodeWork], l2_bytes: int) -> tuple[KernelWork, ...]:
    """Assign each node's work to exactly one kernel; nodes that no kernel names are left out.

    A product belongs to the first kernel for products that names its node. Arithmetic belongs to the last kernel that
    names it, because earlier kernels only pass its input on.
    """
    owners: dict[str, tuple[int, int]] = {}
    for index, kernel in enumerate(kernels):
        for name in kernel.onnx_nodes:
            work = nodes.get(name)
            if work is None:
                continue
            rank = (0 if _is_matrix_kernel(kernel) else 1, index) if work.product else (0, -index)
            owners[name] = min(owners.get(name, rank), rank)
    owned: dict[int, list[NodeWork]] = defaultdict(list)
    for name, (_, index) in owners.items():
        owned[abs(index)].append(nodes[name])
    moved = _memory_bytes(kernels, l2_bytes)
    return tuple(_kernel_work(kernel, owned[index], moved[index]) for index, kernel in enumerate(kernels))


def _is_matrix_kernel(kernel: Kernel) -> bool:
    return kernel.kind in _MATRIX_KINDS or "gemm" in kernel.name.lower()


def _kernel_work(kernel: Kernel, nodes: Sequence[NodeWork], memory_bytes: int) -> KernelWork:
    part, _ = attribute(kernel.name, kernel.kind, kernel.onnx_nodes)
    constants = sum(size for _, size in kernel.constants)
    products = tuple(node.product for node in nodes if node.product)
    return KernelWork(
        name=kernel.name,
        module=f"{part.module}: {part.detail}" if part.detail else part.module,
        products=products,
        plain=sum(node.plain for node in nodes),
        special=sum(node.special for node in nodes),
        memory_bytes=memory_bytes,
        tensor_bytes=kernel.read_bytes + constants + kernel.written_bytes,
        gathered_bytes=sum(node.gathered_bytes for node in nodes),
        selections=tuple(node.selection for node in nodes if node.selection),
        gates=sum(node.gates for node in nodes),
        scores_bytes=_scores_bytes(products) if kernel.is_fused_attention else 0,
    )


def _scores_bytes(products: Sequence[Product]) -> int:
    """Return the bytes of an attention's scores in FP16; 0 where they are few enough to be fused."""
    scores = max((product.batch * product.rows * product.columns for product in products), default=0)
    return 2 * scores if scores > MOST_FUSED_SCORES else 0


def conversion(elements: int) -> KernelWork:
    """Return the kernel that TensorRT puts before the first one: FP32 pictures into FP16 with channels last."""
    moved = (_FP32_BYTES + _FP16_BYTES) * elements
    return KernelWork("input, to the kernels' layout", "input", (), 0, 0, 0, moved, 0, converted_bytes=moved)


def live_bytes(kernels: Sequence[Kernel]) -> int:
    """Return the most bytes of activations that are needed at one moment, kernels running one after the other."""
    last = {name: index for index, kernel in enumerate(kernels) for name, _ in (*kernel.writes, *kernel.reads)}
    alive: dict[str, int] = {}
    most = 0
    for index, kernel in enumerate(kernels):
        alive.update(kernel.writes)
        most = max(most, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last[name] > index}
    return most


def _memory_bytes(kernels: Sequence[Kernel], l2_bytes: int) -> list[int]:
    """Return the bytes that each kernel moves from and to memory; L2 keeps the tensors used last."""
    cache = _Cache(l2_bytes)
    found = []
    for kernel in kernels:
        missed = sum(_read(kernel, size) for name, size in kernel.reads if not cache.holds(name))
        for name, size in (*kernel.reads, *kernel.writes):
            cache.touch(name, size)
        found.append(missed + sum(size for _, size in kernel.constants) + kernel.written_bytes)
    return found


def _read(kernel: Kernel, size: int) -> int:
    """Return the bytes of a tensor that a kernel reads; a kernel that picks elements reads only what it needs."""
    picks = any(word in node.lower() for node in kernel.onnx_nodes for word in _GATHERS)
    # A sector of 32 bytes for each element of 2 bytes.
    return min(size, 16 * kernel.written_bytes) if picks and size > 4 * kernel.written_bytes else size


class _Cache:
    """The tensors used last, as many as fit; a tensor larger than the cache evicts all."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def holds(self, name: str) -> bool:
        """Return whether the cache holds the whole tensor."""
        return name in self._sizes

    def touch(self, name: str, size: int) -> None:
        """Record that a tensor is read or written."""
        self._sizes.pop(name, None)
        self._sizes[name] = size
        while self._sizes and sum(self._sizes.values()) > self._capacity:
            self._sizes.popitem(last=False)
