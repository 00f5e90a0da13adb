from __future__ import annotations

import numpy as np
import pytest
from graph_builders import model, node, value
from onnx import TensorProto as T
from planted import GROW, SHRINK, detector_graph, evidence_of

from fine_edge.fp16.hazards import RULES, found_in, open_hazards

SHAPE = (1, 3, 8, 8)


def hazards_of(nodes, folder, *, constants=None, out=SHAPE, **options):
    graph = model(nodes, [value("x", T.FLOAT, SHAPE)], [value("y", T.FLOAT, out)], constants)
    return found_in(evidence_of(graph, folder, **options), RULES)


def kinds(hazards):
    return [(hazard.kind, hazard.tensor, hazard.keep_fp32) for hazard in hazards]


def planted_hazards(folder, peak, divisor=16384.0, extra=()):
    graph = detector_graph(peak, divisor, 1, extra)
    return found_in(evidence_of(graph, folder, box_output="boxes", pixels=64, image_input="images"), RULES)


def test_a_clean_graph_has_none(tmp_path):
    assert planted_hazards(tmp_path, 100.0, 100.0) == []


def test_an_overflow_keeps_what_makes_it_and_what_reads_it(tmp_path):
    (hazard,) = planted_hazards(tmp_path, 2e5)
    assert (hazard.kind, hazard.tensor, hazard.node) == ("overflow", "grown", GROW)
    assert hazard.max_abs == pytest.approx(3.2e5, rel=0.05)
    assert hazard.keep == {GROW, SHRINK}
    assert set(hazard.to_json()) == {"tensor", "node", "max_abs", "reason", "keep_fp32"}
    assert open_hazards([hazard], [GROW]) == [hazard]  # the cast between the two would overflow
    assert open_hazards([hazard], [GROW, SHRINK, "other"]) == []


@pytest.mark.parametrize(
    ("peak", "kind", "keep"), [(3e4, "edge of range", True), (1e4, "near overflow", False), (3e3, None, None)]
)
def test_what_comes_near_is_named_and_kept_within_a_factor_of_two(tmp_path, peak, kind, keep):
    found = planted_hazards(tmp_path, peak)
    assert kinds(found) == ([(kind, "grown", keep)] if kind else [])


def test_the_worst_comes_first(tmp_path):
    nodes = [
        node("Mul", ["x", "factor"], ["near"], name="near"),
        node("Mul", ["near", "hundred"], ["far"], name="far"),
        node("Mul", ["far", "hundred"], ["y"], name="further"),
    ]
    constants = {"factor": np.float32(2e4), "hundred": np.float32(100)}
    found = hazards_of(nodes, tmp_path, constants=constants)
    assert [hazard.tensor for hazard in found] == ["y", "far", "near"]


def test_constants_that_are_only_moved_are_as_large_as_they_are(tmp_path):
    """RT-DETR marks invalid anchors with a logit of 10000; no picture makes it larger."""
    nodes = [
        node("Gather", ["anchors", "index"], ["picked"], name="gather", axis=0),
        node("Mul", ["picked", "tiny"], ["small"], name="mul"),
        node("Add", ["x", "small"], ["y"], name="add"),
    ]
    constants = {
        "anchors": np.array([1e4, 1], np.float32),
        "index": np.array([0]),
        "tiny": np.float32(1e-4),
    }
    assert hazards_of(nodes, tmp_path, constants=constants) == []


def test_a_tensor_that_fp16_rounds_away(tmp_path):
    nodes = [node("Mul", ["x", "tiny"], ["small"], name="down"), node("Div", ["small", "tiny"], ["y"], name="up")]
    found = hazards_of(nodes, tmp_path, constants={"tiny": np.full((1, 3, 1, 1), 1e-8, np.float32)})
    assert ("subnormal loss", "small", True) in kinds(found)
    assert {name for hazard in found for name in hazard.keep} == {"down", "up"}
    assert "100% become zero" in next(hazard.reason for hazard in found if hazard.tensor == "small")


def test_small_values_beside_large_ones_do_not_matter(tmp_path):
    scale = np.ones((1, 3, 8, 8), np.float32)
    scale[:, :2] = 1e-7  # two thirds become zero
    nodes = [node("Mul", ["x", "scale"], ["small"], name="mul"), node("Relu", ["small"], ["y"], name="relu")]
    assert hazards_of(nodes, tmp_path, constants={"scale": scale}) == []


def test_an_epsilon_matters_only_where_the_sum_is_small(tmp_path):
    for shift, expected in ((1.0, []), (0.0, ["subnormal loss"])):
        nodes = [
            node("Mul", ["x", "zero"], ["nothing"], name="mul"),
            node("Add", ["nothing", "shift"], ["shifted"], name="shift"),
            node("Add", ["shifted", "epsilon"], ["guarded"], name="guard"),
            node("Sqrt", ["guarded"], ["y"], name="sqrt"),
        ]
        constants = {"zero": np.float32(0), "shift": np.float32(shift), "epsilon": np.float32(1e-9)}
        found = hazards_of(nodes, tmp_path, constants=constants)
        assert sorted({hazard.kind for hazard in found if hazard.tensor == "epsilon"}) == expected


def test_a_divisor_that_becomes_zero(tmp_path):
    nodes = [
        node("Mul", ["x", "scale"], ["divisor"], name="scale"),
        node("Div", ["scale", "divisor"], ["y"], name="divide"),
    ]
    scale = np.ones((1, 3, 8, 8), np.float32)
    scale[0, 0, 0, 0] = 1e-9
    # The very first pixel of a picture is dark: the third channel is not, so put the tiny factor there.
    scale = np.roll(scale, 2, axis=1)
    found = hazards_of(nodes, tmp_path, constants={"scale": scale})
    assert ("zero division", "divisor", True) in kinds(found)
    assert next(h for h in found if h.kind == "zero division").keep == {"scale", "divide"}


