"""What counts as drift between two sets of outputs, and what does not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fine_edge.contract import Artifact, Contract, TensorSpec
from fine_edge.errors import ArtifactError
from fine_edge.parity.compare import Case, compare
from fine_edge.parity.report import TOLERANCES
from fine_edge.preprocess import Preprocessing

ROWS, CLASSES, SIZE = 300, 5, 640


def contract(raw: bool) -> Contract:
    shapes = (
        {"logits": ("float32", (1, ROWS, CLASSES)), "boxes": ("float32", (1, ROWS, 4))}
        if raw
        else {"labels": ("int64", (1, ROWS)), "boxes_xyxy": ("float32", (1, ROWS, 4)), "scores": ("float32", (1, ROWS))}
    )
    return Contract(
        model="tiny",
        artifacts=(Artifact("tiny.onnx", "fp32", "0"),),
        inputs=(TensorSpec("images", "float32", (1, 3, SIZE, SIZE), "pictures"),),
        outputs=tuple(TensorSpec(name, dtype, shape, name) for name, (dtype, shape) in shapes.items()),
        preprocessing=Preprocessing(),
        postprocessed=not raw,
        labels=tuple("abcde"),
        opset=18,
        cost={},
        golden={},
        made_by={"weights": {"source": "random", "seed": 0}},
    )


def outputs(raw: bool):
    rng = np.random.default_rng(0)
    centre, size = rng.uniform(0.2, 0.8, (ROWS, 2)), rng.uniform(0.05, 0.3, (ROWS, 2))
    if raw:
        logits = rng.normal(-3, 2, (ROWS, CLASSES))
        boxes = np.hstack([centre, size])
        return {"logits": logits[None].astype(np.float32), "boxes": boxes[None].astype(np.float32)}
    boxes = np.hstack([centre - size / 2, centre + size / 2]) * SIZE
    return {
        "labels": rng.integers(0, CLASSES, (1, ROWS)),
        "boxes_xyxy": boxes[None].astype(np.float32),
        "scores": np.sort(rng.uniform(0.02, 0.9, (1, ROWS)))[:, ::-1].astype(np.float32),
    }


def report(expected, got, *, raw=False, precision="fp32"):
    artifact = Artifact("tiny.onnx", precision, "0")
    case = Case("street", expected, got)
    return compare(contract(raw), artifact, [case], reference="ours", candidate="theirs")


def copy_of(arrays):
    return {name: array.copy() for name, array in arrays.items()}


@pytest.mark.parametrize("raw", [False, True])
def test_the_order_of_rows_is_no_drift(raw):
    expected = outputs(raw)
    order = np.random.default_rng(1).permutation(ROWS)
    found = report(expected, {name: array[:, order] for name, array in expected.items()}, raw=raw)
    assert found.ok
    assert [(tensor.max_abs, tensor.max_rel, tensor.at_quantile) for tensor in found.tensors] == [(0, 0, 0)] * 2
    assert (found.detections.matched, found.detections.flipped) == (ROWS, 0)


@pytest.mark.parametrize(
    ("raw", "output", "shift"),
    [(False, "boxes_xyxy", 1.5), (False, "scores", 0.01), (True, "boxes", 0.01), (True, "logits", 0.02)],
)
@pytest.mark.parametrize("row", [0, 123, 299])
def test_one_wrong_number_fails_and_is_named(raw, output, shift, row):
    expected = outputs(raw)
    got = copy_of(expected)
    got[output][0, row].flat[-1] += shift
    if output == "scores":
        got[output][0, row] = expected[output][0, row] + shift
    found = report(expected, got, raw=raw)
    assert not found.ok
    assert found.worst.output == output
    assert found.worst.max_abs == pytest.approx(shift, rel=1e-3)
    assert found.worst.where.startswith(f"street, image 0, row ({row}")
    assert [tensor.output for tensor in found.tensors if not tensor.ok] == [output]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_numbers_that_are_none_fail(raw, broken, precision):
    expected = outputs(raw)
    for output in expected:
        if output != "labels":
            got = copy_of(expected)
            got[output][:] = broken
            assert not report(expected, got, raw=raw, precision=precision).ok


def test_a_single_nan_fails_in_fp32():
    expected = outputs(False)
    got = copy_of(expected)
    got["boxes_xyxy"][0, 7, 2] = np.nan
    found = report(expected, got)
    assert not found.ok
    assert np.isnan(found.worst.max_abs)
    assert "row (7" in found.worst.where


def test_another_query_at_the_end_of_the_top_k_is_a_tie():
    expected = outputs(False)
    got = copy_of(expected)
    got["boxes_xyxy"][0, -1] = [0, 0, 3, 3]
    got["labels"][0, -1] = (expected["labels"][0, -1] + 1) % CLASSES
    found = report(expected, got)
    assert found.ok
    assert (found.detections.matched, found.detections.flipped, found.detections.ties) == (ROWS - 1, 0, 2)


def test_another_query_at_the_top_is_not():
    expected = outputs(False)
    got = copy_of(expected)
    got["labels"][0, 0] = (expected["labels"][0, 0] + 1) % CLASSES
    found = report(expected, got)
    assert not found.ok
    assert found.detections.flipped == 2


@pytest.mark.parametrize(("wrong", "ok"), [(0, True), (25, True), (35, False)])
def test_fp16_lets_a_tenth_of_the_rows_go_beyond(wrong, ok):
    assert TOLERANCES["fp16"].quantile == 0.9
    expected = outputs(False)
    got = copy_of(expected)
    got["boxes_xyxy"] += np.float32(1.0)
    got["boxes_xyxy"][0, :wrong] += np.float32(6.0)
    found = report(expected, got, precision="fp16")
    boxes = next(tensor for tensor in found.tensors if tensor.output == "boxes_xyxy")
    assert boxes.ok is ok
    assert boxes.at_quantile == pytest.approx(1.0 if ok else 7.0, rel=1e-3)
    assert not report(expected, got, precision="fp32").ok


@pytest.mark.parametrize("side", ["reference", "artifact"])
@pytest.mark.parametrize("damage", ["missing", "other shape"])
def test_outputs_that_the_contract_does_not_describe_are_an_error(side, damage):
    expected, got = outputs(False), outputs(False)
    arrays = expected if side == "reference" else got
    if damage == "missing":
        del arrays["boxes_xyxy"]
    else:
        arrays["boxes_xyxy"] = arrays["boxes_xyxy"][:, :10]
    with pytest.raises(ArtifactError, match=f"the {side} gives .* for boxes_xyxy, the contract says"):
        report(expected, got)


def test_json_has_what_others_rely_on():
    found = json.loads(json.dumps(report(outputs(False), outputs(False)).to_json()))
    assert found["ok"] is True
    assert set(found["worst"]) >= {"output", "max_abs", "max_rel"}
    assert set(found["detections"]) >= {"matched", "flipped", "max_score_drift", "max_box_drift_px"}
    assert found["random_weights"] is True


def exchanged(rows: int):
    """Outputs in which ``rows`` confident detections were exchanged for others, and the rest moved a little."""
    expected = outputs(raw=False)
    got = copy_of(expected)
    got["boxes_xyxy"] += 0.1
    got["boxes_xyxy"][0, :rows] = [5.0, 5.0, 9.0, 9.0]
    return expected, got


@pytest.mark.parametrize(
    ("margin", "rows", "ok"), [(1e-6, 1, True), (1e-6, 40, False), (1e-2, 1, False), (float("inf"), 1, False)]
)
def test_a_query_that_hangs_on_rounding_is_a_tie_and_no_more(margin, rows, ok):
    expected, got = exchanged(rows)
    strict = Case("noise", expected, copy_of(expected))
    near = Case("street", expected, got, margin)
    artifact = Artifact("tiny.onnx", "fp32", "0")
    found = compare(contract(raw=False), artifact, [near, strict], reference="ours", candidate="theirs")
    assert found.ok is ok
    assert found.near_ties == (("street",) if margin < 1e-3 else ())


def test_an_input_alone_is_never_let_off_for_a_near_tie():
    expected, got = exchanged(1)
    artifact = Artifact("tiny.onnx", "fp32", "0")
    found = compare(contract(raw=False), artifact, [Case("street", expected, got, 0.0)], reference="a", candidate="b")
    assert not found.ok
    assert found.near_ties == ()
