"""DeepStream as its documents and the parser's source say it works: nvinfer's preprocessing, NvDsInferParseYolo."""

from __future__ import annotations

import configparser
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def read_config(path: Path) -> dict[str, dict[str, str]]:
    """The key file, its keys as they are written."""
    parser = configparser.ConfigParser(delimiters=("=",), comment_prefixes=("#",), interpolation=None)
    parser.optionxform = str
    parser.read_string(path.read_text(encoding="utf-8"))
    return {name: dict(parser[name]) for name in parser.sections()}


def detect(folder: Path, pixels: np.ndarray) -> list[tuple[int, float, list[float]]]:
    """Label, score and box in pixels of the picture, as the metadata of a frame would hold them, best first."""
    config = read_config(folder / "config_infer_primary.txt")
    keys, threshold = config["property"], float(config["class-attrs-all"]["pre-cluster-threshold"])
    channels, height, width = map(int, keys["infer-dims"].split(";"))
    assert (channels, keys["model-color-format"], keys["cluster-mode"]) == (3, "0", "4")
    picture_height, picture_width = pixels.shape[:2]
    scale_x, scale_y = width / picture_width, height / picture_height
    left = top = 0
    new_height, new_width = height, width
    if keys["maintain-aspect-ratio"] == "1":
        scale_x = scale_y = min(scale_x, scale_y)
        new_height, new_width = round(picture_height * scale_y), round(picture_width * scale_x)
        if keys["symmetric-padding"] == "1":
            top, left = (height - new_height) // 2, (width - new_width) // 2
    canvas = np.zeros((height, width, 3), np.float32)
    resized = Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BILINEAR)
    canvas[top : top + new_height, left : left + new_width] = resized
    offsets = np.array([float(value) for value in keys["offsets"].split(";")], np.float32)
    blob = np.float32(keys["net-scale-factor"]) * (canvas - offsets)
    session = onnxruntime.InferenceSession(folder / keys["onnx-file"], providers=["CPUExecutionProvider"])
    batch = np.repeat(blob.transpose(2, 0, 1)[None], int(keys["batch-size"]), axis=0)
    (output,) = session.run(None, {session.get_inputs()[0].name: batch})
    found = []
    for x0, y0, x1, y1, score, label in output[0].astype(np.float64):
        assert 0 <= int(label) < int(keys["num-detected-classes"])  # the parser indexes an array by it
        if score < threshold:
            continue
        x0, x1 = np.clip([x0, x1], 0, width)
        y0, y1 = np.clip([y0, y1], 0, height)
        if x1 - x0 >= 1 and y1 - y0 >= 1:
            box = [(x0 - left) / scale_x, (y0 - top) / scale_y, (x1 - left) / scale_x, (y1 - top) / scale_y]
            limits = [picture_width, picture_height] * 2
            found.append((int(label), score, np.clip(box, 0, limits).tolist()))
    return sorted(found, key=lambda row: -row[1])
