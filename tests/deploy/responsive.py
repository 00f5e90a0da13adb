"""A detector of known boxes whose scores move with its input, and what ``fine-edge predict`` finds with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from tiny_detector import write_detector

from fine_edge.contract import Artifact, contract_path, read_contract
from fine_edge.decode import from_network
from fine_edge.feed import Feed
from fine_edge.files import sha256_of
from fine_edge.preprocess import Preprocessing
from fine_edge.runners.opened import open_onnx

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def write_responsive(folder: Path, how: Preprocessing, **options) -> Path:
    """The tiny detector; each score is its known one and a tenth of the input's mean, so it tells what was fed."""
    path = write_detector(folder, **options)
    model = onnx.load(path)
    zero = next(values for values in model.graph.initializer if values.name == "zero")
    zero.CopyFrom(numpy_helper.from_array(np.float32(0.1), "zero"))
    onnx.save(model, path)
    contract = read_contract(contract_path(path))
    bound = replace(contract, preprocessing=how, artifacts=(Artifact(path.name, "fp32", sha256_of(path)),))
    contract_path(path).write_text(bound.to_text(), encoding="utf-8")
    return path


def predicted(path: Path, pixels: np.ndarray, threshold: float) -> list[tuple[int, float, list[float]]]:
    """Label, score and box of what this program finds by the exact preprocessing, best first."""
    opened = open_onnx(path, rounded=False)
    contract = opened.contract
    tensor, placement = Feed(contract.input_hw, contract.preprocessing, exact=True)(pixels)
    outputs = opened.runner.run({contract.inputs[0].name: np.repeat(tensor, contract.batch, axis=0)})
    found = from_network(outputs, contract, placement, threshold)
    return [
        (int(label), float(score), box.tolist())
        for label, score, box in zip(found.labels, found.scores, found.boxes_xyxy_px, strict=True)
    ]


def assert_same(found, expected, *, score: float = 1e-5, px: float = 0.01) -> None:
    """Both have the same objects in the same order, scores and corners within the tolerances."""
    assert expected
    assert [row[0] for row in found] == [row[0] for row in expected]
    np.testing.assert_allclose([row[1] for row in found], [row[1] for row in expected], atol=score, rtol=0)
    np.testing.assert_allclose([row[2] for row in found], [row[2] for row in expected], atol=px, rtol=0)
