"""Graphs that take frames, made without torch: one that shows its preprocessed input, and the tiny detector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_detector import write_detector

from fine_edge.contract import Artifact, TensorSpec, contract_path, read_contract
from fine_edge.export.frame import FRAME, take_frames
from fine_edge.files import sha256_of
from fine_edge.preprocess import Color, InGraph, Preprocessing


def shows_its_input(height: int, width: int) -> onnx.ModelProto:
    """Outputs: ``seen``, the preprocessed images; ``boxes_xyxy``, one from beyond the left edge to the middle."""
    box = np.array([[[-9, 0, width / 2, height / 2]]], np.float32)
    values = {"images": (1, 3, height, width), "seen": (1, 3, height, width), "boxes_xyxy": box.shape}
    infos = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in values.items()
    }
    nodes = [
        helper.make_node("Identity", ["images"], ["seen"], "/detector/backbone/Identity"),
        helper.make_node("Constant", [], ["boxes_xyxy"], "/Constant", value=numpy_helper.from_array(box)),
    ]
    graph = helper.make_graph(nodes, "shows", [infos.pop("images")], list(infos.values()))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def write_framed_detector(folder: Path, frame_hw: tuple[int, int], color: Color = "RGB", *, name: str = "tiny") -> Path:
    """The tiny detector behind a letterbox of frames, with its contract."""
    path = write_detector(folder, name=name)
    contract = read_contract(contract_path(path))
    how = Preprocessing("letterbox", in_graph=InGraph(color, *contract.input_hw))
    onnx.save(take_frames(onnx.load(path), how, frame_hw), path)
    framed = replace(
        contract,
        artifacts=(Artifact(path.name, "fp32", sha256_of(path)),),
        inputs=(TensorSpec(FRAME, "uint8", (1, *frame_hw, 3), "frames"),),
        preprocessing=how,
    )
    contract_path(path).write_text(framed.to_text(), encoding="utf-8")
    return path
