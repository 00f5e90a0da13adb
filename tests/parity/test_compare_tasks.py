"""Outputs other than queries: detections in fewer rows than there are, masks, maps of classes, dense outputs."""

from __future__ import annotations

import numpy as np
import pytest

from fine_edge.cli.parity import table
from fine_edge.contract import Artifact, Contract, TensorSpec
from fine_edge.errors import ArtifactError
from fine_edge.parity.compare import Case, compare
from fine_edge.preprocess import Preprocessing

SIZE = 64


def report(expected, got, *, task="detection", postprocessed=True, precision="fp32"):
    contract = Contract(
        model="tiny",
        artifacts=(Artifact("tiny.onnx", precision, "0"),),
        inputs=(TensorSpec("images", "float32", (1, 3, SIZE, SIZE), "pictures"),),
        outputs=tuple(TensorSpec(name, str(array.dtype), array.shape, name) for name, array in expected.items()),
        preprocessing=Preprocessing(),
        postprocessed=postprocessed,
        labels=tuple("abcde"),
        opset=18,
        cost={},
        golden={},
        made_by={"weights": {"source": "random", "seed": 0}},
        task=task,
    )
    case = Case("street", expected, got)
    return compare(contract, contract.artifacts[0], [case], reference="ours", candidate="theirs")


def instances(found=3, rows=6, seed=0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 30, (rows, 2))
    outputs = {
        "labels": rng.integers(0, 5, (1, rows)),
        "boxes_xyxy": np.hstack([corner, corner + rng.uniform(8, 30, (rows, 2))])[None].astype(np.float32),
        "scores": np.sort(rng.uniform(0.2, 0.9, (1, rows)))[:, ::-1].astype(np.float32),
        "masks": rng.random((1, rows, 28, 28), dtype=np.float32),
    }
    for array in outputs.values():
        array[:, found:] = 0
    return outputs


def test_rows_that_find_nothing_are_not_compared():
    expected, got = instances(), instances()
    got["boxes_xyxy"][0, 3:] = 50.0  # what stands in them does not matter
    found = report(expected, got, task="instance")
    assert found.ok
    assert found.detections.matched == 3
    assert {tensor.output for tensor in found.tensors} == {"boxes_xyxy", "scores", "masks"}


def test_a_lost_detection_is_found():
    found = report(instances(3), instances(2), task="instance")
    assert found.detections.flipped == 1
    assert not found.ok


def test_a_mask_that_changed_is_found():
    expected, got = instances(), instances()
    got["masks"][0, 1, 4, 5] += 0.25
    found = report(expected, got, task="instance")
    assert found.worst.output == "masks"
    assert found.worst.max_abs == pytest.approx(0.25)
    assert found.worst.where == "street, image 0, row (1, 4, 5)"
    assert not found.ok


def test_nothing_on_both_sides_is_no_comparison_and_nothing_against_something_does_not_agree():
    nothing = report(instances(0), instances(0))
    assert (nothing.ok, nothing.detections.matched) == (False, 0)
    assert not report(instances(0), instances(1)).ok
    assert not report(instances(1), instances(0)).ok


def test_maps_of_classes_are_compared_by_the_share_of_pixels():
    expected = {"classes": np.zeros((1, 100, 100), np.int64)}
    got = {"classes": np.zeros((1, 100, 100), np.int64)}
    got["classes"][0, 0, :1] = 3
    found = report(expected, got, task="semantic")
    assert found.detections is None
    assert found.ok
    assert found.tensors[0].max_abs == pytest.approx(1e-4)
    assert found.to_json()["detections"] is None
    assert "Detections" not in " ".join(table(found).notes)
    got["classes"][0, 0, :3] = 3
    assert not report(expected, got, task="semantic").ok
    assert report(expected, got, task="semantic", precision="fp16").ok


def test_dense_outputs_are_compared_place_by_place():
    rng = np.random.default_rng(0)
    expected = {"predictions": rng.random((1, 9, 30), dtype=np.float32)}
    assert report(expected, expected, postprocessed=False).ok
    swapped = {"predictions": expected["predictions"][:, :, ::-1].copy()}
    found = report(expected, swapped, postprocessed=False)
    assert not found.ok
    assert found.detections is None
    broken = {"predictions": np.full((1, 9, 30), np.nan, np.float32)}
    assert not report(expected, broken, postprocessed=False).ok


def test_an_output_that_nobody_knows_is_refused():
    with pytest.raises(ArtifactError, match="the contract's output depth cannot be compared"):
        report({"depth": np.zeros((1, 4))}, {"depth": np.zeros((1, 4))}, postprocessed=False)
