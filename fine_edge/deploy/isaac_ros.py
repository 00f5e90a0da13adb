"""Isaac ROS: a graph with the tensors of its RT-DETR nodes, and the nodes with their values as a launch file.

Source: the public repository NVIDIA-ISAAC-ROS/isaac_ros_object_detection, ``isaac_ros_rtdetr``. Its preprocessor gives
``images`` (1, 3, H, W) float32 and ``orig_target_sizes`` (1, 2) int64, both of them the camera's longer side; its
decoder reads ``labels`` int64, ``boxes`` float32, x0, y0, x1, y1 in pixels of the camera's picture, and ``scores``
float32, and keeps what scores more than its threshold. The parameters of the other nodes: isaac_ros_image_proc
(ResizeNode, PadNode) and isaac_ros_tensor_proc (ImageToTensorNode) of Isaac ROS's documentation.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fine_edge.contract import TensorSpec
from fine_edge.deploy.deployable import Deployable, require_boxes, require_one_picture, rows_of
from fine_edge.deploy.folder import Deployment, heading, label_lines, settings_of
from fine_edge.deploy.rewrite import Rewriting, contract_file
from fine_edge.errors import ConfigError
from fine_edge.preprocess import Placement, Preprocessing, preprocess

# Names of the tensors that the nodes exchange.
IMAGES, SIZES = "images", "orig_target_sizes"
LABELS, BOXES, SCORES = "labels", "boxes", "scores"
NODES = "nodes.yaml"
LAUNCH = "detect.launch.py"
_CONSUMER = "Isaac ROS's RT-DETR node"
# Beyond any camera. The size becomes an array of pixels below, so that it must have a limit.
_MOST_CAMERA_PX = 2**14


def deploy(source: Deployable, name: str, *, camera_wh: tuple[int, int], threshold: float = 0.5) -> Deployment:
    """Return the files for Isaac ROS.

    Args:
        source: an ONNX file of a detector.
        name: of the folder.
        camera_wh: width and height of the camera's pictures, pixels, which the boxes are scaled back to.
        threshold: a detection scores more than this.

    Raises:
        ConfigError: when the nodes cannot carry what the artifact takes or finds, or the camera's size is impossible.
    """
    require_boxes(source, _CONSUMER)
    require_one_picture(source, _CONSUMER)
    width, height = camera_wh
    if not all(0 < side <= _MOST_CAMERA_PX and side % 2 == 0 for side in camera_wh):
        hint = f"even numbers up to {_MOST_CAMERA_PX}, as 1920x1080"
        raise ConfigError(f"{width}x{height} is no size that Isaac ROS's nodes take", where="--camera", hint=hint)
    contract, file = source.contract, f"{name}.onnx"
    graph = Rewriting(source, [IMAGES, SIZES, LABELS, BOXES, SCORES])
    how = contract.preprocessing
    # ImageToTensorNode divides levels by 255 and does no more; mean and std are the graph's.
    graph.take(IMAGES, replace(how, scale=1 / 255, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    inputs, outputs = _tensors(source)
    graph.add_input(inputs[1])
    # The same function that places pictures everywhere: the boxes are scaled back by what it gives for a picture of
    # this size.
    _, placement = preprocess(np.zeros((height, width, 3), np.uint8), *contract.input_hw, how)
    _append_outputs(graph, placement)
    onnx, described = graph.finish(inputs, outputs, file)
    files: dict[str, bytes | Path] = {
        file: onnx,
        contract_file(file): described.encode(),
        "labels.txt": label_lines(source),
        NODES: _yaml(_nodes(source, camera_wh, file, threshold)).encode(),
        LAUNCH: _LAUNCH.encode(),
        "README.md": _readme(source, name, camera_wh).encode(),
    }
    settings = {
        **settings_of(source),
        "preprocessing": graph.preprocessing.to_json(),
        "camera_wh": list(camera_wh),
        "threshold": threshold,
    }
    return Deployment("isaac-ros", name, files, settings, _notes(how))


def _tensors(source: Deployable) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    image = source.contract.inputs[0]
    rows = rows_of(source)
    inputs = (
        TensorSpec(IMAGES, "float32", image.shape, "RGB, levels divided by 255"),
        TensorSpec(SIZES, "int64", (1, 2), "the camera's longer side, twice, pixels"),
    )
    outputs = (
        TensorSpec(LABELS, "int64", (1, rows), "class of each row"),
        TensorSpec(BOXES, "float32", (1, rows, 4), "x0, y0, x1, y1 in pixels of the camera's picture"),
        TensorSpec(SCORES, "float32", (1, rows), "score of each row; 0 where nothing was found"),
    )
    return inputs, outputs


def _append_outputs(graph: Rewriting, placement: Placement) -> None:
    """Append labels, scores, and boxes scaled back to the camera's picture, clipped to it."""
    # The decoder's types are fixed, and graphs may give others, such as scores in FP16.
    graph.cast(graph.inner("labels"), "int64", LABELS)
    graph.cast(graph.inner("scores"), "float32", SCORES)
    # Input pixel = picture pixel * scale + offset, turned around, and one product in place of a division.
    offset = np.array([placement.left, placement.top] * 2)
    factor = 1 / np.array([placement.scale_x, placement.scale_y] * 2)
    limit = np.array([placement.width, placement.height] * 2)
    boxes = graph.cast(graph.inner("boxes_xyxy"), "float32")  # (1, N, 4)
    # Without padding above and on the left there is nothing to subtract: a node less.
    if offset.any():
        boxes = graph.node("Sub", [boxes, graph.constant(offset.reshape(1, 1, 4))])
    boxes = graph.node("Mul", [boxes, graph.constant(factor.reshape(1, 1, 4))])
    boxes = graph.node("Max", [boxes, graph.constant(np.zeros((1, 1, 4)))])
    boxes = graph.node("Min", [boxes, graph.constant(limit.reshape(1, 1, 4))])
    # 1 with Isaac's preprocessor, which gives the longer side; another size of the same shape scales the boxes.
    longer = graph.constant(max(placement.width, placement.height))
    sizes = graph.node("Div", [graph.cast(SIZES, "float32"), longer])  # (1, 2)
    sizes = graph.node("Concat", [sizes, sizes], axis=1)  # (1, 4)
    sizes = graph.node("Unsqueeze", [sizes, graph.constant([1], dtype=int)])  # (1, 1, 4)
    graph.node("Mul", [boxes, sizes], BOXES)


