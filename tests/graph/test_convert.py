from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from graph_builders import attention, external, model, node, small_net, unary, value, with_constants
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto as T
from onnx import numpy_helper

from fine_edge.errors import ArtifactError
from fine_edge.graph.checks import check
from fine_edge.graph.convert import to_fp16
from fine_edge.graph.view import GraphView, attribute_int


def run(graph, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def casts(graph):
    return [n for n in graph.graph.node if n.op_type == "Cast"]


def cancelling(graph):
    """Casts to the type that their input, or the input of the cast before, has already."""
    view = GraphView(graph)
    found = []
    for cast in casts(graph):
        before = view.producer(cast.input[0])
        sources = [cast.input[0]] + ([before.input[0]] if before is not None and before.op_type == "Cast" else [])
        found += [cast.name for source in sources if view.dtype(source) == attribute_int(cast, "to", 0)]
    return found


@pytest.fixture
def image():
    return {"x": np.random.default_rng(1).random((1, 3, 8, 8), dtype=np.float32)}


def test_outputs_agree_and_stay_fp32(image, recwarn, capfd):
    graph = small_net()
    half = to_fp16(graph)
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")
    for reference, result in zip(run(graph, image), run(half, image), strict=True):
        assert result.dtype == reference.dtype
        np.testing.assert_allclose(result, reference, atol=2e-3)


def test_weights_are_fp16_and_names_and_metadata_stay():
    graph = small_net()
    half = to_fp16(graph)
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert {types[name] for name in ("w", "b", "gamma", "mask")} == {T.FLOAT16}
    assert {node.name for node in graph.graph.node} <= {node.name for node in half.graph.node}
    assert half.graph.node[[n.name for n in half.graph.node].index("conv")].metadata_props
    assert [(v.name, v.type) for v in half.graph.input] == [(v.name, v.type) for v in graph.graph.input]
    assert [(v.name, v.type) for v in half.graph.output] == [(v.name, v.type) for v in graph.graph.output]


def test_the_result_passes_the_rules_and_is_deterministic():
    graph = small_net()
    before = graph.SerializeToString(deterministic=True)
    first, second = (to_fp16(graph).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second
    assert graph.SerializeToString(deterministic=True) == before
    assert check(onnx.ModelProto.FromString(first)) == []


def test_only_the_casts_at_the_edges_remain():
    half = to_fp16(small_net())
    assert sorted(cast.name for cast in casts(half)) == ["graph_input_cast0", "graph_output_cast0"]
    assert cancelling(half) == []


def test_kept_nodes_compute_in_fp32(image):
    graph = small_net()
    half = to_fp16(graph, keep_fp32={"norm", "maps"})
    view = GraphView(half)
    norm = next(n for n in half.graph.node if n.name == "norm")
    assert [view.dtype(name) for name in norm.input] == [T.FLOAT] * 3
    assert view.dtype(norm.output[0]) == T.FLOAT  # no cast to FP16 and back between two kept nodes
    assert cancelling(half) == []
    np.testing.assert_allclose(run(half, image)[0], run(graph, image)[0], atol=2e-3)


def test_keeping_everything_changes_nothing(image):
    graph = small_net()
    kept = to_fp16(graph, keep_fp32=[n.name for n in graph.graph.node])
    assert casts(kept) == []
    for reference, result in zip(run(graph, image), run(kept, image), strict=True):
        np.testing.assert_array_equal(result, reference)


@given(st.sets(st.sampled_from([n.name for n in small_net().graph.node])))
@settings(max_examples=25, deadline=None)
def test_any_choice_of_kept_nodes_gives_a_valid_graph(kept):
    half = to_fp16(small_net(), keep_fp32=kept)
    assert cancelling(half) == []
    assert run(half, {"x": np.zeros((1, 3, 8, 8), np.float32)})[0].shape == (1, 8, 5)


def test_an_input_that_is_an_output_too():
    nodes = [node("Identity", ["x"], ["same"], name="same"), node("Relu", ["x"], ["y"], name="relu")]
    outputs = [value("same", T.FLOAT, (2,)), value("y", T.FLOAT, (2,))]
    half = to_fp16(model(nodes, [value("x", T.FLOAT, (2,))], outputs))
    same, positive = run(half, {"x": np.asarray([-1, 2], np.float32)})
    assert same.tolist() == [-1, 2]
    assert positive.tolist() == [0, 2]


@pytest.mark.parametrize("by_node", [True, False])
def test_an_output_that_is_a_constant(by_node):
    known = np.asarray([0.5, 2], np.float32)
    constant = [node("Constant", [], ["known"], name="c", value=numpy_helper.from_array(known))] if by_node else []
    nodes = [*constant, node("Relu", ["x"], ["y"], name="relu")]
    outputs = [value("y", T.FLOAT, (2,)), value("known", T.FLOAT, (2,))]
    half = to_fp16(model(nodes, [value("x", T.FLOAT, (2,))], outputs, {} if by_node else {"known": known}))
    assert run(half, {"x": known})[1].tolist() == known.tolist()
    assert half.graph.output[1].type.tensor_type.elem_type == T.FLOAT


@pytest.mark.parametrize("form", ["value", "value_float"])
def test_constant_nodes_follow_their_reader(form):
    attributes = {"value": numpy_helper.from_array(np.float32(1e-12))} if form == "value" else {"value_float": 1e-12}
    nodes = [node("Constant", [], ["eps"], name="c", **attributes), node("Add", ["x", "eps"], ["y"], name="add")]
    graph = model(nodes, [value("x", T.FLOAT, (2,))], [value("y", T.FLOAT, (2,))])
    x = {"x": np.zeros(2, np.float32)}
    assert run(to_fp16(graph, keep_fp32=["add"]), x)[0].tolist() == [np.float32(1e-12)] * 2
    assert 0 <= run(to_fp16(graph), x)[0][0] < 1e-7  # FP16's smallest number or zero


def test_a_constant_beyond_the_range_is_named():
    graph = with_constants("Mul", {"scale": np.float32(70000)}, (1, 4, 8, 8))
    with pytest.raises(ArtifactError, match=r"'scale' holds 70000, beyond FP16's 65504 -> keep node 'step'"):
        to_fp16(graph)
    half = to_fp16(graph, keep_fp32=["step"])
    assert run(half, {"x": np.ones((1, 4, 8, 8), np.float32)})[0].max() == np.float32(70000)


def test_masks_become_the_largest_number():
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in to_fp16(small_net()).graph.initializer}
    assert tensors["mask"].min() == np.float16(-65504)


def test_what_cannot_be_converted_is_refused():
    with pytest.raises(ArtifactError, match="FP16 tensors already"):
        to_fp16(attention(16))
    with pytest.raises(ArtifactError, match="no node named 'typo'"):
        to_fp16(small_net(), keep_fp32=["typo"])
    with pytest.raises(ArtifactError, match="no node named ''"):
        to_fp16(small_net(), keep_fp32=[""])
    with pytest.raises(ArtifactError, match="weights are not loaded"):
        to_fp16(external(small_net(), "w.bin"))
    with pytest.raises(ArtifactError, match="not valid ONNX"):
        to_fp16(unary("Cast"))


def test_resize_keeps_its_scales():
    scales = {"s": np.asarray([1, 1, 2, 2], np.float32)}
    graph = with_constants("Resize", scales, (1, 4, 16, 16), inputs=["x", "", "s"], mode="nearest")
    half = to_fp16(graph)
    assert {tensor.name: tensor.data_type for tensor in half.graph.initializer} == {"s": T.FLOAT}
    assert run(half, {"x": np.ones((1, 4, 8, 8), np.float32)})[0].shape == (1, 4, 16, 16)
