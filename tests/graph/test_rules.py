"""Every rule has a graph that triggers it and one that does not."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from graph_builders import attention, external, model, node, small_net, unary, value, with_constants
from onnx import TensorProto as T
from onnx import helper, numpy_helper

from fine_edge.graph.checks import RULES, check
from fine_edge.graph.view import Finding, GraphView

X = (1, 4, 8, 8)
GRID = np.zeros((1, 2, 2, 2), np.float32)


def split_norm(exponent):
    """(x - mean)^2 -> mean -> + eps -> sqrt, as exporters write LayerNorm before opset 17."""
    nodes = [
        node("Pow", ["x", "two"], ["sq"], name="square"),
        node("ReduceMean", ["sq"], ["var"], name="variance", axes=[-1], keepdims=1),
        node("Add", ["var", "eps"], ["ve"], name="epsilon"),
        node("Sqrt", ["ve"], ["y"], name="root"),
    ]
    constants = {"two": np.float32(exponent), "eps": np.float32(1e-5)}
    return model(nodes, [value("x", T.FLOAT, (1, 8))], [value("y", T.FLOAT, (1, 1))], constants)


def scatter(opset=17, **attributes):
    constants = {"i": np.asarray([[0]]), "u": np.ones((1, 4), np.float32)}
    return with_constants("ScatterND", constants, (4, 4), dims=(4, 4), opset=opset, **attributes)


def topk(k, size=5000):
    step = node("TopK", ["x", "k"], ["y", "i"], name="step")
    outputs = [value("y", T.FLOAT, (1, k)), value("i", T.INT64, (1, k))]
    return model([step], [value("x", T.FLOAT, (1, size))], outputs, {"k": np.asarray([k])})


def computed_input(op_type, names, opset):
    """An operator whose last input is computed from the network's input."""
    constants = {"s": np.asarray([0]), "e": np.asarray([2]), "p": np.asarray([0, 1])}
    nodes = [
        node("ReduceMax", ["x"], ["m"], keepdims=0),
        node("Cast", ["m"], ["c"], to=T.INT64),
        node("Reshape", ["c", "one"], ["a"]),
        node(op_type, names, ["y"], name="step"),
    ]
    constants = {name: constants[name] for name in names if name in constants} | {"one": np.asarray([1])}
    return model(nodes, [value("x", T.FLOAT, (4,))], [value("y", T.FLOAT, (2,))], constants, opset=opset)


def shape_driven_slice():
    """Slice whose end is the input's own static shape: it folds."""
    nodes = [node("Shape", ["x"], ["e"]), node("Slice", ["x", "s", "e", "e0"], ["y"], name="step")]
    inputs = [value("x", T.FLOAT, (4,))]
    return model(nodes, inputs, [value("y", T.FLOAT, (4,))], {"s": np.asarray([0]), "e0": np.asarray([0])})


def branches():
    def branch(name, number):
        tensor = numpy_helper.from_array(np.full((1,), number, np.float32))
        return model([node("Constant", [], [name], value=tensor)], [], [value(name, T.FLOAT, (1,))]).graph

    step = node("If", ["c"], ["y"], name="step", then_branch=branch("t", 1), else_branch=branch("e", 2))
    return model([step], [value("c", T.BOOL, ())], [value("y", T.FLOAT, (1,))])


def cast_to(dtype):
    nodes = [node("Cast", ["x"], ["d"], to=dtype, name="step"), node("Cast", ["d"], ["y"], to=T.FLOAT)]
    return model(nodes, [value("x", T.FLOAT, X)], [value("y", T.FLOAT, X)])


def inside_fine(op_type, **attributes):
    graph = unary(op_type, **attributes)
    graph.graph.node[0].name = f"/model/encoder/fpn_blocks.0/fine/{op_type}"
    return graph


def no_longer_ordered():
    graph = small_net()
    nodes = list(graph.graph.node)
    del graph.graph.node[:]
    graph.graph.node.extend(reversed(nodes))
    return graph


def no_shape():
    graph = unary("Relu")
    graph.graph.input[0].type.tensor_type.ClearField("shape")
    return graph


