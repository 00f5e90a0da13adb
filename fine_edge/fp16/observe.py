"""Every float tensor of a graph, observed on real pictures: the ranges that FP16 must hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto

from fine_edge import console
from fine_edge.fp16.network import Network
from fine_edge.graph.emulate import MOVES_ONLY
from fine_edge.graph.half_range import STANDS_FOR_INFINITY
from fine_edge.graph.view import GraphView, attribute_int, input_name, tensor_values
from fine_edge.runners.ort import OrtRunner

SMALLEST_NORMAL = 2.0**-14
"""Smallest FP16 number with all 11 bits; below it, numbers are 2^-24 apart (IEEE 754 binary16)."""

VANISHES = 2.0**-25
"""Magnitudes up to this one round to zero."""

CHUNK_MIB = 256
"""Tensors that are held at one time while observing: this many MiB, or one tensor if it alone is larger."""

_STEP = 2.0**-24


@dataclass(frozen=True)
class TensorStats:
    """What a tensor held, over all elements and pictures. Mask values (see ``half_range``) are not counted.

    Attributes:
        tensor: its name.
        values: elements seen.
        max_abs: largest finite magnitude.
        smallest: smallest magnitude that is not zero; infinite when there is none.
        subnormal: elements that FP16 holds with fewer than 11 bits.
        vanishing: elements other than zero that FP16 rounds to zero.
        non_finite: infinities and NaN, in FP32.
        squares: sum of all squares.
        lost_squares: sum of the squared errors that FP16's coarse steps below 6.1e-5 make.
        row_squares: largest sum of squared deviations from the mean over one row, where asked for.
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
        """Root mean square."""
        return (self.squares / self.values) ** 0.5 if self.values else 0.0

    @property
    def loss(self) -> float:
        """Error by FP16's coarse steps, relative to the tensor's root mean square; ordinary rounding is 2^-12."""
        return (self.lost_squares / self.squares) ** 0.5 if self.squares else 0.0

    def with_values(self, values: NDArray[np.float32], *, masked: bool = False) -> TensorStats:
        """These figures with those of one more array."""
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
            # What vanishes is lost whole; the others are rounded to a multiple of the step.
            lost_squares=self.lost_squares + float(vanishing @ vanishing) + subnormal * _STEP**2 / 12,
        )


@dataclass(frozen=True)
class Observation:
    """All tensors of a graph: constants and intermediates by name, and how much of it could not be seen."""

    stats: dict[str, TensorStats]
    constants: frozenset[str]
    hidden_nodes: int
    untyped: int
    chunks: int


def observe(network: Network, view: GraphView, images: Sequence[Path]) -> Observation:
    """Run the FP32 graph on pictures, without any optimisation, and measure every float tensor of its main graph.

    Memory does not grow with the number of pictures: tensors come out in chunks of ``CHUNK_MIB``, each by a run of
    its own.
    """
    graph = network.model.graph
    stats = {name: TensorStats(name).with_values(values, masked=True) for name, values in _constants(network.model)}
    constants = frozenset(stats)
    outputs = [name for node in graph.node for name in node.output if name and name not in constants]
    names = [network.image_input, *(name for name in outputs if view.dtype(name) == TensorProto.FLOAT)]
    chunks = list(_chunks(names, view))
    masks, row_axes = _masks(network.model), _row_axes(graph)
    batches = -(-len(images) // network.shape[0])
    with console.progress() as bar:
        task = bar.add_task("observing", total=len(chunks) * batches)
        for chunk in chunks:
            session = OrtRunner(network.path, model=_with_outputs(network, chunk), optimise=False)
            for _, feed in network.batches(images):
                for name, array in zip(chunk, session.run({network.image_input: feed}).values(), strict=True):
                    values = np.asarray(array, dtype=np.float32)
                    seen = stats.get(name, TensorStats(name)).with_values(values, masked=name in masks)
                    squares = _row_squares(values, row_axes[name]) if name in row_axes else 0.0
                    stats[name] = replace(seen, row_squares=max(seen.row_squares, squares))
                bar.advance(task)
    return Observation(
        {name: found for name, found in stats.items() if found.values},
        constants,
        hidden_nodes=len(view.nodes) - len(graph.node),
        untyped=sum(not view.dtype(name) for name in outputs),
        chunks=len(chunks),
    )


def _row_axes(graph: onnx.GraphProto) -> dict[str, int]:
    """What a LayerNormalization reads, and from which dimension on it takes means."""
    norms = (node for node in graph.node if node.op_type == "LayerNormalization")
    return {input_name(node, 0): attribute_int(node, "axis", -1) for node in norms}


def _row_squares(values: NDArray[np.float32], axis: int) -> float:
    """Largest sum of squared deviations from the mean, over all dimensions from ``axis`` on."""
    axis %= values.ndim
    rows = values.reshape(prod(values.shape[:axis]), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.nan_to_num(((rows - rows.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)).max(initial=0.0))


def _constants(model: onnx.ModelProto) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Float constants of the main graph: initialisers, then Constant nodes."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.type == AttributeProto.TENSOR:
                tensors[node.output[0]] = attribute.t
            elif attribute.name == "value_float":
                yield node.output[0], np.array([attribute.f], dtype=np.float32)
    for name, tensor in tensors.items():
        values = tensor_values(tensor) if tensor.data_type == TensorProto.FLOAT else None
        if values is not None:
            yield name, values.astype(np.float32)


def _masks(model: onnx.ModelProto) -> set[str]:
    """Tensors into which a constant mask (1e9 and more, or infinite) is added, chosen or moved.

    Their mask values mean "never", and say the same at FP16's end of range.
    """
    with np.errstate(invalid="ignore"):
        masks = {name for name, values in _constants(model) if (np.abs(values) >= STANDS_FOR_INFINITY).any()}
    for node in model.graph.node:
        if (node.op_type in MOVES_ONLY or node.op_type in ("Add", "Sub")) and masks & set(node.input):
            masks |= set(node.output)
    return masks


def _chunks(names: list[str], view: GraphView) -> Iterator[list[str]]:
    """Names in order, in groups of at most ``CHUNK_MIB`` of FP32 values."""
    chunk: list[str] = []
    size = 0
    for name in names:
        dims = view.shape(name)
        # A tensor of unknown shape gets a chunk of its own.
        nbytes = 4 * prod(d or 1 for d in dims) if dims is not None and None not in dims else CHUNK_MIB * 2**20
        if chunk and size + nbytes > CHUNK_MIB * 2**20:
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += nbytes
    if chunk:
        yield chunk


def _with_outputs(network: Network, names: list[str]) -> onnx.ModelProto:
    """The graph up to the last of some tensors, with these as its outputs in their order."""
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
        if name == network.image_input:  # an input cannot be an output as well
            value.name = f"{name}/observed"
            graph.node.append(NodeProto(op_type="Identity", input=[name], output=[value.name]))
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model
