"""A graph through NVIDIA's compiler, and a variant of FINE through torch."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from fine_edge.estimate.device import find_device
from fine_edge.estimate.engine import engine_work

pytestmark = pytest.mark.host


def test_a_small_graph_is_compiled_and_counted(tmp_path):
    weights = np.random.default_rng(0).standard_normal((64, 32, 3, 3)).astype(np.float16)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="/backbone/Conv", pads=[1] * 4)
    ends = [helper.make_tensor_value_info("x", T.FLOAT16, (1, 32, 40, 40))]
    out = [helper.make_tensor_value_info("y", T.FLOAT16, (1, 64, 40, 40))]
    graph = helper.make_graph([node], "g", ends, out, [numpy_helper.from_array(weights, "w")])
    path = tmp_path / "conv.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    found = engine_work(path, find_device("orin-nano-8gb"))
    assert found.graph_flops == 2 * 1600 * 64 * 288
    assert found.claimed_flops == 1
    assert found.compiler.startswith("TensorRT-RTX")
    assert any(work.module == "backbone" for work in found.works)
