from __future__ import annotations

import pytest
from convolutional import graph

from fine_edge.engine.rtx_log import Kernel
from fine_edge.estimate.calibration import find_calibration
from fine_edge.estimate.device import DEFAULT, find_device
from fine_edge.estimate.latency import Conditions
from fine_edge.graph.convert import to_fp16
from fine_edge.graph.view import GraphView
from fine_edge.int8.compiled import compiled, is_int8, with_epilogues
from fine_edge.int8.pairs import raised, with_pairs
from fine_edge.int8.placement import convolutions

PAIR = "first/dequantized/DequantizeLinear"


def kernel(name, reads, writes, *nodes, constants=()):
    sizes = [tuple((tensor, 64) for tensor in tensors) for tensors in (reads, writes)]
    return Kernel(name, "correlation", nodes, *sizes, tuple((constant, 16) for constant in constants))


def test_a_product_and_what_follows_it_count_as_one_kernel():
    product = kernel("product", ["x"], ["wide"], "/Conv", PAIR, constants=["weights"])
    epilogue = kernel("epilogue", ["wide", "skip"], ["y"], "/Relu", constants=["bias"])
    other = kernel("other", ["y"], ["z"], "/Softmax")
    merged, last = with_epilogues((product, epilogue, other), frozenset([PAIR]))
    assert (merged.name, merged.onnx_nodes) == ("product", ("/Conv", PAIR, "/Relu"))
    assert [name for name, _ in merged.reads] == ["x", "skip"]
    assert merged.writes == epilogue.writes
    assert merged.constants == (*product.constants, *epilogue.constants)
    assert last == other
    assert is_int8(product, [PAIR])
    assert not is_int8(epilogue, [PAIR])


@pytest.mark.parametrize(
    "readers",
    [
        [kernel("a", ["wide"], ["p"], "/Relu"), kernel("b", ["wide"], ["q"], "/Sigmoid")],  # both need it
        [kernel("a", ["wide"], ["p"], "/Conv", PAIR, constants=["w"])],  # a product itself
        [],
    ],
)
def test_a_result_that_others_need_stays(readers):
    kernels = (kernel("product", ["x"], ["wide"], "/Conv", PAIR, constants=["weights"]), *readers)
    assert with_epilogues(kernels, frozenset([PAIR])) == kernels


@pytest.mark.host
def test_a_compiled_graph_in_int8():
    view = GraphView(graph())
    chosen = convolutions(view)
    half = raised(to_fp16(view))
    device = find_device(DEFAULT)
    board = Conditions(device, device.mode(None), find_calibration(device))
    fp16 = compiled(half, board, "small.onnx")
    int8 = compiled(with_pairs(half, chosen, {one.activation: 4.0 for one in chosen}, view), board, "small.onnx")
    assert fp16.fused_kernels == fp16.kernels
    assert fp16.fused_estimate_ms == fp16.estimate_ms
    assert int8.weights_mib < fp16.weights_mib
    # The compiler makes two kernels of each convolution in INT8.
    assert int8.kernels > fp16.kernels
    assert int8.fused_kernels <= int8.kernels - len(chosen)
    assert int8.fused_estimate_ms < int8.estimate_ms
