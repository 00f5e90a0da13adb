"""A graph in the precision that its engine is estimated in."""

import numpy as np
import onnx
import pytest
import works
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from fine_edge.cli import estimate as command
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.estimate.engine import in_fp16, precision_of
from fine_edge.graph.input_size import InputSize
from fine_edge.graph.view import GraphView


def saved(path, kind=T.FLOAT, *, quantised=False, shift=1.0, batch=1):
    """A convolution and an addition, in FP32 or FP16, with or without Q/DQ before it."""
    number = np.float16 if kind == T.FLOAT16 else np.float32
    tensors = [
        numpy_helper.from_array(np.ones((4, 3, 1, 1), number), "w"),
        numpy_helper.from_array(np.array([shift], number), "shift"),
        numpy_helper.from_array(np.array(0.1, np.float32), "scale"),
        numpy_helper.from_array(np.array(0, np.int8), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="dequantise"),
    ]
    nodes = nodes if quantised else []
    nodes += [
        helper.make_node("Conv", ["d" if quantised else "x", "w"], ["c"], name="conv"),
        helper.make_node("Add", ["c", "shift"], ["y"], name="add"),
    ]
    ends = [helper.make_tensor_value_info("x", kind, (batch, 3, 8, 8))]
    graph = helper.make_graph(nodes, "g", ends, [helper.make_tensor_value_info("y", kind, (batch, 4, 8, 8))], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("made", "asked", "found"),
    [
        ({}, None, ("fp16", True)),
        ({}, "int8", ("int8", True)),
        ({}, "fp32", ("fp32", False)),
        ({"kind": T.FLOAT16}, None, ("fp16", False)),
        ({"kind": T.FLOAT16}, "int8", ("int8", False)),
        ({"quantised": True}, None, ("int8", False)),
        ({"quantised": True}, "int8", ("int8", False)),
    ],
)
def test_what_a_builder_would_do(made, asked, found, tmp_path):
    assert precision_of(saved(tmp_path / "net.onnx", **made), asked) == found


@pytest.mark.parametrize(
    ("made", "asked", "said"),
    [
        ({"kind": T.FLOAT16}, "fp32", "net.onnx is FP16 already"),
        ({"quantised": True}, "fp16", "net.onnx is quantised"),
        ({"quantised": True}, "fp32", "net.onnx is quantised"),
    ],
)
def test_precisions_that_a_graph_cannot_have(made, asked, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        precision_of(saved(tmp_path / "net.onnx", **made), asked)


def test_what_is_beyond_fp16_stays_fp32(tmp_path):
    half = in_fp16(saved(tmp_path / "net.onnx", shift=1e6), tmp_path / "other")
    view = GraphView(onnx.load(half))
    kinds = {node.op_type: view.dtype(node.input[1]) for node in view.nodes if node.op_type in ("Conv", "Add")}
    assert kinds == {"Conv": T.FLOAT16, "Add": T.FLOAT}


def test_a_file_is_converted_apart_and_keeps_its_name(tmp_path, monkeypatch, capsys):
    path = saved(tmp_path / "net.onnx")
    seen = []

    def compiled(file, _, name="", size=None):
        seen.append((GraphView(onnx.load(file)).dtypes()["w"], name, size))
        return works.engine(name)

    monkeypatch.setattr(command, "engine_work", compiled)
    assert command.main([str(path), "--mode", "25W", "--no-cuda-graph"]) == 0
    assert seen == [(T.FLOAT16, "net.onnx", None)]
    assert "25W, FP16, without CUDA graph" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


def test_a_dynamic_graph_is_converted_at_the_size_that_was_asked_for(tmp_path):
    half = in_fp16(saved(tmp_path / "net.onnx", batch="n"), tmp_path / "half", InputSize.parse("8", 2))
    assert GraphView(onnx.load(half)).shape("x") == (2, 3, 8, 8)


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not a graph"])
def test_files_that_are_no_graph(content, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError):
        precision_of(path, None)
