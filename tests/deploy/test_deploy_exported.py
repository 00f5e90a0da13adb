"""An RT-DETR with FINE as it is exported, in both precisions, through DeepStream's and Isaac ROS's files."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from nvinfer import detect
from responsive import predicted
from skimage import data

from fine_edge.cli.deploy import main
from fine_edge.contract import bound_contract
from fine_edge.detections import Detections, agree
from fine_edge.export.request import ExportRequest
from fine_edge.graph.checks import check
from fine_edge.parity.report import TOLERANCES
from fine_edge.preprocess import preprocess

PHOTOGRAPHS = (data.astronaut()[:360], data.coffee())
pytestmark = [pytest.mark.host, pytest.mark.slow]  # it exports
THRESHOLD = 0.02  # of random weights


def detections(rows):
    labels, scores, boxes = zip(*rows, strict=True)
    return Detections(np.array(labels), np.array(boxes, np.float32), np.array(scores, np.float32))


def assert_all_found(found, expected, precision):
    """By the tolerances of parity: a consumer's arithmetic moves inputs by a unit in the last place.

    FP16 rounds some of them to the other neighbour, and random weights make much of it.
    """
    tolerance = TOLERANCES[precision]
    seen = agree(detections(expected), detections(found), score_tolerance=tolerance.score)
    assert seen.matched > 200
    assert seen.flipped <= tolerance.flipped * len(expected)
    assert seen.max_score_drift < tolerance.score
    assert seen.max_box_drift_px < tolerance.box_px


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_export_finds_the_same_everywhere(tmp_path, export_store, precision, capsys):
    request = ExportRequest("rtdetr_r18_fine", precision="fp16", height=160, width=160)
    path = export_store.folder_of(request) / f"rtdetr_r18_fine{'.fp16' if precision == 'fp16' else ''}.onnx"
    capsys.readouterr()
    out = ["--out", str(tmp_path), "--threshold", str(THRESHOLD), "--json"]
    assert main(["deepstream", str(path), "--name", "street", *out]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == precision
    rewritten = tmp_path / "street" / "street.onnx"
    own = {finding.rule for finding in check(onnx.load(path), path)}
    assert {finding.rule for finding in check(onnx.load(rewritten), rewritten)} <= own
    for picture in PHOTOGRAPHS:
        assert_all_found(detect(tmp_path / "street", picture), predicted(path, picture, THRESHOLD), precision)

    picture = PHOTOGRAPHS[0]
    camera = ["--camera", f"{picture.shape[1]}x{picture.shape[0]}", "--name", "robot"]
    assert main(["isaac-ros", str(path), *camera, *out]) == 0
    contract, _ = bound_contract(tmp_path / "robot" / "robot.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "robot" / "robot.onnx", providers=["CPUExecutionProvider"])
    images, _ = preprocess(picture, 160, 160, contract.preprocessing)
    sizes = np.full((1, 2), max(picture.shape[:2]), np.int64)
    labels, boxes, scores = session.run(None, {"images": images, "orig_target_sizes": sizes})
    found = [
        (int(label), float(score), box.tolist())
        for label, score, box in zip(labels[0], scores[0], boxes[0], strict=True)
        if score > THRESHOLD
    ]
    assert_all_found(found, predicted(path, picture, THRESHOLD), precision)
