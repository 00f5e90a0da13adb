"""Observation of every float tensor of a graph on real pictures: the ranges that FP16 must hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from fine_edge import console
from fine_edge.fp16.network import Network
from fine_edge.graph.emulate import MOVES_ONLY
from fine_edge.graph.half_range import STANDS_FOR_INFINITY
from fine_edge.graph.view import GraphView, attribute_int, input_name, is_static
from fine_edge.machine import MIB
from fine_edge.runners.ort import OrtRunner

# The smallest FP16 number with all 11 bits. Below it, numbers are 2^-24 apart (IEEE 754 binary16).
SMALLEST_NORMAL = 2.0**-14

# The largest magnitude that FP16 rounds to zero.
VANISHES = 2.0**-25

# The most MiB of tensors that are held at one time while observing; a larger tensor is held alone.
CHUNK_MIB = 256

_STEP = 2.0**-24


@dataclass(frozen=True)
class TensorStats:
    """Figures of a tensor over all elements and pictures. Mask values (see ``half_range``) are not counted.

    Attributes:
        tensor: the name of the tensor.
        values: number of elements observed.
        max_abs: the largest finite magnitude.
        smallest: the smallest magnitude that is not zero; infinite when there is none.
        subnormal: number of elements that FP16 holds with fewer than 11 bits.
        vanishing: number of elements other than zero that FP16 rounds to zero.
        non_finite: number of infinities and NaN in FP32.
        squares: sum of all squares.
        lost_squares: sum of the squared errors that FP16's coarse steps below 6.1e-5 make.
        row_squares: the largest sum of squared deviations from the mean over one row, for inputs of LayerNormalization.
    """

    tensor: str
    values: int = 0
    max_abs: float = 0.0
    smallest: float = float("inf")
    subnormal: int = 0
    vanishing: int = 0
    non_finite: int = 0
    squares: float = 0.0
    lost_squares: float = 0.0
    row_squares: float = 0.0

    @property
    def rms(self) -> float:
        """The root mean square."""
        return (self.squares / self.values) ** 0.5 if self.values else 0.0

    @property
    def loss(self) -> float:
        """The error by FP16's coarse steps relative to the root mean square; ordinary rounding makes 2^-12."""
        return (self.lost_squares / self.squares) ** 0.5 if self.squares else 0.0

    def with_values(self, values: NDArray[np.float32], *, masked: bool = False) -> TensorStats:
        """Return these figures with one more array added."""
        magnitude = np.abs(values.ravel())
        if masked:
            magnitude = magnitude[magnitude < STANDS_FOR_INFINITY]
        non_finite = 0
        if magnitude.size and not np.isfinite(magnitude.max()):
            finite = magnitude[np.isfinite(magnitude)]
            magnitude, non_finite = finite, magnitude.size - finite.size
        small = magnitude[magnitude < SMALLEST_NORMAL]
        small = small[small > 0]
        vanishing = small[small <= VANISHES].astype(np.float64)
        subnormal = small.size - vanishing.size
        smallest = small.min(initial=np.inf) if small.size else magnitude.min(initial=np.inf, where=magnitude > 0)
        with np.errstate(over="ignore"):
            squares = float(np.dot(magnitude, magnitude))
        return replace(
            self,
            values=self.values + magnitude.size + non_finite,
            max_abs=max(self.max_abs, float(magnitude.max(initial=0.0))),
            smallest=min(self.smallest, float(smallest)),
            subnormal=self.subnormal + subnormal,
            vanishing=self.vanishing + vanishing.size,
            non_finite=self.non_finite + non_finite,
            squares=self.squares + squares,
            # Vanishing values are lost completely; the others are rounded to a multiple of the step.
            lost_squares=self.lost_squares + float(vanishing @ vanishing) + subnormal * _STEP**2 / 12,
        )


@dataclass(frozen=True)
class Observation:
    """Figures of all tensors of a graph.

    Attributes:
        stats: figures by name, of constants and intermediates.
        constants: names of the constants.
        hidden_nodes: number of nodes inside If, Loop and Scan, which are not observed.
        untyped: number of tensors whose type cannot be inferred, which are not observed.
        chunks: number of runs that each batch took.
    """

    stats: dict[str, TensorStats]
    constants: frozenset[str]
    hidden_nodes: int
    untyped: int
    chunks: int


