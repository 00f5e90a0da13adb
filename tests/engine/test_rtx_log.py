from __future__ import annotations

import pytest

from fine_edge.engine.rtx_log import Kernel, first_error, onnx_nodes, parse_log
from fine_edge.errors import BackendError

TENSOR = "Inputs: [ { Name: q, Dimensions: [1,2] }], Outputs: []"
LOG = f"""[V] Found 7 to 9 to be part of self-attention pattern
[V] Total Activation Memory: 1 bytes
[V] Engine Layer Information:
    Layers:
    Name: of an earlier build, LayerType: gemm, {TENSOR}, Metadata: [ONNX Layer: /old]
[V] Total Activation Memory: 3145728 bytes
[V] Total Weights Memory: 1572864 bytes
[V] Engine Layer Information:
    Layers:
    Name: /a/Conv_myl0_0, LayerType: correlation, {TENSOR}, Metadata: [ONNX Layer: /a/Conv][ONNX Layer: /a[0]/Relu]
    Name: _gemm_mha_v2_myl0_1, LayerType: kgen, {TENSOR}, Metadata: [ONNX Layer: /f/MatMul]\x1f[ONNX Layer: /f/Softmax]
    Name: _gemm_mha_v2_myl0_2, LayerType: kgen, {TENSOR}, Metadata: [ONNX Layer: /f/MatMul]
    Name: entry^bb^signal^1_myl0_3, LayerType: signal, Inputs: [], Outputs: [], Metadata:
    Name: entry^bb^wait^1_myl0_3, LayerType: wait, Inputs: [], Outputs: [], Metadata:
    Name: __myl_Move_myl0_3, LayerType: kgen, {TENSOR}, Metadata:

    I/O Tensors:
     Name: q, IOMode: Input, DataType: Half, Dimensions: [1,2], Location: Device
"""

PARSER_REFUSES = """[V] reading
[E] ModelImporter.cpp:140: While parsing node number 0 [Cast -> "d"]:
[E] ModelImporter.cpp:151: ERROR: onnxOpCheckers.cpp:241 In function checkCast:
[E] In node 0 with name: c1 and operator: Cast (checkCast): INVALID_NODE: Unsupported data type
[!] Could not parse ONNX correctly
"""

SHAPES_DISAGREE = """[E] ITensor::getDimensions: API Usage Error (4 and 5 must match. In validate at /_src/a/b.cpp:192)
[E] [checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In f at /_src/c.cpp:2 (cudaError 35: no driver))
[E] In node 0 with name: mm and operator: MatMul (parseNode): INVALID_NODE: Invalid Node - mm
"""

BUILDER_REFUSES = """[!] Module: 'tensorrt' is required but could not be imported.
[E] [tacticSupply.cpp::getSupportedFormats::48] Error Code 2: nms_0 has no runners In g at /_src/tactic.cpp:48)
[!] Invalid Engine. Please ensure the engine was built correctly
"""


def test_kernels_without_synchronisation_and_memory_of_the_last_build():
    compiled = parse_log(LOG)
    assert [kernel.name for kernel in compiled.kernels] == [
        "/a/Conv_myl0_0",
        "_gemm_mha_v2_myl0_1",
        "_gemm_mha_v2_myl0_2",
        "__myl_Move_myl0_3",
    ]
    assert compiled.kernels[0] == Kernel("/a/Conv_myl0_0", "correlation", ("/a/Conv", "/a[0]/Relu"), reads=(("q", 0),))
    assert compiled.kernels[3].onnx_nodes == ()
    assert (compiled.activation_mib, compiled.weights_mib) == (3.0, 1.5)


@pytest.mark.parametrize("separator", ["", "\x1e", "\x1f"])
def test_what_became_of_a_node_stands_behind_its_name(separator):
    first = "[ONNX Layer: /a/Conv]__gemm_from_conv1x1"
    assert onnx_nodes(f"{first}{separator}[ONNX Layer: /a[0]/Add]") == ("/a/Conv", "/a[0]/Add")
    assert onnx_nodes(f"[ONNX Layer: /a[0]/Add]{separator}{first} ") == ("/a[0]/Add", "/a/Conv")


def test_a_fused_attention_has_the_kernel_and_a_softmax():
    compiled = parse_log(LOG)
    assert [kernel.is_fused_attention for kernel in compiled.kernels] == [False, True, False, False]
    assert compiled.fused_attention == 1


@pytest.mark.parametrize("missing", ["Layers:", "Total Activation Memory", "Total Weights Memory"])
def test_an_incomplete_log_is_refused(missing):
    with pytest.raises(BackendError, match=missing):
        parse_log(LOG.replace(missing, "something else"))


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (PARSER_REFUSES, "c1 (Cast): INVALID_NODE: Unsupported data type"),
        (SHAPES_DISAGREE, "mm (MatMul): ITensor::getDimensions: API Usage Error (4 and 5 must match)"),
        (BUILDER_REFUSES, "Error Code 2: nms_0 has no runners)"),
        ("[E] cudaError 35: no driver", "cudaError 35: no driver"),
        ("[V] all is well", ""),
        ("", ""),
    ],
)
def test_the_first_reason_that_explains_something(log, expected):
    assert first_error(log) == expected
