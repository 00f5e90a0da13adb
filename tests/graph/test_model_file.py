from __future__ import annotations

import os
import random

import numpy as np
import onnx
import pytest
from graph_builders import external, model, node, save, small_net, unary, value
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto as T

from fine_edge.errors import ArtifactError
from fine_edge.graph.model_file import outside_folder, read_model
from fine_edge.graph.walk import graphs_in, tensors_in


def refusal(path):
    with pytest.raises(ArtifactError) as caught:
        read_model(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_a_good_file_is_read_as_it_is(tmp_path):
    graph = small_net()
    assert read_model(save(graph, tmp_path / "m.onnx")) == graph


def test_places_that_are_no_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.onnx")
    assert "not a regular file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


def test_contents_that_are_no_model(tmp_path):
    path = tmp_path / "m.onnx"
    whole = small_net().SerializeToString()
    for content, reason in (
        (b"", "empty"),
        (random.Random(0).randbytes(4096), "not an ONNX file"),
        (b"PK\x03\x04 a zip file", "not a"),
        (whole[: len(whole) // 2], "not an ONNX file"),
    ):
        path.write_bytes(content)
        assert reason in refusal(path)


def test_a_parseable_message_without_a_graph_is_refused(tmp_path):
    graph = unary("Relu")
    del graph.graph.output[:]
    assert "no outputs" in refusal(save(graph, tmp_path / "m.onnx"))
    message = onnx.ModelProto(producer_name="x")
    assert "no IR version, no operator set, no nodes, no inputs, no outputs" in refusal(
        save(message, tmp_path / "e.onnx")
    )


def test_a_name_that_is_not_text_is_refused(tmp_path):
    data = unary("Relu").SerializeToString().replace(b"step", b"st\xff\xfe")
    (tmp_path / "m.onnx").write_bytes(data)
    assert "UTF-8" in refusal(tmp_path / "m.onnx")


def test_a_huge_file_is_refused_without_reading_it(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as handle:
        handle.truncate(3 * 2**30)  # sparse: takes no space
    assert "3.0 GiB" in refusal(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "a/../../b", "", "..\\b", "a\0b"])
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    folder = tmp_path / "model"
    folder.mkdir()
    assert outside_folder(location)
    assert "outside" in refusal(save(external(small_net(), location), folder / "m.onnx"))


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.bin").write_bytes(bytes(10_000))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
    assert "outside" in refusal(save(external(small_net(), "w.bin"), folder / "m.onnx"))


def test_weights_beside_the_model(tmp_path):
    graph = small_net()
    weights = graph.graph.initializer[0].raw_data
    path = save(external(graph, "w.bin"), tmp_path / "m.onnx")
    assert "w.bin is missing" in refusal(path)
    (tmp_path / "w.bin").write_bytes(weights[:-1])
    assert "w.bin is too short" in refusal(path)
    (tmp_path / "w.bin").write_bytes(weights)
    assert read_model(path).graph.initializer[0].raw_data == weights
    assert read_model(path, weights=False).graph.initializer[0].data_location == T.EXTERNAL


@pytest.mark.parametrize("length", ["-1", "many", "99999999999999"])
def test_a_broken_place_of_weights_is_refused(tmp_path, length):
    (tmp_path / "w.bin").write_bytes(bytes(10))
    refusal(save(external(small_net(), "w.bin", length), tmp_path / "m.onnx"))


def test_subgraphs_and_their_tensors_are_visited():
    branch = model([node("Constant", [], ["z"], value=onnx.numpy_helper.from_array(np.ones(1), "deep"))], [], []).graph
    graph = unary("Relu")
    graph.graph.node.append(node("If", ["c"], ["q"], then_branch=branch, else_branch=branch))
    assert len(list(graphs_in(graph))) == 3
    assert [tensor.name for tensor in tensors_in(graph)] == ["deep", "deep"]


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random.onnx"
    path.write_bytes(data)
    refusal(path)


def test_inputs_are_needed(tmp_path):
    graph = model([node("Constant", [], ["y"], value_float=1.0)], [], [value("y", T.FLOAT, [])])
    assert "no inputs" in refusal(save(graph, tmp_path / "m.onnx"))