def observe(network: Network, view: GraphView, images: Sequence[Path]) -> Observation:
    """Run the FP32 graph on pictures, without any optimisation, and measure every float tensor of its main graph.

    Tensors are read in chunks of ``CHUNK_MIB``, each chunk in a run of its own, so that memory does not grow with the
    number of pictures.
    """
    graph = network.model.graph
    constant_values = dict(_constants(graph, view))
    stats = {name: TensorStats(name).with_values(values, masked=True) for name, values in constant_values.items()}
    constants = frozenset(stats)
    outputs = [name for node in graph.node for name in node.output if name and name not in constants]
    names = [network.image_input, *(name for name in outputs if view.dtype(name) == TensorProto.FLOAT)]
    chunks = list(_chunks(names, view))
    masks, row_axes = _masks(graph, constant_values), _row_axes(graph)
    batches = -(-len(images) // network.shape[0])
    with console.progress() as bar:
        task = bar.add_task("observing", total=len(chunks) * batches)
        # A session for each chunk: outputs that are asked for are kept in memory until the run ends.
        for chunk in chunks:
            session = OrtRunner(network.path, model=with_outputs(network, chunk), optimise=False)
            for _, feed in network.batches(images):
                for name, array in zip(chunk, session.run({network.image_input: feed}).values(), strict=True):
                    values = np.asarray(array, dtype=np.float32)
                    updated = stats.get(name, TensorStats(name)).with_values(values, masked=name in masks)
                    squares = _row_squares(values, row_axes[name]) if name in row_axes else 0.0
                    stats[name] = replace(updated, row_squares=max(updated.row_squares, squares))
                bar.advance(task)
    return Observation(
        {name: found for name, found in stats.items() if found.values},
        constants,
        hidden_nodes=len(view.nodes) - len(graph.node),
        untyped=sum(not view.dtype(name) for name in outputs),
        chunks=len(chunks),
    )


def _row_axes(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the input of each LayerNormalization with the first axis that it takes means over."""
    norms = (node for node in graph.node if node.op_type == "LayerNormalization")
    return {input_name(node, 0): attribute_int(node, "axis", -1) for node in norms}


def _row_squares(values: NDArray[np.float32], axis: int) -> float:
    """Return the largest sum of squared deviations from the mean, over all axes from ``axis`` on."""
    axis %= values.ndim
    rows = values.reshape(prod(values.shape[:axis]), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.nan_to_num(((rows - rows.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)).max(initial=0.0))


def _constants(graph: onnx.GraphProto, view: GraphView) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the FP32 constants of the main graph: initialisers, then Constant nodes."""
    computed = (node.output[0] for node in graph.node if node.op_type == "Constant" and node.output)
    for name in (*(tensor.name for tensor in graph.initializer), *computed):
        values = view.constant(name) if view.dtype(name) == TensorProto.FLOAT else None
        if values is not None:
            yield name, values.astype(np.float32, copy=False)


def _masks(graph: onnx.GraphProto, constants: dict[str, NDArray[np.float32]]) -> set[str]:
    """Return the tensors into which a constant mask (1e9 and more, or infinite) is added, selected or moved.

    A mask value means "never", and 65504 means the same in FP16.
    """
    with np.errstate(invalid="ignore"):
        masks = {name for name, values in constants.items() if (np.abs(values) >= STANDS_FOR_INFINITY).any()}
    for node in graph.node:
        if (node.op_type in MOVES_ONLY or node.op_type in ("Add", "Sub")) and masks & set(node.input):
            masks |= set(node.output)
    return masks


def _chunks(names: list[str], view: GraphView) -> Iterator[list[str]]:
    """Yield the names in order, in groups of at most ``CHUNK_MIB`` of FP32 values."""
    chunk: list[str] = []
    size = 0
    for name in names:
        dims = view.shape(name)
        # A tensor of unknown shape gets a chunk of its own.
        nbytes = 4 * prod(d or 1 for d in dims) if dims is not None and is_static(dims) else CHUNK_MIB * MIB
        if chunk and size + nbytes > CHUNK_MIB * MIB:
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += nbytes
    if chunk:
        yield chunk


def with_outputs(network: Network, names: list[str]) -> onnx.ModelProto:
    """Return a copy of the graph up to the last of the named tensors, with these as its outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    graph = model.graph
    wanted = set(names)
    last = max((i for i, node in enumerate(graph.node) if wanted & set(node.output)), default=-1)
    del graph.node[last + 1 :]
    del graph.output[:]
    for name in names:
        value = graph.output.add()
        value.name = name
        if name == network.image_input:  # an input cannot be an output
            value.name = f"{name}/observed"
            graph.node.append(NodeProto(op_type="Identity", input=[name], output=[value.name]))
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model