def loop(trips):
    """x -> y by an identity, ``trips`` times, or as long as a constant says so."""
    carried = [value("xi", T.FLOAT, X)], [value("xo", T.FLOAT, X)]
    steps = [node("Identity", ["ci"], ["co"]), node("Relu", ["xi"], ["xo"])]
    inputs = [value("i", T.INT64, ()), value("ci", T.BOOL, ()), *carried[0]]
    body = helper.make_graph(steps, "body", inputs, [value("co", T.BOOL, ()), *carried[1]])
    constants = {"go": np.asarray(True)} | ({} if trips is None else {"trips": np.int64(trips)})
    step = node("Loop", ["trips" if trips is not None else "", "go", "x"], ["y"], name="step", body=body)
    return model([step], [value("x", T.FLOAT, X)], [value("y", T.FLOAT, X)], constants)


def quantized(zero_point):
    """x quantized and back by a scale of 0.1."""
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["y"])]
    constants = {"s": np.float32(0.1), "z": zero_point}
    return model(nodes, [value("x", T.FLOAT, X)], [value("y", T.FLOAT, X)], constants)


def constant_node(**attributes):
    nodes = [node("Constant", [], ["c"], **attributes), node("Add", ["x", "c"], ["y"], name="step")]
    return model(nodes, [value("x", T.FLOAT, X)], [value("y", T.FLOAT, X)])


def expanded(size):
    """x + the sum of a constant that a few bytes make."""
    nodes = [
        node("Expand", ["one", "s"], ["c"], name="expand"),
        node("ReduceSum", ["c"], ["r"], keepdims=0),
        node("Add", ["x", "r"], ["y"], name="step"),
    ]
    constants = {"one": np.ones((1, 1), np.float32), "s": np.asarray([size, size])}
    return model(nodes, [value("x", T.FLOAT, X)], [value("y", T.FLOAT, X)], constants)


def infinite(size):
    weights = np.ones((size, size), np.float32)
    weights[0, 0] = np.inf
    return weights


def moved_infinity():
    """An infinite weight that a Transpose stands before."""
    nodes = [node("Transpose", ["w"], ["t"], perm=[1, 0, 2, 3]), node("Conv", ["x", "t"], ["y"], name="step")]
    constants = {"w": np.full((4, 4, 1, 1), np.inf, np.float32)}
    return model(nodes, [value("x", T.FLOAT, X)], [value("y", T.FLOAT, X)], constants)


def cubic():
    scales = {"s": np.asarray([1, 1, 2, 2], np.float32)}
    return with_constants("Resize", scales, (1, 4, 16, 16), inputs=["x", "", "s"], mode="cubic")


def resize(**attributes):
    scales = {"s": np.asarray([1, 1, 0.5, 0.5], np.float32)}
    return with_constants("Resize", scales, (1, 4, 4, 4), inputs=["x", "", "s"], opset=18, mode="linear", **attributes)


def grid_sample(opset, dims=X, grid=GRID, out=(1, 4, 2, 2), **attributes):
    return with_constants("GridSample", {"g": grid}, out, dims=dims, opset=opset, **attributes)


GRID_5D = {"dims": (1, 4, 8, 8, 8), "grid": np.zeros((1, 2, 2, 2, 3), np.float32), "out": (1, 4, 2, 2, 2)}