def _padding_rgb(how: Preprocessing) -> list[float]:
    """Return the level that the picture is padded with, by channel; zeros behind the normalisation are the mean."""
    if how.pad_value is not None:
        return [float(how.pad_value)] * 3
    return [float(min(max(round(mean / how.scale), 0), 255)) for mean in how.mean]


def _notes(how: Preprocessing) -> tuple[str, ...]:
    notes = ["Isaac ROS resizes by its own filter: pixels differ from this program's, and scores a little with them"]
    if how.resize == "letterbox" and how.pad_value is None:
        notes.append("the padding is rounded to a level of 8 bits: up to half a level from the model's own")
    return tuple(notes)


def _node(name: str, package: str, plugin: str, parameters: dict[str, Any], **remappings: str) -> dict[str, Any]:
    return {
        "name": name,
        "package": package,
        "plugin": f"nvidia::isaac_ros::{plugin}",
        "parameters": parameters,
        "remappings": remappings,
    }


def _nodes(source: Deployable, camera_wh: tuple[int, int], onnx: str, threshold: float) -> list[dict[str, Any]]:
    """Return the nodes from the camera's rectified picture to detections, in that order."""
    height, width = source.contract.input_hw
    how = source.contract.preprocessing
    # ResizeNode keeps the picture's shape and leaves the padding to PadNode, which has the model's level and sides.
    keeps = how.resize == "letterbox"
    image, tensor = "isaac_ros_image_proc", "isaac_ros_tensor_proc"
    resize = {
        "input_width": camera_wh[0],
        "input_height": camera_wh[1],
        "output_width": width,
        "output_height": height,
        "keep_aspect_ratio": keeps,
        "disable_padding": keeps,
        "encoding_desired": "rgb8",
    }
    pad = {
        "output_image_width": width,
        "output_image_height": height,
        "padding_type": "CENTER" if how.align == "center" else "BOTTOM_RIGHT",
        "border_type": "CONSTANT",
        # Red, green, blue and alpha.
        "border_pixel_color_value": [*_padding_rgb(how), 255.0],
    }
    size = {"image_width": width, "image_height": height, "encoding_desired": "rgb8"}
    reshape = {
        "output_tensor_name": "input_tensor",
        "input_tensor_layout": "CHW",
        "output_tensor_layout": "NCHW",
        "input_tensor_shape": [3, height, width],
        "output_tensor_shape": [1, 3, height, width],
    }
    network = {
        "model_file_path": onnx,
        "engine_file_path": f"{onnx.removesuffix('.onnx')}.plan",
        "input_tensor_names": [IMAGES, SIZES],
        "input_binding_names": [IMAGES, SIZES],
        "output_tensor_names": [LABELS, BOXES, SCORES],
        "output_binding_names": [LABELS, BOXES, SCORES],
        "verbose": False,
        "force_engine_update": False,
        "enable_fp16": source.precision == "fp16",  # on unless it is told otherwise
    }
    resized = "padded_image" if keeps else "resize/image"
    # The preprocessor gives the longer of the two as orig_target_sizes.
    camera = {"image_width": camera_wh[0], "image_height": camera_wh[1]}
    return [
        _node("resize", image, "image_proc::ResizeNode", resize, image="image_rect", camera_info="camera_info_rect"),
        *([_node("pad", image, "image_proc::PadNode", pad, image="resize/image")] if keeps else []),
        _node("format", image, "image_proc::ImageFormatConverterNode", size, image_raw=resized, image="image_rgb"),
        _node(
            "to_tensor",
            tensor,
            "dnn_inference::ImageToTensorNode",
            {"scale": True, "tensor_name": "image"},
            image="image_rgb",
            tensor="scaled_tensor",
        ),
        _node(
            "to_planes",
            tensor,
            "dnn_inference::InterleavedToPlanarNode",
            {"input_tensor_shape": [height, width, 3]},
            interleaved_tensor="scaled_tensor",
        ),
        _node("reshape", tensor, "dnn_inference::ReshapeNode", reshape, tensor="planar_tensor"),
        _node(
            "rtdetr_preprocessor",
            "isaac_ros_rtdetr",
            "rtdetr::RtDetrPreprocessorNode",
            camera,
            encoded_tensor="reshaped_tensor",
        ),
        _node("tensor_rt", "isaac_ros_tensor_rt", "dnn_inference::TensorRTNode", network),
        _node(
            "rtdetr_decoder",
            "isaac_ros_rtdetr",
            "rtdetr::RtDetrDecoderNode",
            {"confidence_threshold": threshold},
        ),
    ]


