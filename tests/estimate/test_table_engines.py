"""The graphs that tables of the paper are compared on, and libraries' own exports in FP16."""

import numpy as np
import onnx
import works
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from fine_edge.estimate import validate
from fine_edge.estimate.device import find_device
from fine_edge.estimate.engine import in_fp16
from fine_edge.graph.view import GraphView


def test_yolo_is_timed_as_its_library_exports_it(monkeypatch, tmp_path):
    asked = []

    def compile_rows(rows, *_):
        asked.extend(rows)
        return [works.engine(row.label) for row in rows]

    monkeypatch.setattr(validate, "compile_rows", compile_rows)
    found = validate.compile_tables(find_device("orin-nano-8gb"), tmp_path)
    assert {row.model for row in asked if row.exporter == "plain"} == {
        f"yolov{version}{fine}" for version in ("8s", "10s", "12s") for fine in ("", "_fine")
    }
    assert all(row.raw == (row.exporter == "plain") for row in asked)
    assert {row.model for row in asked if row.sampling == "grid"} == {
        row.model for row in asked if row.model.startswith("rtdetr")
    }
    assert {engine.name for engine in found} == set(validate.published_fps())


def test_a_librarys_export_in_fp16_has_its_shapes_folded(tmp_path):
    weights = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32)
    constants = [("w", weights), ("zero", np.array([0])), ("rest", np.array([-1])), ("k", np.array([5]))]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
        helper.make_node("Shape", ["y"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["y", "target"], ["flat"]),
        helper.make_node("TopK", ["flat", "k"], ["values", "indices"], name="topk"),
    ]
    ends = [helper.make_tensor_value_info("x", T.FLOAT, (1, 3, 8, 8))]
    out = [
        helper.make_tensor_value_info("values", T.FLOAT, None),
        helper.make_tensor_value_info("indices", T.INT64, None),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants]
    graph = helper.make_graph(nodes, "g", ends, out, tensors)
    path = tmp_path / "net.plain.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    half = in_fp16(path)
    assert half.name == "net.plain.fp16.onnx"
    view = GraphView(onnx.load(half))
    topk = next(node for node in view.nodes if node.op_type == "TopK")
    assert view.shape(topk.input[0]) == (1, 256)
    conv = next(node for node in view.nodes if node.op_type == "Conv")
    assert view.dtype(conv.input[1]) == T.FLOAT16
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, half.name][::-1]
