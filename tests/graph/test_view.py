from __future__ import annotations

import numpy as np
import pytest
from graph_builders import attention, model, node, small_net, unary, value
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto as T

from fine_edge.graph.rules_attention import attentions, module_path
from fine_edge.graph.view import GraphView, attribute_int, attribute_text, input_name, label, output_name


def test_shapes_types_and_constants_are_looked_up():
    view = GraphView(small_net())
    assert view.opset == 17
    assert view.shape("c") == (1, 8, 4, 4)
    assert view.shape("w") == (8, 3, 3, 3)
    assert view.dtype("i") == T.INT64
    assert view.constant("k").tolist() == [5]
    assert view.shape("gone") is None
    assert view.dtype("gone") == 0
    assert view.constant("gone") is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value_int": 3}, 3),
        ({"value_ints": [1, 2]}, [1, 2]),
        ({"value_float": 0.5}, 0.5),
        ({"value_floats": [0.5]}, [0.5]),
        ({}, None),
    ],
)
def test_constant_nodes_are_read_in_every_form(attributes, expected):
    view = GraphView(model([node("Constant", [], ["c"], **attributes)], [], []))
    found = view.constant("c")
    assert (None if found is None else found.tolist()) == expected


def test_a_constant_whose_bytes_do_not_fit_is_unknown():
    graph = small_net()
    graph.graph.initializer[0].raw_data = b"123"
    assert GraphView(graph).constant("w") is None


def test_malformed_nodes_have_defaults():
    empty = node("Relu", [], [])
    assert (input_name(empty, 2), output_name(empty), label(empty)) == ("", "", "Relu -> ?")
    typed = node("Resize", ["x"], ["y"], mode=3, antialias="yes")
    assert attribute_text(typed, "mode", "nearest") == "nearest"
    assert attribute_int(typed, "antialias", 0) == 0


@given(head_dim=st.integers(1, 300), tokens=st.integers(1, 12), heads=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_the_head_dimension_is_found_through_scale_and_mask(head_dim, tokens, heads):
    (found,) = attentions(GraphView(attention(head_dim, tokens=tokens, heads=heads)))
    assert found.head_dim == head_dim
    assert found.scores.name == "/fine/MatMul"


def test_module_paths_of_both_exporters():
    legacy = unary("Relu").graph.node[0]
    legacy.name = "/model/encoder/fpn_blocks.0/fine/norm/Relu"
    assert module_path(legacy) == ("model", "encoder", "fpn_blocks", "0", "fine", "norm")
    for key, text in (
        ("pkg.torch.onnx.name_scopes", "['', 'neck', 'neck.fine', 'relu']"),
        ("namespace", ": m.M/neck: m.Neck/neck.fine: fusion.fine.Fine/relu: aten.relu.default"),
    ):
        dynamo = node("Relu", ["x"], ["y"], name="node_relu_3")
        entry = dynamo.metadata_props.add()
        entry.key, entry.value = key, text
        assert "fine" in module_path(dynamo)


def test_a_class_in_a_module_called_fine_is_not_inside_fine():
    other = node("Relu", ["x"], ["y"], name="node_relu")
    entry = other.metadata_props.add()
    entry.key, entry.value = "namespace", ": m.M/neck: fine_edge.fusion.fine.Neck/relu: aten.relu.default"
    assert "fine" not in module_path(other)


def test_broken_metadata_falls_back_to_the_name():
    for text in ("[[[", "{'a': 1}", "os.system('x')", "[1, 2]"):
        broken = node("Relu", ["x"], ["y"], name="/a/fine/Relu")
        entry = broken.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", text
        assert module_path(broken) == ("a", "fine")


def test_constancy_follows_shapes_of_static_inputs():
    nodes = [node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["g"]), node("Relu", ["x"], ["r"])]
    inputs = [value("x", T.FLOAT, (1, 4))]
    view = GraphView(model(nodes, inputs, [value("r", T.FLOAT, (1, 4))], {"zero": np.asarray(0)}))
    assert view.is_constant("g")
    assert not view.is_constant("r")
    assert not view.is_constant("x")
