"""ultralytics' own ONNX export, the yardstick of ours."""

from __future__ import annotations

import copy
import importlib.util
import shutil
import tempfile
from pathlib import Path

from torch import Tensor

from fine_edge.zoo.onnx_defaults import quiet_exporter
from fine_edge.zoo.yolo.library import DetectionModel, Exporter, quiet
from fine_edge.zoo.yolo.postprocess import ROWS


def export(model: DetectionModel, example: Tensor, path: Path) -> None:
    """Write what ``YOLO.export(format="onnx")`` does for this size, with YOLOv10's NMS-free head where there is one.

    Its defaults otherwise: opset and, where onnxslim is installed, its simplification. Without onnxslim ultralytics
    skips that step with a warning, after having tried to install it; ONNX Runtime's own optimiser then arrives at the
    same operators (counted for YOLOv8-S).
    """
    model = copy.deepcopy(model)  # the exporter fuses it and changes its head
    model.task = "detect"
    options = {
        "format": "onnx",
        "imgsz": list(example.shape[-2:]),
        "batch": example.shape[0],
        "device": "cpu",
        "max_det": ROWS,
        "nms": False,  # the NMS-free head if there is one; nothing for the others
        "simplify": importlib.util.find_spec("onnxslim") is not None,
    }
    with tempfile.TemporaryDirectory(prefix="fine_edge-") as folder, quiet(), quiet_exporter():
        model.pt_path = str(Path(folder) / "model.pt")  # where it puts its file beside
        shutil.copyfile(Exporter(overrides=options)(model), path)
