"""A small detector of convolutions, made by hand, with pictures for it: no torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from graph_builders import model, node, value
from onnx import TensorProto as T
from onnx import numpy_helper
from PIL import Image

from fine_edge.contract import Artifact, Contract, TensorSpec, contract_path, read_contract
from fine_edge.files import sha256_of
from fine_edge.preprocess import Preprocessing

SIZE, CHANNELS, QUERIES, CLASSES = 32, 16, 8, 3
# The stem has too few channels for INT8; what is in front of the outputs is a matrix product.
STEM, FIRST, SECOND, NECK = (
    f"/detector/{scope}/Conv" for scope in ("backbone.0", "backbone.1", "backbone.2", "encoder.0")
)


def graph(*, opset=18, wild=0.0):
    """Stem -> two convolutions with what the stem gave added -> neck -> pooled colours -> logits and boxes.

    ``wild`` makes one channel of the stem that much larger than the others, so that INT8 loses the others.
    """
    rng = np.random.default_rng(3)

    def weights(out, into, side):
        return (rng.normal(size=(out, into, side, side)) * (2 / (into * side * side)) ** 0.5).astype(np.float32)

    stem = weights(CHANNELS, 3, 3)
    stem[0] *= 1 + wild
    constants = {
        "stem": stem,
        "first": weights(CHANNELS, CHANNELS, 3),
        "second": weights(CHANNELS, CHANNELS, 3),
        "neck": weights(CHANNELS, CHANNELS, 1),
        "bias": (rng.normal(size=CHANNELS) * 0.1).astype(np.float32),
        "flat": np.array([1, CHANNELS]),
        "to_logits": (rng.normal(size=(CHANNELS, QUERIES * CLASSES)) * 2).astype(np.float32),
        "to_boxes": rng.normal(size=(CHANNELS, QUERIES * 4)).astype(np.float32),
        "queries_classes": np.array([1, QUERIES, CLASSES]),
        "queries_boxes": np.array([1, QUERIES, 4]),
    }
    nodes = [
        node("Conv", ["images", "stem", "bias"], ["c0"], name=STEM, pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["c0"], ["r0"], name="/detector/backbone.0/Relu"),
        node("Conv", ["r0", "first", "bias"], ["c1"], name=FIRST, pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], name="/detector/backbone.1/Relu"),
        node("Conv", ["r1", "second", "bias"], ["c2"], name=SECOND, pads=[1] * 4),
        node("Add", ["c2", "r0"], ["sum"], name="/detector/backbone.2/Add"),
        node("Relu", ["sum"], ["r2"], name="/detector/backbone.2/Relu"),
        node("MaxPool", ["r2"], ["pooled"], name="/detector/encoder/MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["pooled", "neck", "bias"], ["c3"], name=NECK),
        node("Relu", ["c3"], ["r3"], name="/detector/encoder/Relu"),
        node("GlobalAveragePool", ["r3"], ["means"], name="/detector/decoder/GlobalAveragePool"),
        node("Reshape", ["means", "flat"], ["features"], name="/detector/decoder/Reshape"),
        node("MatMul", ["features", "to_logits"], ["flat_logits"], name="/detector/classes/MatMul"),
        node("Reshape", ["flat_logits", "queries_classes"], ["logits"], name="/detector/classes/Reshape"),
        node("MatMul", ["features", "to_boxes"], ["flat_boxes"], name="/detector/decoder/MatMul"),
        node("Reshape", ["flat_boxes", "queries_boxes"], ["box_logits"], name="/detector/decoder/Reshape_1"),
        node("Sigmoid", ["box_logits"], ["boxes"], name="/detector/refine/Sigmoid"),
    ]
    outputs = [value("logits", T.FLOAT, (1, QUERIES, CLASSES)), value("boxes", T.FLOAT, (1, QUERIES, 4))]
    return model(nodes, [value("images", T.FLOAT, (1, 3, SIZE, SIZE))], outputs, constants, opset=opset)


def write_semantic(folder):
    """The same backbone and neck with a class for each pixel of the neck's map, and its contract."""
    detector = write(folder)
    made = onnx.load(detector)
    neck = next(place for place, one in enumerate(made.graph.node) if "r3" in one.output)
    del made.graph.node[neck + 1 :]
    to_classes = np.random.default_rng(5).normal(size=(CLASSES, CHANNELS, 1, 1)).astype(np.float32)
    made.graph.initializer.append(numpy_helper.from_array(to_classes, "to_classes"))
    made.graph.node.append(node("Conv", ["r3", "to_classes"], ["levels"], name="/detector/classes/Conv"))
    made.graph.node.append(node("ArgMax", ["levels"], ["classes"], name="/detector/classes/ArgMax", axis=1, keepdims=0))
    del made.graph.output[:]
    made.graph.output.append(value("classes", T.INT64, (1, SIZE // 4, SIZE // 4)))
    onnx.save(made, detector)
    path = contract_path(detector)
    contract = read_contract(path)
    output = TensorSpec("classes", "int64", (1, SIZE // 4, SIZE // 4), "classes")
    artifact = replace(contract.artifacts[0], sha256=sha256_of(detector))
    changed = replace(contract, task="semantic", postprocessed=True, outputs=(output,), artifacts=(artifact,))
    path.write_text(changed.to_text(), encoding="utf-8")
    return detector


def write(folder, *, contract=True, name="small", **options):
    """The detector's file, with its contract."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.onnx"
    onnx.save(graph(**options), path)
    if contract:
        shapes = {"logits": (1, QUERIES, CLASSES), "boxes": (1, QUERIES, 4)}
        vouched = Contract(
            model=name,
            artifacts=(Artifact(path.name, "fp32", sha256_of(path)),),
            inputs=(TensorSpec("images", "float32", (1, 3, SIZE, SIZE), "pictures"),),
            outputs=tuple(TensorSpec(key, "float32", shape, key) for key, shape in shapes.items()),
            preprocessing=Preprocessing(),
            postprocessed=False,
            labels=("cat", "dog", "owl"),
            opset=18,
            cost={},
            golden={},
            made_by={"weights": {"source": "random", "seed": 0}, "options": {"raw": True}},
        )
        contract_path(path).write_text(vouched.to_text(), encoding="utf-8")
    return path


def pictures(folder, count=10):
    """Coloured gradients that differ."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:SIZE, :SIZE]
    for index in range(count):
        pixels = np.stack([x * 7, y * 8 - 9 * index, (x + y) * 2 + 11 * index], axis=2).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"picture{index:02}.png")
    return folder