# (rule, severity, graph that triggers it, words of the message)
TRIGGERS = {
    "unsorted nodes": ("FE01", "error", no_longer_ordered, "topologically sorted"),
    "missing attribute": ("FE01", "error", lambda: unary("Cast"), "not valid ONNX"),
    "absent initialiser": ("FE01", "error", lambda: with_constants("Add", {}, X, inputs=["x", "gone"]), "gone"),
    "old opset": ("FE02", "warning", lambda: unary("Relu", opset=16), "opset 16"),
    "new opset": ("FE02", "warning", lambda: unary("Relu", opset=20), "opset 20"),
    "split LayerNorm": ("FE03", "error", lambda: split_norm(2), "in pieces"),
    "dynamic input": ("FE04", "error", lambda: unary("Relu", ("n", 4)), "input 'x'"),
    "dimension of 0": ("FE04", "error", lambda: unary("Relu", (0, 4)), "input 'x' (?, 4)"),
    "dimension of -1": ("FE04", "error", lambda: unary("Relu", (-1, 4)), "input 'x'"),
    "unknown rank": ("FE04", "error", no_shape, "of unknown rank"),
    "unknown dimension": ("FE04", "error", lambda: unary("Relu", (None, 4)), "input 'x'"),
    "DOUBLE": ("FE05", "warning", lambda: cast_to(T.DOUBLE), "computes it as FP32"),
    "INT16": ("FE05", "error", lambda: cast_to(T.INT16), "INT16 in 'd'"),
    "UINT32": ("FE05", "error", lambda: cast_to(T.UINT32), "no such type"),
    "UINT8 inside": ("FE05", "error", lambda: cast_to(T.UINT8), "inputs and outputs only"),
    "STRING": ("FE05", "error", lambda: unary("Identity", dtype=T.STRING), "STRING"),
    "weights beside": ("FE06", "warning", lambda: external(small_net(), "w.bin"), "w.bin"),
    "weights elsewhere": ("FE06", "error", lambda: external(small_net(), "../w.bin"), "outside the folder"),
    "constant of 1e5": ("FE07", "warning", lambda: with_constants("Mul", {"c": np.float32(1e5)}, X), "100000"),
    "mask": ("FE07", "info", small_net, "read as a mask"),
    "GridSample-20 linear": ("FE08", "error", lambda: grid_sample(20, mode="linear"), "silently wrong"),
    "GridSample-20 cubic": ("FE08", "error", lambda: grid_sample(20, mode="cubic"), "silently wrong"),
    "GridSample 5-D": ("FE09", "error", lambda: grid_sample(20, mode="nearest", **GRID_5D), "5-D"),
    "ScatterND add": ("FE10", "error", lambda: scatter(reduction="add"), "'add'"),
    "ScatterND none": ("FE10", "error", lambda: scatter(reduction="none"), "'none'"),
    "ScatterND-18": ("FE10", "warning", lambda: scatter(18), "10.9"),
    "TopK 3841": ("FE11", "error", lambda: topk(3841), "3841"),
    "TopK of a computed K": ("FE11", "warning", lambda: computed_input("TopK", ["x", "a"], 17), "not constant"),
    "Slice": ("FE12", "warning", lambda: computed_input("Slice", ["x", "s", "e", "a"], 17), "axes of Slice"),
    "Pad axes": ("FE12", "warning", lambda: computed_input("Pad", ["x", "p", "", "a"], 18), "axes of Pad"),
    "Pad pads": ("FE12", "warning", lambda: computed_input("Pad", ["x", "a"], 18), "pads of Pad"),
    "Reduce axes": ("FE12", "error", lambda: computed_input("ReduceSum", ["x", "a"], 13), "axes of ReduceSum"),
    "antialias": ("FE13", "error", lambda: resize(antialias=1), "antialiasing"),
    "cubic": ("FE13", "warning", cubic, "cubic"),
    "NonZero": ("FE14", "warning", lambda: unary("NonZero"), "depends on data"),
    "Compress": ("FE14", "error", lambda: unary("Compress"), "depends on data"),
    "If": ("FE14", "warning", branches, "nothing fuses"),
    "endless Loop": ("FE14", "error", lambda: loop(2**62), "nothing bounds its iterations"),
    "while": ("FE14", "error", lambda: loop(None), "nothing bounds its iterations"),
    "Loop": ("FE14", "error", lambda: loop(8), "iteration by iteration"),
    "DeformConv": ("FE14", "error", lambda: unary("DeformConv", opset=19), "ModulatedDeformConv2d"),
    "NMS": ("FE14", "warning", lambda: unary("NonMaxSuppression"), "number of boxes"),
    "RoiAlign": ("FE14", "error", lambda: unary("RoiAlign"), "ROIAlign_TRT"),
    "sequences": ("FE14", "error", lambda: unary("SplitToSequence"), "no sequences"),
    "foreign operator": ("FE15", "error", lambda: unary("BiasGelu", domain="com.microsoft"), "::BiasGelu is neither"),
    "foreign name of ONNX": ("FE15", "warning", lambda: unary("Gelu", domain="com.microsoft"), "read as ONNX's Gelu"),
    "plugin": ("FE15", "warning", lambda: unary("EfficientNMS_TRT", domain="TRT"), "plugin"),
    "FP32 attention": ("FE16", "warning", lambda: attention(16, dtype=T.FLOAT), "never fused"),
    "head dim 8": ("FE16", "warning", lambda: attention(8), "head dimension 8"),
    "head dim 20": ("FE16", "warning", lambda: attention(20), "head dimension 20"),
    "head dim 264": ("FE16", "warning", lambda: attention(264), "head dimension 264"),
    "Shape inside FINE": ("FE17", "error", lambda: inside_fine("Shape"), "splits the block"),
    "Relu inside FINE": ("FE17", "info", lambda: inside_fine("Relu"), "not part of its fast form"),
    "NaN in a mask": (
        "FE18",
        "error",
        lambda: with_constants("Add", {"c": np.float32(np.nan)}, X),
        "'c' holds NaN in 1",
    ),
    "NaN in half": ("FE18", "error", lambda: with_constants("Add", {"c": np.float16(np.nan)}, X), "holds NaN"),
    "NaN in a Constant": ("FE18", "error", lambda: constant_node(value_float=float("nan")), "'c' holds NaN"),
    "NaN in an attribute": ("FE18", "error", lambda: unary("LeakyRelu", alpha=float("nan")), "'alpha' holds NaN"),
    "infinite weight": (
        "FE18",
        "error",
        lambda: with_constants("MatMul", {"c": infinite(8)}, X),
        "'c' of MatMul holds inf",
    ),
    "infinite scale": ("FE18", "error", lambda: with_constants("Mul", {"c": np.float32(np.inf)}, X), "of Mul"),
    "large tensor": ("FE19", "error", lambda: expanded(2**20), "makes a tensor of"),
    "equation without an end": (
        "FE19",
        "error",
        lambda: with_constants("Einsum", {"c": infinite(8)}, X, equation="...ab,*..bc->...ac"),
        "cannot be read",
    ),
    "infinite, moved": ("FE18", "error", moved_infinity, "'w' of Conv"),
    "refused by name": ("FE20", "error", lambda: unary("Det"), "refuses it"),
    "unknown": ("FE20", "error", lambda: unary("Swish", opset=24), "searches a plugin"),
    "Softmax of INT32": ("FE21", "error", lambda: unary("Softmax", dtype=T.INT32), "of INT32"),
    "window of one dimension": ("FE22", "error", lambda: unary("AveragePool", kernel_shape=[2]), "1 dimensions"),
    "9 dimensions": ("FE23", "error", lambda: unary("Relu", (1,) * 9), "9 dimensions"),
    "UINT8 zero point": ("FE24", "error", lambda: quantized(np.uint8(0)), "UINT8"),
}