def _yaml(nodes: list[dict[str, Any]]) -> str:
    """Return nodes as YAML: one key a line, its value as JSON, which YAML contains."""
    # Written by hand: no YAML library is needed here, and a value that is JSON needs no quoting rules of YAML.
    lines = ["nodes:"]
    for node in nodes:
        for number, (key, value) in enumerate(node.items()):
            head = "  - " if number == 0 else "    "
            if not isinstance(value, dict) or not value:
                lines.append(f"{head}{key}: {json.dumps(value)}")
                continue
            lines.append(f"{head}{key}:")
            lines += [f"      {name}: {json.dumps(item)}" for name, item in value.items()]
    return "\n".join(lines) + "\n"


_LAUNCH = f'''"""Start the nodes of {NODES}, which lies beside this file, in one container."""

from pathlib import Path

import yaml
from launch import LaunchDescription
from launch_ros.actions import ComposableNodeContainer
from launch_ros.descriptions import ComposableNode

FOLDER = Path(__file__).resolve().parent


def _node(described):
    parameters = dict(described["parameters"])
    for key in ("model_file_path", "engine_file_path"):
        if key in parameters:
            parameters[key] = str(FOLDER / parameters[key])
    return ComposableNode(
        name=described["name"],
        package=described["package"],
        plugin=described["plugin"],
        parameters=[parameters],
        remappings=list(described["remappings"].items()),
    )


def generate_launch_description():
    nodes = yaml.safe_load((FOLDER / "{NODES}").read_text(encoding="utf-8"))["nodes"]
    container = ComposableNodeContainer(
        name="detector_container",
        namespace="",
        package="rclcpp_components",
        executable="component_container_mt",
        composable_node_descriptions=[_node(node) for node in nodes],
        output="screen",
    )
    return LaunchDescription([container])
'''


def _readme(source: Deployable, name: str, camera_wh: tuple[int, int]) -> str:
    width, height = camera_wh
    strong = ""
    if source.precision == "fp16":
        strong = f""" The node's FP16 may also take in what the file keeps in FP32.
This builds an engine that keeps it: `trtexec --onnx={name}.onnx --stronglyTyped --saveEngine={name}.plan`."""
    notes = "".join(f"- {note}\n" for note in _notes(source.contract.preprocessing))
    return f"""{heading(source, name, "Isaac ROS")}
`ros2 launch {LAUNCH}` in an environment with isaac_ros_rtdetr, isaac_ros_image_proc, isaac_ros_tensor_proc and
isaac_ros_tensor_rt. The first start builds `{name}.plan` for this board in {source.precision.upper()}, which takes
minutes; remove it when the ONNX file is replaced.{strong}

- In: `image_rect` and `camera_info_rect`, {width}x{height}. Another camera needs `fine-edge deploy` again: boxes are
  scaled back to this size inside the graph.
- Out: `detections_output`, vision_msgs/Detection2DArray; `class_id` is the line of `labels.txt`, from 0.
- `{NODES}` holds every value, the threshold of the decoder among them.

What differs from `fine-edge predict`:
{notes}"""
