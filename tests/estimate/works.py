"""Kernels as recorded from NVIDIA's compiler, and small ones made up."""

from __future__ import annotations

from dataclasses import replace

from fine_edge.estimate.engine import EngineWork
from fine_edge.estimate.flops import Product
from fine_edge.estimate.published import engine as engine_of
from fine_edge.estimate.validate import published_fps
from fine_edge.estimate.work import KernelWork


def recorded() -> dict[str, EngineWork]:
    """Engines of the models of Tables 1 and 3, as the paper timed them."""
    return {name: replace(engine_of(f"{name}, FP16"), name=name) for name in published_fps()}


def kernel(name="k", module="backbone", **changed) -> KernelWork:
    """A kernel that does nothing but what is given."""
    plain = {"products": (), "plain": 0, "special": 0, "memory_bytes": 0, "tensor_bytes": 0, "gathered_bytes": 0}
    return KernelWork(name, module, **{**plain, **changed})


def engine(name="net", *works: KernelWork) -> EngineWork:
    """An engine of a few kernels."""
    some = works or (
        kernel("conv", products=(Product(1, 6400, 128, 1152),), memory_bytes=10**6),
        kernel("pool", module="fine: pooling", memory_bytes=4 * 10**6),
        kernel("tiny", module="decoder"),
    )
    flops = sum(work.flops for work in some)
    return EngineWork(name, some, flops, 32.0, 40.0, 4_915_200, "0" * 64, "TensorRT-RTX 1.7", live_mib=20.0)
