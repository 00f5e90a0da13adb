"""A detector with a fault of known size planted in it, pictures for it, and graphs as networks: no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from graph_builders import model, node, value
from onnx import TensorProto as T
from PIL import Image

from fine_edge.contract import Artifact, Contract, TensorSpec, contract_path
from fine_edge.files import sha256_of
from fine_edge.fp16.hazards import Evidence
from fine_edge.fp16.network import Network
from fine_edge.fp16.observe import observe
from fine_edge.graph.view import GraphView
from fine_edge.preprocess import Preprocessing

SIZE, QUERIES, CLASSES = 64, 12, 3
GROW, SHRINK = "/detector/encoder/grow/MatMul", "/detector/encoder/shrink/Div"


def pictures(folder, count=3):
    """Coloured gradients: mean colours differ, so that detections do."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        y, x = np.mgrid[:48, :64]
        pixels = np.stack([x * 3, y * 4, x * 0 + 70 * index + 20], axis=2).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"picture{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def detector_graph(peak, divisor, batch, extra):
    """Mean colours c in [0, 1] -> c + 1 -> times ``peak`` (a sum of eight) -> by ``divisor`` -> logits and boxes.

    The two heads undo both factors: whatever ``peak`` is, FP32 finds the same.
    """
    rng = np.random.default_rng(5)
    undo = divisor / peak
    logits = rng.normal(size=(3, QUERIES * CLASSES)) * 2
    boxes = rng.normal(size=(3, QUERIES * 4))
    constants = {
        "flat": np.array([batch, 3]),
        "one": np.ones(1, np.float32),
        "widen": np.repeat(np.eye(3, dtype=np.float32), 8, axis=1),
        "big": np.repeat(np.eye(3) * peak / 8, 8, axis=0).astype(np.float32),
        "divisor": np.float32(divisor),
        "to_logits": (logits * undo).astype(np.float32),
        "to_boxes": (boxes * undo).astype(np.float32),
        "queries_classes": np.array([batch, QUERIES, CLASSES]),
        "queries_boxes": np.array([batch, QUERIES, 4]),
    }
    nodes = [
        node("GlobalAveragePool", ["images"], ["pooled"], name="/detector/backbone/GlobalAveragePool"),
        node("Reshape", ["pooled", "flat"], ["colours"], name="/detector/backbone/Reshape"),
        node("Add", ["colours", "one"], ["features"], name="/detector/backbone/Add"),
        node("MatMul", ["features", "widen"], ["wide"], name="/detector/encoder/MatMul"),
        node("MatMul", ["wide", "big"], ["grown"], name=GROW),
        node("Div", ["grown", "divisor"], ["shrunk"], name=SHRINK),
        *extra,
        node("MatMul", ["shrunk", "to_logits"], ["flat_logits"], name="/detector/classes/MatMul"),
        node("Reshape", ["flat_logits", "queries_classes"], ["logits"], name="/detector/classes/Reshape"),
        node("MatMul", ["shrunk", "to_boxes"], ["flat_boxes"], name="/detector/decoder/MatMul"),
        node("Reshape", ["flat_boxes", "queries_boxes"], ["box_logits"], name="/detector/decoder/Reshape"),
        node("Sigmoid", ["box_logits"], ["boxes"], name="/detector/refine/Sigmoid"),
    ]
    outputs = [value("logits", T.FLOAT, (batch, QUERIES, CLASSES)), value("boxes", T.FLOAT, (batch, QUERIES, 4))]
    return model(nodes, [value("images", T.FLOAT, (batch, 3, SIZE, SIZE))], outputs, constants)


def write_planted(folder, *, peak=2e5, divisor=16384.0, batch=1, extra=(), contract=True, name="planted"):
    """The detector's file, with the contract that vouches for it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    onnx.save(detector_graph(peak, divisor, batch, extra), path)
    if contract:
        vouch(path, batch)
    return path


def vouch(path, batch=1):
    """A contract for a detector's file."""
    shapes = {"logits": (batch, QUERIES, CLASSES), "boxes": (batch, QUERIES, 4)}
    contract = Contract(
        model=path.stem,
        artifacts=(Artifact(path.name, "fp32", sha256_of(path)),),
        inputs=(TensorSpec("images", "float32", (batch, 3, SIZE, SIZE), "pictures"),),
        outputs=tuple(TensorSpec(key, "float32", shape, key) for key, shape in shapes.items()),
        preprocessing=Preprocessing(),
        postprocessed=False,
        labels=("cat", "dog", "owl"),
        opset=17,
        cost={},
        golden={},
        made_by={"weights": {"source": "random", "seed": 0}, "options": {"raw": True}},
    )
    contract_path(path).write_text(contract.to_text(), encoding="utf-8")


def network_of(graph, image_input="x"):
    """A graph that takes one image, as a network without a file."""
    dims = next(value for value in graph.graph.input if value.name == image_input).type.tensor_type.shape.dim
    shape = tuple(dim.dim_value for dim in dims)
    return Network(Path("graph.onnx"), graph, None, image_input, shape, Preprocessing(), "unknown")


def evidence_of(graph, folder, *, box_output="", pixels=0, image_input="x"):
    """What three pictures show of a graph."""
    view = GraphView(graph)
    seen = observe(network_of(graph, image_input), view, pictures(folder))
    return Evidence(view, seen, box_output, pixels)
