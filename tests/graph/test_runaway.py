"""Small graphs that are large, or never end, once somebody runs them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_builders import model, node, save, small_net, value
from onnx import TensorProto as T
from onnx import helper

from fine_edge.errors import ArtifactError
from fine_edge.graph.checks import read_vetted
from fine_edge.graph.model_file import read_model
from fine_edge.graph.runaway import DEEPEST, MOST_NODES, expansion, runaway
from fine_edge.graph.view import GraphView
from fine_edge.runners.ort import OrtRunner

X = value("x", T.FLOAT, (1, 3, 32, 32))
Y = value("y", T.FLOAT, (1, 3, 32, 32))
HUGE = np.array([2**20, 2**15])
ONE = np.ones((1, 1), np.float32)
SUM = [node("ReduceSum", ["c"], ["r"], name="sum", keepdims=0), node("Add", ["x", "r"], ["y"], name="add")]


def made(op_type, constants, **attributes):
    """A graph that adds the sum of what an operator makes of constants alone."""
    return model([node(op_type, list(constants), ["c"], name="bomb", **attributes), *SUM], [X], [Y], constants)


def doubled(times, start):
    """A tensor that is put behind itself, again and again."""
    steps = [node("Concat", [f"t{i}"] * 2, [f"t{i + 1}"], name=f"d{i}", axis=0) for i in range(times)]
    steps[0].input[:] = [start] * 2
    steps[-1].output[0] = "c"
    return model([*steps, *SUM], [X], [Y], {} if start == "x" else {start: np.ones(4, np.float32)})


def hidden():
    """A shape by operators that ONNX's shape inference does not follow."""
    constants = {"k": ONE, "a": np.array([2**10, 2**10]), "b": np.array([2, 2])}
    nodes = [node("Pow", ["a", "b"], ["s"]), node("Expand", ["k", "s"], ["c"], name="bomb"), *SUM]
    return model(nodes, [X], [Y], constants)


def many():
    """Tensors that fit one by one, but not all together."""
    steps = []
    for i in range(9):
        steps.append(node("ConstantOfShape", ["s"], [f"c{i}"]))
        steps.append(node("ReduceSum", [f"c{i}"], [f"r{i}"], keepdims=0))
    total = node("Sum", ["x", *(f"r{i}" for i in range(9))], ["y"])
    return model([*steps, total], [X], [Y], {"s": np.array([2**15, 2**11])})


BOMBS = {
    "ConstantOfShape": lambda: made("ConstantOfShape", {"s": HUGE}),
    "2^62 elements": lambda: made("ConstantOfShape", {"s": np.array([2**62])}),
    "Expand": lambda: made("Expand", {"k": ONE, "s": HUGE}),
    "Tile": lambda: made("Tile", {"k": ONE, "s": HUGE}),
    "Range": lambda: made("Range", {"a": np.int64(0), "b": np.int64(2**36), "d": np.int64(1)}),
    "Pad": lambda: made("Pad", {"k": ONE, "s": np.array([2**20, 2**15, 0, 0])}),
    "random": lambda: made("RandomNormal", {}, shape=[2**16, 2**16]),
    "outer product": lambda: made(
        "MatMul", {"k": np.zeros((2**17, 1), np.float32), "l": np.zeros((1, 2**17), np.float32)}
    ),
    "doubled": lambda: doubled(30, "x"),
    "doubled constant": lambda: doubled(40, "s"),
    "hidden": hidden,
    "many": many,
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_fill_memory_is_found_before_it_runs(name):
    reason = runaway(GraphView(BOMBS[name]()))
    assert "elements" in reason or "is unknown before" in reason


def test_a_declared_shape_hides_nothing():
    graph = made("Expand", {"k": ONE, "s": HUGE})
    graph.graph.value_info.append(value("c", T.FLOAT, (1, 1)))
    assert "elements" in runaway(GraphView(graph))


def test_an_ordinary_graph_is_none():
    assert not runaway(GraphView(small_net()))
    assert not runaway(GraphView(made("ConstantOfShape", {"s": np.array([2, 3])})))


def test_what_runs_away_never_reaches_the_runtime(tmp_path):
    for place, build in enumerate((BOMBS["Expand"], lambda: functions(DEEPEST + 2, 1))):
        with pytest.raises(ArtifactError):
            OrtRunner(save(build(), tmp_path / f"{place}.onnx"))


def functions(levels, calls, *, recursive=False):
    """Functions that call the next one ``calls`` times, the last one a Relu, or the first one again."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    made = []
    for level in range(levels):
        names = ["a", *(f"t{call}" for call in range(calls - 1)), "b"]
        last = level == levels - 1
        inner, domain = ("F0", "f") if last and recursive else ("Relu", "") if last else (f"F{level + 1}", "f")
        steps = [node(inner, [names[i]], [names[i + 1]], domain=domain) for i in range(calls)]
        made.append(helper.make_function("f", f"F{level}", ["a"], ["b"], steps, opsets))
    graph = helper.make_graph([node("F0", ["x"], ["y"], domain="f")], "g", [X], [Y])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=made)


def nested(levels):
    """If inside If."""
    branch = helper.make_graph([node("Identity", ["x"], ["z"])], "b", [], [value("z", T.FLOAT, None)])
    for level in range(levels):
        step = node("If", ["c"], [f"z{level}"], then_branch=branch, else_branch=branch)
        branch = helper.make_graph([step], "b", [], [value(f"z{level}", T.FLOAT, None)])
    return branch


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (functions(1, 1, recursive=True), "call themselves"),
        (functions(3, 1, recursive=True), "call themselves"),
        (functions(DEEPEST + 2, 1), "inside each other"),
        (functions(30, 2), f"more than {MOST_NODES} nodes"),
    ],
    ids=["itself", "in a circle", "deep", "exploding"],
)
def test_functions_that_expand_without_end_are_refused_on_reading(tmp_path, graph, words):
    assert words in expansion(graph)
    with pytest.raises(ArtifactError, match="cannot be expanded"):
        read_model(save(graph, tmp_path / "m.onnx"))


def test_ordinary_functions_are_read_and_looked_into(tmp_path):
    path = save(functions(4, 2), tmp_path / "m.onnx")
    assert read_vetted(path).nodes
    bomb = functions(1, 1)
    bomb.functions[0].node[0].CopyFrom(node("Expand", ["a", "s"], ["b"]))
    bomb.functions[0].node.insert(0, node("Constant", [], ["s"], value_ints=[2**40, 1, 1, 1]))
    with pytest.raises(ArtifactError, match="elements"):
        read_vetted(save(bomb, tmp_path / "bomb.onnx"))
    twice = functions(1, 1)
    twice.functions.append(twice.functions[0])
    assert "defined twice" in expansion(twice)


def test_graphs_inside_each_other_have_a_limit():
    graph = onnx.ModelProto()
    graph.graph.CopyFrom(nested(4))
    assert not expansion(graph)