# (rule that stays silent, graph)
SILENT = {
    "valid graph": ("FE01", small_net),
    "opset 17": ("FE02", lambda: unary("Relu", opset=17)),
    "opset 19": ("FE02", lambda: unary("Relu", opset=19)),
    "LayerNormalization": ("FE03", small_net),
    "static": ("FE04", small_net),
    "FP16": ("FE05", lambda: unary("Relu", dtype=T.FLOAT16)),
    "UINT8 image": (
        "FE05",
        lambda: model([node("Cast", ["x"], ["y"], to=T.FLOAT)], [value("x", T.UINT8, X)], [value("y", T.FLOAT, X)]),
    ),
    "weights inside": ("FE06", small_net),
    "small constants": ("FE07", lambda: with_constants("Mul", {"c": np.float32(65504)}, X)),
    "infinite mask": ("FE07", lambda: with_constants("Add", {"c": np.float32(-np.inf)}, X)),
    "GridSample-16": ("FE08", lambda: grid_sample(17, mode="bilinear")),
    "GridSample-20 default": ("FE08", lambda: grid_sample(20)),
    "GridSample-20 nearest": ("FE08", lambda: grid_sample(20, mode="nearest")),
    "GridSample 4-D": ("FE09", lambda: grid_sample(17)),
    "ScatterND-16": ("FE10", scatter),
    "TopK 3840": ("FE11", lambda: topk(3840)),
    "constant axes": ("FE12", shape_driven_slice),
    "plain Resize": ("FE13", resize),
    "ReverseSequence": ("FE14", lambda: unary("ReverseSequence")),
    "ordinary operators": ("FE14", small_net),
    "ONNX domain": ("FE15", small_net),
    "head dim 16": ("FE16", lambda: attention(16)),
    "head dim 256": ("FE16", lambda: attention(256)),
    "softmax of scores": ("FE16", small_net),
    "MatMul inside FINE": ("FE17", lambda: attention(16)),
    "Shape outside FINE": ("FE17", lambda: unary("Shape")),
    "finite": ("FE18", small_net),
    "Einsum": ("FE19", lambda: with_constants("Einsum", {"c": infinite(8)}, X, equation="...ab, bc -> ...ac")),
    "small tensor": ("FE19", lambda: expanded(2)),
    "known": ("FE20", small_net),
    "Softmax of FP16": ("FE21", lambda: unary("Softmax", dtype=T.FLOAT16)),
    "inference": ("FE22", small_net),
    "8 dimensions": ("FE23", lambda: unary("Relu", (1,) * 8)),
    "symmetric": ("FE24", lambda: quantized(np.int8(0))),
    "infinite attention mask": ("FE18", lambda: with_constants("Add", {"c": np.float32(-np.inf)}, X)),
    "infinite limit": ("FE18", lambda: with_constants("Min", {"c": np.float32(np.inf)}, X)),
}


