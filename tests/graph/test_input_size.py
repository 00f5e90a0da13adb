"""Open dimensions are named, or given the size that was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from graph_builders import model, node, value
from onnx import TensorProto as T

from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.graph.input_size import InputSize, fixed, require_static, shapes_text
from fine_edge.graph.view import GraphView

WHERE = Path("m.onnx")


def two_inputs(picture, ids=("n", 2)):
    inputs = [value("x", T.FLOAT, picture), value("ids", T.INT64, ids)]
    return model([node("Relu", ["x"], ["y"])], inputs, [value("y", T.FLOAT, picture)])


@pytest.mark.parametrize(
    ("picture", "shapes"),
    [
        (("n", 3, "h", "w"), "x 2x3x32x64, ids 2x2"),
        ((-1, 3, 0, None), "x 2x3x32x64, ids 2x2"),
        (("n", "h", "w", 3), "x 2x32x64x3, ids 2x2"),
        ((2, 3, 32, 64), "x 2x3x32x64, ids 2x2"),
    ],
)
def test_open_dimensions_get_the_size_and_results_follow(picture, shapes):
    graph = fixed(two_inputs(picture), InputSize(32, 64, 2), WHERE)
    assert shapes_text(graph) == shapes
    assert GraphView(graph).shape("y") == GraphView(graph).shape("x")
    require_static(graph, WHERE)


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        (two_inputs((1, 3, 32, 64)), "has a fixed size"),
        (two_inputs(("n", "c", "h", "w")), "channels"),
        (two_inputs(("n", 3, "h", "w"), ("n", "m")), "'ids'"),
        (two_inputs(("n", 3)), "has no picture input"),
    ],
)
def test_what_a_size_cannot_fix_is_said(graph, words):
    with pytest.raises(ArtifactError, match=words):
        fixed(graph, InputSize(32, 64, 2), WHERE)


def test_sizes_are_read_or_refused():
    assert InputSize.parse("640") == InputSize(640, 640)
    assert InputSize.parse("480x640", 4) == InputSize(480, 640, 4)
    assert InputSize.parse(None) is None
    for text, batch in (("0", None), ("a", None), ("1x2x3", None), ("-1", None), ("9" * 9, None), ("64", 0), (None, 2)):
        with pytest.raises(ConfigError):
            InputSize.parse(text, batch)
