"""Attribution of what TensorRT-RTX makes of a graph: kernels and bytes from its log, no times."""

import numpy as np
import pytest
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from fine_edge.engine.inspect import Inspection
from fine_edge.engine.rtx_log import element_bytes, parse_log
from fine_edge.graph.parts import Part
from fine_edge.layers.sources import from_inspection, from_onnx

TENSOR = "{{ Name: {name}, Dimensions: [{dims}], Strides: [1,1], Datatype: {kind}, Format: (Linear) Row major }}"


def tensor(name, dims, kind="Half"):
    return TENSOR.format(name=name, dims=dims, kind=kind)


def line(name, nodes, outputs, constants):
    metadata = "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes)
    return (
        f"    Name: {name}, LayerType: gemm, Inputs: [ {tensor('x', '1,300,256')}], Constants: [{constants}],"
        f" Outputs: [{outputs}], TacticName: t, StreamId: 0, Metadata: {metadata}"
    )


LOG = "\n".join(
    [
        "[V] Total Activation Memory: 3145728 bytes",
        "[V] Total Weights Memory: 1572864 bytes",
        "[X] Layers:",
        line("a", ["/encoder/fine.0/key/MatMul"], tensor("k", "1,400,256"), tensor("w", "256,256")),
        line(
            "b", ["/decoder.0/MatMul"], tensor("v", "1,400", "Float"), tensor("w", "256,256") + tensor("s", "", "Float")
        ),
        "",
    ]
)


def test_kernels_know_their_bytes():
    a, b = parse_log(LOG).kernels
    assert (a.read_bytes, a.written_bytes) == (300 * 256 * 2, 400 * 256 * 2)
    assert a.constants == (("w", 256 * 256 * 2),)
    assert b.written_bytes == 400 * 4
    assert b.constants[1] == ("s", 4)


def test_layers_of_a_log_have_parts_and_shared_constants_once():
    profile = from_inspection(Inspection(parse_log(LOG), 1.0, "TensorRT-RTX 1.7.1", "ab" * 32), "m.onnx")
    a, b = profile.layers
    assert (a.part, a.weights_bytes) == (Part("fine", "projections"), 256 * 256 * 2)
    assert (b.part, b.weights_bytes) == (Part("decoder"), 4)
    assert profile.activation_mib == 3.0
    assert not profile.is_timed
    assert "nothing run on a GPU" in profile.source


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("Half", 2), ("BFloat16", 2), ("Float", 4), ("Int64", 8), ("Int32", 4), ("UInt8", 1), ("Bool", 1), ("FP8", 1),
        ("Row major linear FP32", 4), ("Channel major FP16 format where channel % 8 == 0", 2),
        ("Thirty-two wide channel vectorized row major Int8 format.", 1), ("Row major linear BFloat16 format", 2),
        ("Unknown format", None), ("", None),
    ],
)  # fmt: skip
def test_every_format_has_its_size(text, size):
    assert element_bytes(text) == size


@pytest.mark.host
def test_a_compiled_graph_is_attributed(tmp_path):
    weight = numpy_helper.from_array(np.ones((64, 64), np.float16), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="/detector/encoder/fine.0/query/MatMul")],
        "g",
        [helper.make_tensor_value_info("x", T.FLOAT16, (1, 32, 64))],
        [helper.make_tensor_value_info("y", T.FLOAT16, (1, 32, 64))],
        [weight],
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    profile = from_onnx(path)
    assert {layer.part for layer in profile.layers} == {Part("fine", "projections")}
    assert sum(layer.written_bytes for layer in profile.layers) == 32 * 64 * 2
    assert sum(layer.weights_bytes for layer in profile.layers) >= 64 * 64 * 2
