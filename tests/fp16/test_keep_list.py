from __future__ import annotations

import pytest
from graph_builders import model, node, small_net, value
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto as T

from fine_edge.errors import ConfigError
from fine_edge.fp16.hazards import Hazard
from fine_edge.fp16.keep_list import proposed, read_keep_list, write_keep_list
from fine_edge.fp16.study import inexpressible, layer_precisions
from fine_edge.graph.convert import kept_by_exporter
from fine_edge.graph.view import GraphView


def hazard(*keep, keep_fp32=True):
    return Hazard("t", "n", 1.0, "overflow: too large", keep_fp32, "overflow", frozenset(keep))


def test_the_exporter_keeps_boxes():
    nodes = [
        node("Relu", ["x"], ["a"], name="/detector/encoder/refine/Relu"),
        node("Sigmoid", ["a"], ["b"], name="/detector/refine/Sigmoid"),
        node("Relu", ["b"], ["y"], name="/postprocess/Relu"),
    ]
    graph = model(nodes, [value("x", T.FLOAT, (2,))], [value("y", T.FLOAT, (2,))])
    assert kept_by_exporter(graph) == ["/detector/refine/Sigmoid", "/postprocess/Relu"]


def test_the_proposal_is_what_the_hazards_need():
    assert proposed([hazard("b", "a"), hazard("a"), hazard("c", keep_fp32=False)]) == ["a", "b"]
    assert proposed([]) == []


names = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)


@given(st.sets(names.filter(lambda name: not name.startswith("#"))))
def test_a_list_comes_back_as_it_was(tmp_path_factory, listed):
    path = tmp_path_factory.mktemp("keep") / "keep.txt"
    write_keep_list(path, listed, "m.onnx")
    assert read_keep_list(path) == tuple(sorted(listed))


def test_comments_and_empty_lines_are_skipped(tmp_path):
    path = tmp_path / "keep.txt"
    path.write_text("# why\n\n  /b \n/a\n/a\n")
    assert read_keep_list(path) == ("/a", "/b")


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.txt: no such file"):
        read_keep_list(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is no UTF-8 text"):
        read_keep_list(tmp_path / "bytes.txt")


def split_as_trtexec(argument):
    """Entries at commas, name and type at the last colon, quotes dropped."""
    entries = argument.partition("=")[2].split(",")
    return {entry.rpartition(":")[0].replace("'", ""): entry.rpartition(":")[2] for entry in entries}


@given(st.sets(names, min_size=1))
def test_what_is_written_is_what_trtexec_reads(listed):
    view = GraphView(small_net())
    listed -= {node.name for node in view.nodes}  # whose output types are written as well: the next test
    text = layer_precisions(listed, view)
    spoken = {name for name in listed if name not in inexpressible(listed)}
    if not spoken:
        assert text == ""
        return
    constraint, precisions = text.splitlines()
    assert constraint == "--precisionConstraints=obey"
    assert precisions.startswith("--layerPrecisions=")
    assert split_as_trtexec(precisions) == dict.fromkeys(spoken, "fp32")


def test_output_types_go_to_layers_with_float_results_alone():
    text = layer_precisions(["topk", "softmax", "norm"], GraphView(small_net()))
    assert text == (
        "--precisionConstraints=obey\n"
        "--layerPrecisions=norm:fp32,softmax:fp32,topk:fp32\n"
        "--layerOutputTypes=norm:fp32,softmax:fp32\n"
    )


def test_names_that_trtexec_cannot_read_are_left_out_and_named():
    assert inexpressible(["a:b", "a,b", "it's", "all*", "/fine"]) == ["a,b", "all*", "it's"]
    assert layer_precisions(["a,b"], GraphView(small_net())) == ""
    assert "a:b:fp32" in layer_precisions(["a:b"], GraphView(small_net()))
