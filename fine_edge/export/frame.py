"""Preprocessing as a part of the graph: a network takes a camera's frame, and its boxes are pixels of that frame.

The added nodes stand in the scope ``/preprocess/``:

    frame (B, H, W, 3) uint8 -> Cast -> resize -> Pad -> colour -> images (B, 3, H', W') -> the network
    boxes_xyxy in pixels of the input -> minus the padding, divided by the scale, clipped -> in pixels of the frame

They compute what :func:`fine_edge.preprocess.preprocess` does. With antialiasing, each pass is rounded to levels as
Pillow does it, so that the network sees what it was trained on. In FP32 a value is within one level of 255 of the
reference's, and hardly any differs; in FP16 within two.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fine_edge.errors import ConfigError
from fine_edge.fast_preprocess import triangle
from fine_edge.preprocess import InGraph, Placement, Preprocessing, placed

# The resize of :mod:`fine_edge.export.frame` as operators that compile well.
#
# A triangle filter along an axis is a constant matrix, but as a dense product it multiplies by zeros: 8.0 GFLOP for
# 1920 to 640 columns of 1080 rows. Cut into equal blocks of pixels, the axis becomes the channels of a convolution over
# three blocks: 0.9 GFLOP, and frames of interleaved pixels need no transpose before it. Axes that share no such blocks
# with their target stay dense products. Columns come first, as in Pillow; for frames that lie, that is the cheaper
# order. For some that stand Pillow 13 begins with the rows, which rounds one value in six the other way.
#
# Estimated for 1080p to 640x640 on an Orin Nano (MAXN_SUPER): 0.9 ms with antialiasing, 0.1 ms without. Nearly all of
# it is memory: the frame is read once as uint8, and with antialiasing written and read again in FP16.

# Tensor cores take channels in eights.
_FEWEST_CHANNELS = 8


class Nodes:
    """Nodes in a row: each reads what the one before gives, and constants of its own."""

    def __init__(self, source: str, scope: str) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.last = source
        self._scope = scope

    def add(
        self,
        operator: str,
        *constants: NDArray[np.generic] | None,
        label: str = "",
        first: bool = False,
        **attributes: Any,
    ) -> None:
        """Append a node.

        Args:
            operator: its operator.
            constants: its inputs besides what the node before gives; ``None`` for one that is left out.
            label: distinguishes nodes of one operator.
            first: whether the constant comes before that input.
            attributes: of the operator.
        """
        name = f"{self._scope}{operator}{label}"
        inputs = []
        for index, value in enumerate(constants):
            inputs.append("" if value is None else f"{name}.{index}")
            if value is not None:
                self.constants.append(numpy_helper.from_array(value, inputs[-1]))
        order = [*inputs, self.last] if first else [self.last, *inputs]
        self.last = f"{name}.out"
        self.nodes.append(helper.make_node(operator, order, [self.last], name, **attributes))

    def name_last(self, output: str) -> None:
        """Give what the last node returns a name."""
        self.nodes[-1].output[0] = self.last = output


def _matrix(source: int, target: int) -> NDArray[np.float32]:
    """Return the triangle filter of an axis as a matrix (target, source)."""
    matrix = np.zeros((target, source), np.float32)
    for row, tap in zip(matrix, triangle(source, target), strict=True):
        row[tap.begin : tap.end] = tap.weights
    return matrix


def _round(nodes: Nodes, axis: str) -> None:
    """Round to levels, halves up as Pillow does."""
    nodes.add("Add", np.array(0.5, np.float32), label=f"_{axis}")
    nodes.add("Floor", label=f"_{axis}")


@dataclass(frozen=True)
class _Blocks:
    """An axis cut into equal blocks, of which each gives equally many target pixels, by the same weights.

    Attributes:
        source, target: pixels of a block before and after.
        weights: (target, source, 3), of the pixels of the block before, of its own and of the one behind.
        border: (length,) factor of each target pixel. What lies outside of the frame weighs nothing, so that sums at
            the border are divided by the weight that is left.
    """

    source: int
    target: int
    weights: NDArray[np.float32]
    border: NDArray[np.float32]


def _blocks(source: int, target: int) -> _Blocks | None:
    """Cut an axis into blocks; ``None`` where blocks would not be cheaper than the dense product."""
    common = gcd(source, target)
    sizes = (count for count in range(1, common + 1) if common % count == 0)
    count = next((count for count in sizes if target // common * count >= _FEWEST_CHANNELS), common)
    before, after = source // common * count, target // common * count
    number = target // after
    if number < 3 or 9 * before > source:  # a pixel costs 9 products for each of its block, or one for each of the axis
        return None
    padded = np.zeros((after, 3 * before), np.float64)
    middle = number // 2
    for row, tap in zip(padded, triangle(source, target)[middle * after : (middle + 1) * after], strict=True):
        start = (middle - 1) * before
        row[tap.begin - start : tap.end - start] = tap.weights
    border = np.ones((number, after))
    border[0] -= padded[:, :before].sum(axis=1)
    border[-1] -= padded[:, 2 * before :].sum(axis=1)
    weights = padded.reshape(after, 3, before).transpose(0, 2, 1).astype(np.float32)
    return _Blocks(before, after, weights, (1 / border).reshape(target).astype(np.float32))


def _shrink_columns(nodes: Nodes, shape: tuple[int, int, int, int], width: int) -> None:
    """Turn (B, H, W, 3) into (B, 3, H, width)."""
    batch, rows, columns, _ = shape
    blocks = _blocks(columns, width)
    if blocks is None:
        nodes.add("Transpose", perm=[0, 3, 1, 2])
        nodes.add("MatMul", _matrix(columns, width).T.copy(), label="_columns")
        return
    before, after = blocks.source, blocks.target
    weights = np.zeros((3, after, before, 3, 1, 3), np.float32)
    for color in range(3):
        weights[color, :, :, color, 0] = blocks.weights
    nodes.add("Reshape", np.array([batch, rows, width // after, 3 * before]), label="_blocks")
    nodes.add("Transpose", perm=[0, 3, 1, 2], label="_blocks")
    kernel = weights.reshape(3 * after, 3 * before, 1, 3)
    nodes.add("Conv", kernel, label="_columns", kernel_shape=[1, 3], pads=[0, 1, 0, 1])
    nodes.add("Reshape", np.array([batch, 3, after, rows, width // after]), label="_pixels")
    nodes.add("Transpose", perm=[0, 1, 3, 4, 2], label="_pixels")
    nodes.add("Reshape", np.array([batch, 3, rows, width]), label="_columns")
    nodes.add("Mul", blocks.border.reshape(1, 1, 1, width), label="_columns")


def _shrink_rows(nodes: Nodes, shape: tuple[int, int, int, int], height: int) -> None:
    """Turn (B, 3, H, W) into (B, 3, height, W)."""
    batch, _, rows, columns = shape
    blocks = _blocks(rows, height)
    if blocks is None:
        nodes.add("MatMul", _matrix(rows, height), label="_rows", first=True)
        return
    before = blocks.source
    nodes.add("Reshape", np.array([3 * batch, rows // before, before, columns]), label="_row_blocks")
    nodes.add("Transpose", perm=[0, 2, 1, 3], label="_row_blocks")
    kernel = blocks.weights[..., None]
    nodes.add("Conv", kernel, label="_rows", kernel_shape=[3, 1], pads=[1, 0, 1, 0])
    nodes.add("Transpose", perm=[0, 2, 1, 3], label="_rows")
    nodes.add("Reshape", np.array([batch, 3, height, columns]), label="_rows")
    nodes.add("Mul", blocks.border.reshape(1, 1, height, 1), label="_rows")


def resize(nodes: Nodes, shape: tuple[int, int, int, int], height: int, width: int, *, antialias: bool) -> None:
    """Turn (B, H, W, 3) into (B, 3, height, width)."""
    batch, rows, columns, _ = shape
    if not antialias:
        _pick(nodes, shape, height, width)
        return
    if columns == width:
        nodes.add("Transpose", perm=[0, 3, 1, 2])
    else:
        _shrink_columns(nodes, shape, width)
        _round(nodes, "columns")
    if rows != height:
        _shrink_rows(nodes, (batch, 3, rows, width), height)
        _round(nodes, "rows")


def _pick(nodes: Nodes, shape: tuple[int, int, int, int], height: int, width: int) -> None:
    """Resize without antialiasing, from the four nearest pixels."""
    batch, rows, columns, _ = shape
    steps = rows // height, columns // width
    if (rows, columns) == (steps[0] * height, steps[1] * width) and all(step % 2 for step in steps):
        # Every target pixel lies on the middle of one source pixel, as of 1080p at 640: the others are not even read.
        starts = np.array([step // 2 for step in steps])
        nodes.add("Slice", starts, np.array([rows, columns]), np.array([1, 2]), np.array(steps))
        nodes.add("Transpose", perm=[0, 3, 1, 2])
        return
    nodes.add("Transpose", perm=[0, 3, 1, 2])
    if (rows, columns) != (height, width):
        sizes = np.array([batch, 3, height, width])
        nodes.add("Resize", None, None, sizes, mode="linear", coordinate_transformation_mode="half_pixel")


FRAME = "frame"
SCOPE = "/preprocess/"
BOXES_SCOPE = "/preprocess/boxes/"
_BOXES = "boxes_xyxy"


def _color(nodes: Nodes, how: Preprocessing) -> None:
    """Scale, normalise and order the channels: one convolution of 1 x 1, or a product where that is all."""
    inside = how.in_graph
    plain = how.mean == (0.0, 0.0, 0.0) and how.std == (1.0, 1.0, 1.0)
    if plain and (inside is None or inside.color == "RGB"):
        nodes.add("Mul", np.array(how.scale, np.float32), label="_scale")
        return
    factors = how.scale / np.array(how.std)
    weights = np.diag(factors).astype(np.float32)
    if inside and inside.color == "BGR":
        weights = weights[:, ::-1]
    bias = (-np.array(how.mean) / np.array(how.std)).astype(np.float32)
    kernel = np.ascontiguousarray(weights).reshape(3, 3, 1, 1)
    nodes.add("Conv", kernel, bias, label="_color", kernel_shape=[1, 1])


def _pad(nodes: Nodes, placement: Placement, resized_hw: tuple[int, int], how: InGraph, value: float) -> None:
    size_hw = height, width = how.height, how.width
    bottom, right = height - resized_hw[0] - placement.top, width - resized_hw[1] - placement.left
    if resized_hw != size_hw:
        pads = np.array([0, 0, placement.top, placement.left, 0, 0, bottom, right])
        nodes.add("Pad", pads, np.array(value, np.float32), mode="constant")


def _input_nodes(how: Preprocessing, frame_hw: tuple[int, int], batch: int, images: str) -> tuple[Nodes, Placement]:
    inside = how.in_graph
    assert inside is not None
    placement, height, width = placed(frame_hw, inside.height, inside.width, how)
    nodes = Nodes(FRAME, SCOPE)
    nodes.add("Cast", to=TensorProto.FLOAT)  # TensorRT takes UINT8 at inputs, and nothing but a cast reads it
    resize(nodes, (batch, *frame_hw, 3), height, width, antialias=how.antialias)
    if how.pad_value is not None:
        _pad(nodes, placement, (height, width), inside, float(how.pad_value))
    _color(nodes, how)
    if how.pad_value is None:
        _pad(nodes, placement, (height, width), inside, 0.0)
    nodes.name_last(images)
    return nodes, placement


def _box_nodes(placement: Placement) -> Nodes:
    nodes = Nodes(f"{BOXES_SCOPE}input", BOXES_SCOPE)
    offset, scale, limit = (
        np.array([x, y] * 2, np.float32)
        for x, y in (
            (placement.left, placement.top),
            (placement.scale_x, placement.scale_y),
            (placement.width, placement.height),
        )
    )
    nodes.add("Sub", offset)
    nodes.add("Div", scale)
    nodes.add("Max", np.zeros(4, np.float32))
    nodes.add("Min", limit)
    nodes.name_last(_BOXES)
    return nodes


def take_frames(model: onnx.ModelProto, how: Preprocessing, frame_hw: tuple[int, int]) -> onnx.ModelProto:
    """Return a copy of an FP32 detector that takes frames instead of preprocessed pictures.

    Args:
        model: one input (B, 3, H, W), and ``boxes_xyxy`` (B, N, 4) among its outputs.
        how: the preprocessing, with ``in_graph``.
        frame_hw: height and width of the frames, pixels.

    Raises:
        ConfigError: for a graph without boxes in pixels.
    """
    framed = onnx.ModelProto()
    framed.CopyFrom(model)
    graph = framed.graph
    if _BOXES not in {output.name for output in graph.output}:
        raise ConfigError("the graph gives no boxes in pixels", hint="export it without --frame")
    images = graph.input[0]
    batch = images.type.tensor_type.shape.dim[0].dim_value
    before, placement = _input_nodes(how, frame_hw, batch, images.name)
    after = _box_nodes(placement)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{BOXES_SCOPE}input" if name == _BOXES else name for name in names]
    graph.value_info.add().CopyFrom(images)
    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:], graph.input[0]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    graph.input.insert(0, helper.make_tensor_value_info(FRAME, TensorProto.UINT8, [batch, *frame_hw, 3]))
    return framed
