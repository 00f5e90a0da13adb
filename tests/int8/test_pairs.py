from __future__ import annotations

import numpy as np
import pytest
from convolutional import FIRST, NECK, SECOND, STEM, graph
from graph_builders import unary
from onnx import TensorProto as T
from onnx import numpy_helper

from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.graph.checks import check
from fine_edge.graph.convert import to_fp16
from fine_edge.graph.view import GraphView
from fine_edge.int8.pairs import OPSET, pair_count, raised, weight_pairs, with_pairs
from fine_edge.int8.placement import convolutions, placed
from fine_edge.runners.ort import OrtRunner


@pytest.fixture(scope="module")
def original():
    return GraphView(graph())


@pytest.fixture(scope="module")
def quantised(original):
    chosen = convolutions(original)
    magnitudes = {one.activation: 4.0 for one in chosen}
    return with_pairs(raised(to_fp16(original)), chosen, magnitudes, original)


def nodes_of(model):
    return {node.name: node for node in model.graph.node}


def test_convolutions_with_channels_and_a_product_behind_them_are_candidates(original):
    found = convolutions(original)
    assert [(one.name, one.module, one.activation) for one in found] == [
        (FIRST, "backbone", "r0"),
        (SECOND, "backbone", "r1"),
        (NECK, "encoder", "pooled"),
    ]
    assert found[0].flops == 2 * 16 * 16 * 16 * 16 * 9
    assert [one.name for one in placed("neck", found)] == [NECK]
    assert [one.name for one in convolutions(original, [FIRST])] == [SECOND, NECK]
    with pytest.raises(ConfigError, match="no node is called 'nobody'"):
        convolutions(original, ["nobody"])


def test_what_decides_a_score_stays_fp16():
    last = graph()
    for node in last.graph.node:  # a softmax in front of the products: the neck's convolution now decides
        if node.name == "/detector/encoder/Relu":
            node.op_type = "Softmax"
    assert [one.name for one in convolutions(GraphView(last))] == [FIRST, SECOND]


def test_pairs_are_symmetric_fp16_and_by_channel(quantised):
    view = GraphView(quantised)
    assert view.opset == OPSET
    # Three convolutions: three maps, three weights.
    assert pair_count(quantised) == 6
    assert weight_pairs(view) == {f"{name}/dequantized/DequantizeLinear" for name in ("first", "second", "neck")}
    for node in quantised.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = view.constant(node.input[1]), view.constant(node.input[2])
        assert scale.dtype == np.float16
        assert not zero.any()
        assert scale.shape == ((16,) if node.name in weight_pairs(view) else ())
    assert view.constant("r0/scale") == np.float16(4 / 127)
    assert [finding for finding in check(quantised) if finding.severity == "error"] == []


def test_weights_are_rounded_from_fp32_and_the_old_ones_are_gone(quantised, original):
    view = GraphView(quantised)
    values = original.constant("first")
    rounded = view.constant("first/int8").astype(np.float32) * view.constant("first/scale").reshape(-1, 1, 1, 1)
    assert np.abs(view.constant("first/int8")).max() == 127
    assert np.abs(rounded - values).max() <= np.abs(values).max() / 127
    assert "first" not in {tensor.name for tensor in quantised.graph.initializer}
    assert view.dtype("stem") == T.FLOAT16


def test_an_addition_reads_the_pair_that_its_other_map_has(quantised):
    nodes = nodes_of(quantised)
    assert "r0/dequantized" in nodes["/detector/backbone.2/Add"].input
    assert nodes[STEM].input[0] != "images/dequantized"
    assert nodes[NECK].input[0] == "pooled/dequantized"


def test_a_graph_in_int8_computes_nearly_the_same(quantised, tmp_path):
    feed = {"images": np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)}
    expected = OrtRunner(tmp_path / "a.onnx", model=graph()).run(feed)["logits"]
    got = OrtRunner(tmp_path / "b.onnx", model=quantised).run(feed)["logits"]
    assert 10 < np.abs(expected).max() < 30
    # ONNX Runtime 1.23 joins Q/DQ into integer convolutions, and rounds once more than 1.32.
    assert 0.01 < np.abs(got - expected).max() < 1


@pytest.mark.parametrize("opset", [17, 18])
def test_a_raised_opset_computes_the_same(opset, tmp_path):
    older = graph(opset=opset)
    feed = {"images": np.random.default_rng(0).random((1, 3, 32, 32), dtype=np.float32)}
    newer = raised(older)
    assert GraphView(newer).opset == OPSET
    assert {node.name for node in newer.graph.node} == {node.name for node in older.graph.node}
    outputs = [OrtRunner(tmp_path / "m.onnx", model=one).run(feed) for one in (older, newer)]
    for name in ("logits", "boxes"):
        np.testing.assert_array_equal(outputs[0][name], outputs[1][name])


def test_a_newer_opset_stays_as_it_is():
    newer = unary("Relu", opset=21)
    assert raised(newer) is newer


def test_a_convolution_that_is_kept_in_fp32_is_refused(original):
    chosen = convolutions(original)
    half = raised(to_fp16(original, keep_fp32=[SECOND]))
    with pytest.raises(ArtifactError, match="not FP16") as caught:
        with_pairs(half, chosen, {one.activation: 1.0 for one in chosen}, original)
    assert caught.value.hint == f"leave it out: --keep {SECOND}"


def test_channels_of_zeros_get_a_scale_that_devices_keep():
    model = graph()
    for tensor in model.graph.initializer:
        if tensor.name == "first":
            values = numpy_helper.to_array(tensor).copy()
            values[3] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, "first"))
    view = GraphView(model)
    chosen = convolutions(view)
    scale = GraphView(
        with_pairs(raised(to_fp16(view)), chosen, {one.activation: 1.0 for one in chosen}, view)
    ).constant("first/scale")
    assert scale[3] == np.finfo(np.float16).smallest_normal
