"""ONNX Runtime on the CPU, where it fails."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fine_edge.runners.ort import create_session


def test_the_name_of_a_node_that_fails_is_not_written_past_python(capfd):
    node = helper.make_node("Gather", ["table", "index"], ["found"], name="\x1b]0;owned\x07")
    index, found = (helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in ("index", "found"))
    table = numpy_helper.from_array(np.arange(3), "table")
    graph = helper.make_graph([node], "tiny", [index], [found], [table])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = create_session(Path("x.onnx"), model=model)
    with pytest.raises(Exception, match="owned"):
        session.run(None, {"index": np.array([9])})
    assert capfd.readouterr() == ("", "")