@pytest.mark.parametrize("case", TRIGGERS)
def test_a_rule_finds_its_fault(case):
    rule, severity, build, words = TRIGGERS[case]
    found = [finding for finding in check(build()) if finding.rule == rule]
    assert found, f"{rule} found nothing"
    assert found[0].severity == severity
    assert words in found[0].message
    assert found[0].hint
    assert found[0].node


@pytest.mark.parametrize("case", SILENT)
def test_a_rule_is_silent_without_its_fault(case):
    rule, build = SILENT[case]
    assert [finding for finding in check(build()) if finding.rule == rule] == []


def test_rules_are_numbered_in_order_and_name_source_and_hint():
    for number, rule in enumerate(RULES, 1):
        text = rule.__doc__ or ""
        assert re.match(rf"FE{number:02d}: ", text), rule.__name__
        assert "Source: " in text
        assert "Hint: " in text


def test_the_list_of_rules_in_the_documents_is_theirs():
    text = (Path(__file__).parents[2] / "docs" / "COMMANDS.md").read_text()
    for rule in RULES:
        number, statement = " ".join((rule.__doc__ or "").split("\n\n")[0].split()).split(": ", 1)
        assert f"| {number} | {statement} |" in text


def test_every_rule_is_tested_both_ways():
    numbers = {f"FE{number:02d}" for number in range(1, len(RULES) + 1)}
    assert {rule for rule, *_ in TRIGGERS.values()} == numbers
    assert {rule for rule, *_ in SILENT.values()} == numbers


def test_errors_come_first():
    severities = [finding.severity for finding in check(no_longer_ordered())]
    assert severities == sorted(severities, key=("error", "warning", "info").index)


def test_a_clean_graph_has_no_findings():
    assert check(attention(32)) == []


def test_a_finding_as_json():
    finding = Finding("FE02", "warning", "graph", "old", "export again")
    assert finding.to_json() == {
        "rule": "FE02", "severity": "warning", "node": "graph", "message": "old", "hint": "export again"
    }  # fmt: skip


def test_a_cycle_does_not_hang_the_rules():
    nodes = [node("Softmax", ["b"], ["a"], name="one"), node("Add", ["a", "a"], ["b"], name="two")]
    graph = model(nodes, [value("x", T.FLOAT, (1,))], [value("b", T.FLOAT, (1,))])
    assert "FE01" in {finding.rule for finding in check(graph)}
    assert GraphView(graph).is_constant("a") is True  # it depends on no input


def test_an_endless_shape_list_does_not_take_the_memory():
    step = node("Slice", ["x", "s", "e"], ["y"])
    constants = {"s": np.asarray([0]), "e": np.asarray([1])}
    graph = model([step], [value("x", T.INT64, (2**62,))], [value("y", T.INT64, (1,))], constants)
    assert [finding.rule for finding in check(graph)] == ["FE19"]


@pytest.mark.parametrize("dims", [(-(2**62), 300), (2**31, 2**31, 2**31)])
def test_impossible_dimensions_do_not_reach_shape_inference(dims):
    constants = {"s": np.asarray([0]), "e": np.asarray([2])}
    graph = with_constants("Slice", constants, (2, 2), dims=dims, inputs=["x", "s", "e", "s"])
    assert "FE01" not in {finding.rule for finding in check(graph)}
