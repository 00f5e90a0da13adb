"""Compute the work of every ONNX node from its shapes.

There are five kinds of work, because the board does each in another way: matrix products (tensor cores), plain
arithmetic and exponentials (CUDA cores and special-function units), gates (sigmoids behind a convolution), gathers
(scattered reads), and selections of the largest (one multiprocessor for each row).
A multiply-accumulate is two FLOPs, as in the paper's figures of RT-DETR and YOLO.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

from onnx import NodeProto, TensorProto

from fine_edge.graph.view import GraphView, attribute_int, input_name, is_static, label, output_name

# Smallest amount that a GPU fetches for one scattered element (CUDA C++ Best Practices Guide, coalesced access).
SECTOR_BYTES = 32

# Number of special-function results for one element; plain instructions are counted separately.
_SPECIAL = {"Tanh": 2, "Erf": 2, "Exp": 1, "Log": 1, "Sqrt": 1, "Softmax": 1}
# Activations between convolutions, which cost a board far more than their instructions: TensorRT keeps part of them
# apart from the convolution, and convolutions that hold one are slower.
_GATES = ("Sigmoid", "Softplus", "Mish", "Swish")
# A softmax finds the largest, subtracts, scales, sums, divides and rounds.
_PLAIN = {"Softmax": 6}
# Operators that only move or rename elements: their bytes are counted with the kernels' tensors.
_MOVES = frozenset(
    (
        *("Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Identity", "Pad", "Range", "Reshape"),
        *("Resize", "ScatterElements", "ScatterND", "Shape"),
        *("Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    )
)
# Operators that read more elements than they write.
_REDUCTIONS = ("Reduce", "MaxPool", "AveragePool", "GlobalAveragePool", "ArgMax", "LayerNormalization", "Softmax")
# Operators that are matrix products.
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Bilinear interpolation reads four neighbours.
_CORNERS = 4
# Bytes of an element that a gather reads; other types are taken for FP16.
_WIDTHS: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.INT32: 4,
    TensorProto.INT64: 8,
    TensorProto.INT8: 1,
    TensorProto.BOOL: 1,
}
_NARROW = 2


@dataclass(frozen=True)
class Product:
    """``batch`` matrix products of (rows, depth) by (depth, columns).

    ``int8`` marks those that are multiplied in INT8 in an engine whose other products are in FP16.
    """

    batch: int
    rows: int
    columns: int
    depth: int
    int8: bool = False

    @property
    def flops(self) -> int:
        """Return two FLOPs for every multiply-accumulate."""
        return 2 * self.batch * self.rows * self.columns * self.depth

    @property
    def is_depthwise(self) -> bool:
        """Return whether each channel has its own filter, for which tensor cores are of no use."""
        return self.batch > 1 and self.columns == 1


@dataclass(frozen=True)
class SelectedKernels:
    """The selection of the k largest in each of ``rows`` rows of ``length`` elements."""

    rows: int
    length: int


@dataclass(frozen=True)
class NodeWork:
    """The work of one node.

    Attributes:
        product: its matrix product, if it is one.
        plain: number of instructions of CUDA cores.
        special: number of results of special-function units.
        gates: elements that a sigmoid or the like makes.
        gathered_bytes: bytes of the sectors that its scattered reads fetch.
        selection: its selection of the largest, if it is one.
    """

    product: Product | None = None
    plain: int = 0
    special: int = 0
    gates: int = 0
    gathered_bytes: int = 0
    selection: SelectedKernels | None = None

    @property
    def flops(self) -> int:
        """Return the FLOPs of its matrix product."""
        return self.product.flops if self.product else 0


def node_works(view: GraphView) -> dict[str, NodeWork]:
    """Return the work by node name; nodes that fold into constants or have unknown shapes are left out."""
    found = {}
    for node in view.nodes:
        shape = view.shape(output_name(node))
        if shape is None or not is_static(shape) or view.is_constant(output_name(node)):
            continue
        found[label(node)] = _node_work(view, node, _numbers(shape))
    return found


def graph_flops(works: Mapping[str, NodeWork]) -> int:
    """Return the FLOPs of all matrix products of a graph."""
    return sum(work.flops for work in works.values())


def _node_work(view: GraphView, node: NodeProto, out: tuple[int, ...]) -> NodeWork:
    product = _product(view, node, out)
    if product is not None:
        # Two FLOPs are one fused instruction.
        return NodeWork(product, plain=product.flops // 2 if product.is_depthwise else 0)
    if node.op_type == "GridSample":
        return NodeWork(gathered_bytes=_CORNERS * SECTOR_BYTES * prod(out))
    if node.op_type in ("Gather", "GatherElements", "GatherND"):
        return NodeWork(gathered_bytes=_gathered_bytes(view, node, out))
    if node.op_type == "TopK":
        rows = _numbers(view.shape(input_name(node, 0)))
        length = rows[attribute_int(node, "axis", -1)] if rows else 0
        return NodeWork(selection=SelectedKernels(prod(rows) // length, length) if length else None)
    if node.op_type in _MOVES:
        return NodeWork()
    elements = prod(out)
    if node.op_type in _GATES:
        return NodeWork(plain=elements, gates=elements)
    if node.op_type.startswith(_REDUCTIONS):
        elements = max(elements, prod(_numbers(view.shape(input_name(node, 0)))))
    plain, special = _PLAIN.get(node.op_type, 1), _SPECIAL.get(node.op_type, 0)
    return NodeWork(plain=plain * elements, special=special * elements)


def _gathered_bytes(view: GraphView, node: NodeProto, out: tuple[int, ...]) -> int:
    """Return the bytes of the sectors that a gather fetches, each row once for every index that names it.

    A row is what lies beside each other behind an index. Indices that are constants are a copy, which nothing scatters.
    """
    if view.is_constant(input_name(node, 1)):
        return 0
    table, indices = (view.shape(input_name(node, place)) for place in (0, 1))
    row = prod(_numbers(table)[_behind(node, table or (), indices or ()) :])
    row_bytes = _WIDTHS.get(view.dtype(input_name(node, 0)) or 0, _NARROW) * row
    return prod(out) // max(1, row) * SECTOR_BYTES * ceil(row_bytes / SECTOR_BYTES)


def _behind(node: NodeProto, table: Sequence[int | None], indices: Sequence[int | None]) -> int:
    """Return the first axis of a gather's table that lies behind its indices."""
    if node.op_type == "GatherElements":
        return len(table)
    if node.op_type == "GatherND":
        return attribute_int(node, "batch_dims", 0) + (indices[-1] or 0 if indices else 0)
    return attribute_int(node, "axis", 0) % max(1, len(table)) + 1


def _product(view: GraphView, node: NodeProto, out: tuple[int, ...]) -> Product | None:
    first, second = (_numbers(view.shape(input_name(node, index))) for index in (0, 1))
    if not first or not second:
        return None
    if node.op_type == "Conv":
        groups = attribute_int(node, "group", 1)
        return Product(groups, out[0] * prod(out[2:]), second[0] // groups, prod(second[1:]))
    if node.op_type == "ConvTranspose":
        groups = attribute_int(node, "group", 1)
        return Product(groups, first[0] * prod(first[2:]), prod(second[1:]), second[0] // groups)
    if node.op_type == "Gemm":
        depth = first[0] if attribute_int(node, "transA", 0) else first[1]
        return Product(1, out[0], out[1], depth)
    if node.op_type == "MatMul" and len(out) >= 2:
        if len(second) == 2:  # all rows of the batch are multiplied by one matrix
            return Product(1, prod(out[:-1]), out[-1], first[-1])
        return Product(prod(out[:-2]), out[-2], out[-1], first[-1])
    return None


def _numbers(shape: tuple[int | None, ...] | None) -> tuple[int, ...]:
    """Return a static shape, or () for any other."""
    return tuple(dim or 0 for dim in shape) if shape and is_static(shape) else ()
