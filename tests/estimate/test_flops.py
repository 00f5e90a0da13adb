"""The work of nodes, from shapes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from fine_edge.estimate.flops import Product, SelectedKernels, graph_flops, node_works
from fine_edge.estimate.roofline import padded_flops
from fine_edge.graph.view import GraphView

value = helper.make_tensor_value_info


def works(nodes, inputs, outputs, constants=()):
    tensors = [numpy_helper.from_array(array, name) for name, array in constants]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return node_works(GraphView(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)))


def convolution(groups=1):
    weights = np.zeros((8, 4 // groups, 3, 3), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1] * 4, group=groups)
    return works([node], [value("x", T.FLOAT, (1, 4, 10, 20))], [value("y", T.FLOAT, None)], [("w", weights)])["conv"]


def test_a_convolution_is_a_product_of_pixels_by_filters():
    assert convolution().product == Product(1, 200, 8, 36)
    assert convolution().flops == 2 * 200 * 8 * 36
    assert convolution(groups=2).product == Product(2, 200, 4, 18)


def test_a_depthwise_convolution_is_arithmetic_of_cuda_cores():
    weights = np.zeros((4, 1, 7, 7), np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[3] * 4, group=4)
    found = works([node], [value("x", T.FLOAT, (1, 4, 8, 8))], [value("y", T.FLOAT, None)], [("w", weights)])["conv"]
    assert found.product.is_depthwise
    assert found.plain == 64 * 4 * 49
    assert padded_flops([found.product], 8) == 0


def test_products_of_a_batch_and_by_one_matrix():
    ends = [value("a", T.FLOAT, (2, 8, 40, 16)), value("b", T.FLOAT, (2, 8, 16, 30))], [value("y", T.FLOAT, None)]
    by_batch = works([helper.make_node("MatMul", ["a", "b"], ["y"], name="m")], *ends)["m"]
    assert by_batch.product == Product(16, 40, 30, 16)
    ends = [value("a", T.FLOAT, (1, 400, 256))], [value("y", T.FLOAT, None)]
    weights = [("w", np.zeros((256, 64), np.float32))]
    by_one = works([helper.make_node("MatMul", ["a", "w"], ["y"], name="m")], *ends, weights)["m"]
    assert by_one.product == Product(1, 400, 64, 256)


def test_exponentials_and_gathers_are_counted_apart():
    softmax = helper.make_node("Softmax", ["x"], ["y"], name="s")
    found = works([softmax], [value("x", T.FLOAT, (4, 100))], [value("y", T.FLOAT, (4, 100))])["s"]
    assert (found.plain, found.special, found.flops) == (2400, 400, 0)
    sample = helper.make_node("GridSample", ["x", "g"], ["y"], name="s")
    inputs = [value("x", T.FLOAT, (1, 2, 8, 8)), value("g", T.FLOAT, (1, 5, 4, 2))]
    found = works([sample], inputs, [value("y", T.FLOAT, (1, 2, 5, 4))])["s"]
    assert found.gathered_bytes == 4 * 32 * 40  # four corners, a sector each


@pytest.mark.parametrize(
    ("operator", "table", "kind", "indices", "options", "out", "sectors"),
    [
        # Rows of 32 channels in FP16, two sectors each, and in FP32; a row that two indices name is read twice.
        ("Gather", (6400, 32), T.FLOAT16, (1200,), {"axis": 0}, (1200, 32), 1200 * 2),
        ("Gather", (6400, 32), T.FLOAT, (1200,), {"axis": 0}, (1200, 32), 1200 * 4),
        # Three channels do not fill a sector; on another axis each element is one of its own.
        ("Gather", (2, 90, 3), T.FLOAT16, (5,), {"axis": 1}, (2, 5, 3), 2 * 5),
        ("Gather", (32, 6400), T.FLOAT16, (7,), {"axis": -1}, (32, 7), 32 * 7),
        ("GatherElements", (1, 100), T.INT64, (1, 9), {"axis": 1}, (1, 9), 9),
        ("GatherND", (4, 100, 24), T.FLOAT16, (4, 5, 1), {"batch_dims": 1}, (4, 5, 24), 4 * 5 * 2),
    ],
)
def test_a_gather_fetches_the_sectors_of_its_rows(operator, table, kind, indices, options, out, sectors):
    node = helper.make_node(operator, ["x", "i"], ["y"], name="g", **options)
    ends = [value("x", kind, table), value("i", T.INT64, indices)], [value("y", kind, out)]
    assert works([node], *ends)["g"].gathered_bytes == 32 * sectors
    constant = [("i", np.zeros(indices, np.int64))]
    assert works([node], ends[0][:1], ends[1], constant)["g"].gathered_bytes == 0


def test_what_folds_and_what_has_no_shape_costs_nothing():
    constants = [("a", np.zeros((4, 4), np.float32))]
    fold = helper.make_node("MatMul", ["a", "a"], ["c"], name="folds")
    open_ = helper.make_node("Relu", ["x"], ["y"], name="open")
    found = works([fold, open_], [value("x", T.FLOAT, ("n", 4))], [value("y", T.FLOAT, None)], constants)
    assert found == {}
    assert graph_flops(found) == 0


@given(*[st.integers(1, 700) for _ in range(3)], st.integers(1, 3000), st.integers(1, 16))
def test_padding_never_saves_work(batch, rows, columns, depth, multiprocessors):
    product = Product(min(batch, 16), rows, columns, depth)
    padded = padded_flops([product], multiprocessors)
    assert padded == 0 if product.is_depthwise else padded >= product.flops


def test_large_products_waste_little_and_small_ones_much():
    large, small = Product(1, 8192, 1024, 1024), Product(1, 33, 33, 32)
    assert padded_flops([large], 8) == pytest.approx(1.094 * (1 + 144 / 1024) * large.flops, rel=0.01)
    assert padded_flops([small], 8) > 30 * small.flops
    assert padded_flops([replace(large, int8=True)], 8) == padded_flops([large], 8) / 2


@pytest.mark.parametrize("kind", ["Reshape", "Transpose", "Concat"])
def test_moving_is_no_arithmetic(kind):
    node = {
        "Reshape": helper.make_node("Reshape", ["x", "s"], ["y"], name="n"),
        "Transpose": helper.make_node("Transpose", ["x"], ["y"], name="n"),
        "Concat": helper.make_node("Concat", ["x", "x"], ["y"], name="n", axis=0),
    }[kind]
    ends = [value("x", T.FLOAT, (4, 6))], [value("y", T.FLOAT, None)]
    assert works([node], *ends, [("s", np.array([24]))])["n"].plain == 0


@pytest.mark.parametrize(
    ("axis", "expected"), [(-1, SelectedKernels(6, 50)), (1, SelectedKernels(100, 3)), (2, SelectedKernels(6, 50))]
)
def test_a_selection_is_of_rows_along_its_axis(axis, expected):
    node = helper.make_node("TopK", ["x", "k"], ["values", "indices"], name="topk", axis=axis)
    outs = [value("values", T.FLOAT, None), value("indices", T.INT64, None)]
    found = works([node], [value("x", T.FLOAT, (2, 3, 50))], outs, [("k", np.array([3], np.int64))])["topk"]
    assert found.selection == expected
    assert found.plain == 0
