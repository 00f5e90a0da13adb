"""What Isaac ROS's nodes give with the files equals what this program finds: the nodes are written by their source."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from responsive import IMAGENET, assert_same, predicted, write_responsive
from skimage import data

from fine_edge.cli.deploy import main
from fine_edge.contract import bound_contract
from fine_edge.errors import ConfigError
from fine_edge.preprocess import Preprocessing

PHOTOGRAPH = data.astronaut()[:360]  # 512 x 360
CAMERA = "512x360"


def read_nodes(folder):
    """Plugin -> parameters of ``nodes.yaml``, whose values are JSON; in the order of the file."""
    nodes = {}
    section = ""
    for line in (folder / "nodes.yaml").read_text().splitlines()[1:]:
        key, _, value = line.strip().removeprefix("- ").partition(": ")
        if key == "plugin":
            plugin = json.loads(value).split("::")[-1]
            nodes[plugin] = {}
        elif not line.startswith("      "):
            section = key
        elif section == "parameters:":
            nodes[plugin][key] = json.loads(value)
    return nodes


def detect(folder, pixels):
    """Label, score and box of each Detection2D, best first: nodes in their order, the decoder's comparison."""
    nodes = read_nodes(folder)
    resize, encode = nodes["ResizeNode"], nodes["ImageToTensorNode"]
    assert (resize["input_width"], resize["input_height"]) == (pixels.shape[1], pixels.shape[0])
    width, height = resize["output_width"], resize["output_height"]
    picture = Image.fromarray(pixels)
    if resize["keep_aspect_ratio"]:
        assert resize["disable_padding"]
        ratio = min(width / pixels.shape[1], height / pixels.shape[0])
        size = int(pixels.shape[1] * ratio), int(pixels.shape[0] * ratio)
        picture = picture.resize(size, Image.Resampling.BILINEAR)
        pad = nodes["PadNode"]
        color = tuple(int(value) for value in pad["border_pixel_color_value"][:3])
        canvas = Image.new("RGB", (pad["output_image_width"], pad["output_image_height"]), color)
        space = width - picture.width, height - picture.height
        canvas.paste(picture, (space[0] // 2, space[1] // 2) if pad["padding_type"] == "CENTER" else (0, 0))
        picture = canvas
    else:
        assert "PadNode" not in nodes
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    tensor = np.asarray(picture, np.float32) * np.float32(1 / 255 if encode["scale"] else 1)
    longer = max(nodes["RtDetrPreprocessorNode"].values())
    network = nodes["TensorRTNode"]
    session = onnxruntime.InferenceSession(folder / network["model_file_path"], providers=["CPUExecutionProvider"])
    feed = dict(
        zip(
            network["input_binding_names"],
            (tensor.transpose(2, 0, 1)[None], np.array([[longer, longer]], np.int64)),
            strict=True,
        )
    )
    labels, boxes, scores = (array.reshape(-1) for array in session.run(network["output_binding_names"], feed))
    assert (labels.dtype, boxes.dtype, scores.dtype) == (np.int64, np.float32, np.float32)
    threshold = nodes["RtDetrDecoderNode"]["confidence_threshold"]
    found = []
    for row, score in enumerate(scores):
        if score > threshold:
            x0, y0, x1, y1 = boxes[4 * row : 4 * row + 4]
            x, y, w, h = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0  # what Detection2D holds
            found.append((int(labels[row]), score, [x - w / 2, y - h / 2, x + w / 2, y + h / 2]))
    return sorted(found, key=lambda row: -row[1])


def deployed(path, folder, *more):
    assert main(["isaac-ros", str(path), "--out", str(folder), "--camera", CAMERA, "--threshold", "0.3", *more]) == 0
    return folder / "tiny"


@pytest.mark.parametrize(
    ("how", "first"),
    [
        (Preprocessing(), "ReduceMean"),
        (Preprocessing(**IMAGENET), "Mul"),
        (Preprocessing("letterbox", pad_value=114), "ReduceMean"),
        (Preprocessing("letterbox", pad_value=7, align="center", scale=1.0, **IMAGENET), "Mul"),
    ],
    ids=["stretched", "normalised", "padded below", "padded around"],
)
def test_the_nodes_find_what_predict_finds(tmp_path, how, first):
    path = write_responsive(tmp_path, how)
    folder = deployed(path, tmp_path / "out")
    assert_same(detect(folder, PHOTOGRAPH), predicted(path, PHOTOGRAPH, 0.3))
    contract, artifact = bound_contract(folder / "tiny.onnx")
    described = [(spec.name, spec.dtype, spec.shape) for spec in contract.inputs + contract.outputs]
    assert described == [
        ("images", "float32", (1, 3, 64, 64)),
        ("orig_target_sizes", "int64", (1, 2)),
        ("labels", "int64", (1, 3)),
        ("boxes", "float32", (1, 3, 4)),
        ("scores", "float32", (1, 3)),
    ]
    session = onnxruntime.InferenceSession(folder / "tiny.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["images", "orig_target_sizes"]
    assert artifact.file == "tiny.onnx"
    nodes = [node.op_type for node in onnx.load(folder / "tiny.onnx").graph.node]
    assert nodes[0] == first  # nothing is computed where the scale of Isaac's tensor is the model's own


def test_another_size_of_the_same_shape_scales_the_boxes(tmp_path):
    path = write_responsive(tmp_path, Preprocessing())
    folder = deployed(path, tmp_path / "out")
    session = onnxruntime.InferenceSession(folder / "tiny.onnx", providers=["CPUExecutionProvider"])
    images = np.zeros((1, 3, 64, 64), np.float32)
    (own,), (half,) = (
        session.run(["boxes"], {"images": images, "orig_target_sizes": np.array([[side, side]])}) for side in (512, 256)
    )
    np.testing.assert_allclose(own[0, 0], [0, 0, 256, 360])
    np.testing.assert_allclose(half, own / 2)


@pytest.mark.host
def test_the_files_are_yaml_and_python(tmp_path):
    """YAML is transformers' dependency, so it is where torch is."""
    import yaml

    path = write_responsive(tmp_path, Preprocessing("letterbox", pad_value=114))
    folder = deployed(path, tmp_path / "out")
    nodes = yaml.safe_load((folder / "nodes.yaml").read_text())["nodes"]
    assert {node["plugin"].split("::")[-1]: node["parameters"] for node in nodes} == read_nodes(folder)
    # Each topic that a node reads is what one before it writes, the first is the camera's.
    assert [node["remappings"].get("image", "") for node in nodes[:3]] == ["image_rect", "resize/image", "image_rgb"]
    assert nodes[2]["remappings"]["image_raw"] == "padded_image"
    compile((folder / "detect.launch.py").read_text(), "detect.launch.py", "exec")


@pytest.mark.parametrize("camera", ["1920", "0x10", "1921x1080", "99999x2", "axb", "1920x-2"])
def test_an_impossible_camera_is_one_line(tmp_path, camera):
    path = write_responsive(tmp_path, Preprocessing())
    with pytest.raises(ConfigError, match="--camera"):
        main(["isaac-ros", str(path), "--out", str(tmp_path / "out"), "--camera", camera])
    assert not (tmp_path / "out").exists()
