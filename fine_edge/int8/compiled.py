"""What a graph costs: kernels and memory by NVIDIA's compiler for SM86, and an estimate of its latency on a board.

TensorRT-RTX 1.7 compiles every INT8 convolution to two kernels: the products, with an FP32 result, and what follows
them, down to QuantizeLinear. TensorRT 10.7 documents one kernel for both (Developer Guide, "Q/DQ layer fusions"). Which
of the two a board runs decides whether INT8 pays, so both are estimated.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from fine_edge.engine.inspect import Inspection, inspect
from fine_edge.engine.rtx_log import Kernel
from fine_edge.estimate.engine import engine_work
from fine_edge.estimate.latency import Conditions, estimate
from fine_edge.estimate.work import KernelWork
from fine_edge.graph.view import GraphView
from fine_edge.int8.pairs import weight_pairs


@dataclass(frozen=True)
class GraphCost:
    """One compiled graph.

    Attributes:
        kernels: as compiled.
        fused_attention: number of attentions in one kernel.
        activation_mib: planned for activations.
        weights_mib: of weights.
        estimate_ms: latency of these kernels on the board, an estimate.
        fused_kernels: kernels if every INT8 convolution and what follows it were one.
        fused_estimate_ms: latency then.
    """

    kernels: int
    fused_attention: int
    activation_mib: float
    weights_mib: float
    estimate_ms: float
    fused_kernels: int
    fused_estimate_ms: float

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        return {name: round(value, 3) for name, value in vars(self).items()}


def compiled(model: onnx.ModelProto, board: Conditions, name: str) -> GraphCost:
    """Compile a graph in memory and estimate its latency; see :func:`costs`."""
    return costs(model, (board,), name)[0]


def costs(model: onnx.ModelProto, boards: Sequence[Conditions], name: str) -> list[GraphCost]:
    """Compile a graph in memory, once, and estimate its latency on several boards.

    Raises:
        MissingExtraError: without TensorRT-RTX.
        BackendError: when the compiler refuses the graph.
    """
    pairs = weight_pairs(GraphView(model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        onnx.save(model, path)
        found = inspect(path)
        fused = replace(found, compiled=replace(found.compiled, kernels=with_epilogues(found.compiled.kernels, pairs)))
        return [
            GraphCost(
                kernels=len(found.compiled.kernels),
                fused_attention=found.compiled.fused_attention,
                activation_mib=found.compiled.activation_mib,
                weights_mib=found.compiled.weights_mib,
                estimate_ms=_estimate_ms(path, found, pairs, board),
                fused_kernels=len(fused.compiled.kernels),
                fused_estimate_ms=_estimate_ms(path, fused, pairs, board),
            )
            for board in boards
        ]


def is_int8(kernel: Kernel, pairs: Iterable[str]) -> bool:
    """Return whether a kernel multiplies dequantised weights: it then multiplies the INT8 ones."""
    return not set(pairs).isdisjoint(kernel.onnx_nodes) and bool(kernel.constants)


def with_epilogues(kernels: tuple[Kernel, ...], pairs: frozenset[str]) -> tuple[Kernel, ...]:
    """Return the kernels with each INT8 product merged into the next kernel, where only that one reads its result."""
    readers: dict[str, list[int]] = {}
    for index, kernel in enumerate(kernels):
        for name, _ in kernel.reads:
            readers.setdefault(name, []).append(index)
    merged: dict[int, Kernel] = dict(enumerate(kernels))
    for index, kernel in enumerate(kernels):
        results = [name for name, _ in kernel.writes]
        users = readers.get(results[0], []) if len(results) == 1 else []
        if not is_int8(kernel, pairs) or len(users) != 1 or is_int8(kernels[users[0]], pairs):
            continue
        merged[users[0]] = _one_kernel(merged.pop(index), merged[users[0]], results[0])
    return tuple(merged.values())


def _one_kernel(product: Kernel, epilogue: Kernel, between: str) -> Kernel:
    """Return a product and what follows it as one kernel; the tensor between them is never stored."""
    return Kernel(
        name=product.name,
        kind=product.kind,
        onnx_nodes=tuple(dict.fromkeys((*product.onnx_nodes, *epilogue.onnx_nodes))),
        reads=(*product.reads, *(entry for entry in epilogue.reads if entry[0] != between)),
        writes=epilogue.writes,
        constants=(*product.constants, *epilogue.constants),
    )


def _estimate_ms(path: Path, found: Inspection, pairs: frozenset[str], board: Conditions) -> float:
    """Return the estimated latency of compiled kernels in ms: each kernel by the rates of what it multiplies."""
    engine = engine_work(path, board.device, run=lambda *_, **__: found)
    # By name: the estimate adds kernels of its own, such as the one that brings pictures into a layout.
    names = {kernel.name for kernel in found.compiled.kernels if is_int8(kernel, pairs)}
    works = tuple(_in_int8(work) if work.name in names else work for work in engine.works)
    # The rates of FP16, which most of its kernels compute in; products in INT8 are marked.
    return estimate(replace(engine, works=works), replace(board, precision="fp16")).latency_ms


def _in_int8(work: KernelWork) -> KernelWork:
    """Return a kernel whose products are multiplied in INT8."""
    return replace(work, products=tuple(replace(product, int8=True) for product in work.products))
