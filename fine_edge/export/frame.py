"""Preprocessing as a part of the graph: a network takes a camera's frame, and its boxes are pixels of that frame.

The added nodes stand in the scope ``/preprocess/``:

    frame (B, H, W, 3) uint8 -> Cast -> resize -> Pad -> colour -> images (B, 3, H', W') -> the network
    boxes_xyxy in pixels of the input -> minus the padding, divided by the scale, clipped -> in pixels of the frame

They compute what :func:`fine_edge.preprocess.preprocess` does. With antialiasing, each pass is rounded to levels as
Pillow does it, so that the network sees what it was trained on. In FP32 a value is within one level of 255 of the
reference's, and hardly any differs; in FP16 within two.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from fine_edge.errors import ConfigError
from fine_edge.export.frame_resize import Nodes, resize
from fine_edge.preprocess import InGraph, Placement, Preprocessing, placed

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