def test_values_that_fp32_has_lost_already(tmp_path):
    nodes = [
        node("Mul", ["x", "zero"], ["zeros"], name="mul"),
        node("Log", ["zeros"], ["infinite"], name="log"),
        node("Exp", ["infinite"], ["y"], name="exp"),
    ]
    found = hazards_of(nodes, tmp_path, constants={"zero": np.float32(0)})
    assert kinds(found) == [("not finite", "infinite", False)]
    assert "keeping FP32 does not help" in found[0].reason


def test_exp_is_named_earlier_than_others(tmp_path):
    nodes = [
        node("Mul", ["x", "twelve"], ["large"], name="mul"),
        node("Exp", ["large"], ["powers"], name="exp"),
        node("ReduceSum", ["powers", "axis"], ["sum"], name="sum"),
        node("Div", ["powers", "sum"], ["y"], name="div"),
    ]
    constants = {"twelve": np.float32(12), "axis": np.array([3])}
    found = hazards_of(nodes, tmp_path, constants=constants)
    named = next(hazard for hazard in found if hazard.tensor == "powers")
    assert (named.kind, named.keep_fp32) == ("near overflow", False)
    assert "a softmax that does not subtract its maximum" in named.reason


def test_squares_of_a_layer_norm_in_pieces(tmp_path):
    """The squares and their mean fit; their sum before the division does not."""
    nodes = [
        node("Mul", ["x", "hundred"], ["large"], name="mul"),
        node("Pow", ["large", "two"], ["squares"], name="pow"),
        node("ReduceMean", ["squares"], ["y"], name="mean", axes=[2, 3]),
    ]
    constants = {"hundred": np.float32(120), "two": np.float32(2)}
    found = hazards_of(nodes, tmp_path, constants=constants, out=(1, 3, 1, 1))
    assert ("accumulation", "y", True) in kinds(found)
    assert next(h for h in found if h.kind == "accumulation").keep == {"mean"}


def test_a_layer_norm_is_named_but_not_kept(tmp_path):
    # A slope: rows of equal pixels have no variance, which older releases of ONNX Runtime round to less than none.
    nodes = [
        node("Mul", ["x", "factor"], ["bright"], name="mul"),
        node("Add", ["bright", "slope"], ["large"], name="add"),
        node("LayerNormalization", ["large", "gamma"], ["y"], name="norm"),
    ]
    constants = {"factor": np.float32(400), "slope": np.linspace(0, 100, 8, dtype=np.float32)}
    constants["gamma"] = np.ones(8, np.float32)
    assert kinds(hazards_of(nodes, tmp_path, constants=constants)) == [("variance", "large", False)]


def test_long_products_that_pass_the_range_on_the_way(tmp_path):
    rng = np.random.default_rng(1)
    weights = (rng.choice([-1.0, 1.0], (192, 4)) * 1000).astype(np.float32)
    nodes = [
        node("Reshape", ["x", "flat"], ["row"], name="flatten"),
        node("MatMul", ["row", "w"], ["y"], name="product"),
    ]
    constants = {"flat": np.array([1, 192]), "w": weights}
    found = hazards_of(nodes, tmp_path, constants=constants, out=(1, 4))
    assert ("accumulation", "y", True) in kinds(found)
    assert next(h for h in found if h.kind == "accumulation").keep == {"product"}


@pytest.mark.parametrize(("limit", "named"), [(1e-5, True), (0.2, False)])
def test_an_inverse_sigmoid_is_named_where_scores_are_near_one(tmp_path, limit, named):
    nodes = [
        node("Mul", ["x", "ten"], ["logits"], name="mul"),
        node("Sigmoid", ["logits"], ["scores"], name="sigmoid"),
        node("Clip", ["scores", "low", "high"], ["clipped"], name="clip"),
        node("Sub", ["one", "clipped"], ["rest"], name="sub"),
        node("Div", ["clipped", "rest"], ["odds"], name="div"),
        node("Log", ["odds"], ["y"], name="log"),
    ]
    constants = {
        "ten": np.float32(10),
        "low": np.float32(limit),
        "high": np.float32(1 - limit),
        "one": np.float32(1),
    }
    found = [h for h in hazards_of(nodes, tmp_path, constants=constants) if h.kind == "inverse sigmoid"]
    assert bool(found) == named
    if named:
        assert found[0].keep == {"log", "div", "sub", "clip", "sigmoid"}


@pytest.mark.parametrize(("pixels", "step"), [(640.0, "0.5 px"), (1.0, "0.31 px"), (100.0, None)])
def test_boxes_in_coarse_steps(tmp_path, pixels, step):
    nodes = [
        node("Reshape", ["x", "rows"], ["rows_of_four"], name="reshape"),
        node("Mul", ["rows_of_four", "five"], ["logits"], name="head"),
        node("Sigmoid", ["logits"], ["shares"], name="sigmoid"),
        node("MatMul", ["shares", "corners"], ["boxes_xyxy"], name="corners"),
    ]
    constants = {
        "rows": np.array([1, 48, 4]),
        "five": np.float32(5),
        "corners": (np.eye(4) * pixels).astype(np.float32),
    }
    graph = model(nodes, [value("x", T.FLOAT, SHAPE)], [value("boxes_xyxy", T.FLOAT, (1, 48, 4))], constants)
    found = found_in(evidence_of(graph, tmp_path, box_output="boxes_xyxy", pixels=100 if pixels == 100 else 640), RULES)
    assert kinds(found) == ([("box decode", "boxes_xyxy", True)] if step else [])
    if step:
        assert step in found[0].reason
        assert found[0].keep == {"corners", "sigmoid"}
