"""A model is known by its file and by every file that it keeps weights in."""

from __future__ import annotations

import os

import numpy as np
import pytest
from graph_builders import external, model, node, save, small_net, value
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from fine_edge.errors import ArtifactError
from fine_edge.files import sha256_of
from fine_edge.graph.identity import identity_of


def beside(location):
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.ClearField("raw_data")
    tensor.data_location = T.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def in_attribute():
    return model(
        [node("Constant", [], ["y"], value=beside("w.bin"))], [value("x", T.FLOAT, (4,))], [value("y", T.FLOAT, (4,))]
    )


def in_branch():
    inner = helper.make_graph([node("Identity", ["w"], ["z"])], "b", [], [value("z", T.FLOAT, (4,))], [beside("w.bin")])
    step = node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    return model([step], [value("x", T.BOOL, ())], [value("y", T.FLOAT, (4,))])


def in_function():
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    body = [node("Constant", [], ["w"], value=beside("w.bin")), node("Add", ["a", "w"], ["b"])]
    function = helper.make_function("f", "F", ["a"], ["b"], body, opsets)
    graph = helper.make_graph(
        [node("F", ["x"], ["y"], domain="f")], "g", [value("x", T.FLOAT, (4,))], [value("y", T.FLOAT, (4,))]
    )
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=[function])


def in_sparse():
    graph = model([node("Identity", ["x"], ["y"])], [value("x", T.FLOAT, (4,))], [value("y", T.FLOAT, (4,))])
    indices = numpy_helper.from_array(np.arange(4), "i")
    graph.graph.sparse_initializer.add(values=beside("w.bin"), indices=indices, dims=[9])
    return graph


@pytest.mark.parametrize(
    "build", [lambda: external(small_net(), "w.bin"), in_attribute, in_branch, in_function, in_sparse]
)
def test_weights_of_other_files_count(tmp_path, build):
    path = save(build(), tmp_path / "m.onnx")
    (tmp_path / "w.bin").write_bytes(bytes(4096))
    before = identity_of(path)
    (tmp_path / "w.bin").write_bytes(bytes(4095) + b"\1")
    assert identity_of(path) not in (before, sha256_of(path))
    (tmp_path / "w.bin").write_bytes(bytes(4096))
    path.rename(tmp_path / "other.onnx")
    assert identity_of(tmp_path / "other.onnx") == before, "a name is no part of it"
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ArtifactError, match=r"w\.bin is missing"):
        identity_of(tmp_path / "other.onnx")


def test_a_model_with_its_weights_inside_is_its_file(tmp_path):
    graph = small_net()
    graph.doc_string = "location"
    for path in (save(small_net(), tmp_path / "m.onnx"), save(graph, tmp_path / "said.onnx")):
        assert identity_of(path) == sha256_of(path)


def test_the_key_is_found_across_blocks_of_reading(tmp_path):
    graph = external(small_net(), "w.bin")
    (tmp_path / "w.bin").write_bytes(bytes(4096))
    start = graph.SerializeToString().index(b"location")
    for shift in range(-16, 9):
        graph.producer_name = "x" * (2**20 - start + shift)  # written before the graph
        assert identity_of(save(graph, tmp_path / "m.onnx")) != sha256_of(tmp_path / "m.onnx")


def test_what_is_no_file_has_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    for name in ("pipe.onnx", "none.onnx", ""):
        with pytest.raises(ArtifactError):
            identity_of(tmp_path / name)


def test_a_file_that_is_no_model_but_may_name_others_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"a location")
    with pytest.raises(ArtifactError):
        identity_of(tmp_path / "m.onnx")
