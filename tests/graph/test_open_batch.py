"""Graphs for any batch, out of two small ones made by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from fine_edge.errors import ArtifactError
from fine_edge.graph.checks import check
from fine_edge.graph.open_batch import BATCH, largest_batch, open_batch


def graph(nodes, constants, batch, output=(4,)):
    """A model of nodes over ``images`` (batch, 3, 4, 4) with named constants."""
    made = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, *output])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def reshaped(batch):
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["f"], allowzero=1),
        helper.make_node("Reshape", ["f", "back"], ["y"], allowzero=1),
    ]
    return graph(nodes, {"flat": [3 * batch, 16], "back": [batch, 48]}, batch, (48,))


def resized(batch):
    nodes = [helper.make_node("Resize", ["images", "", "", "sizes"], ["y"], mode="nearest")]
    return graph(nodes, {"sizes": np.array([batch, 3, 6, 8], np.int64)}, batch, (3, 6, 8))


def offset(batch):
    """Two counted rows a picture, gathered out of a flat table, and a row that is the same for each picture."""
    nodes = [
        helper.make_node("Add", ["index", "offsets"], ["places"]),
        helper.make_node("Reshape", ["places", "all"], ["p"]),
        helper.make_node("Reshape", ["images", "flat"], ["f"]),
        helper.make_node("Gather", ["f", "p"], ["g"]),
        helper.make_node("Reshape", ["g", "out"], ["s"]),
        helper.make_node("Add", ["s", "same"], ["y"]),
    ]
    constants = {
        "index": [[1, 5]],
        "offsets": np.arange(2 * batch)[:, None] * 24,
        "all": [4 * batch],
        "flat": [48 * batch],
        "out": [batch, 4],
        "same": np.full((batch, 1), 0.5, np.float32),
    }
    return graph(nodes, constants, batch)


def run(model, images):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize("make", [reshaped, resized, offset])
def test_any_batch_gives_what_a_graph_for_it_gives(make):
    opened = open_batch(make(2), make(3), 5)
    onnx.checker.check_model(opened, full_check=True)
    assert opened.graph.input[0].type.tensor_type.shape.dim[0].dim_param == BATCH
    assert largest_batch(opened) == 5
    assert [finding for finding in check(opened) if finding.severity == "error"] == []
    images = np.random.default_rng(0).random((5, 3, 4, 4), dtype=np.float32)
    for batch in (1, 2, 3, 5):
        np.testing.assert_array_equal(run(opened, images[:batch]), run(make(batch), images[:batch]))


def test_an_open_batch_of_others_stays_an_error():
    opened = open_batch(reshaped(2), reshaped(3), 5)
    del opened.metadata_props[:]
    assert largest_batch(opened) is None
    assert {finding.rule for finding in check(opened) if finding.severity == "error"} == {"FE04"}


def multiplied(batch):
    return graph([helper.make_node("Mul", ["images", "by"], ["y"])], {"by": np.float32(batch)}, batch, (3, 4, 4))


def transposed(batch):
    nodes = [helper.make_node("Transpose", ["images"], ["y"], perm=[0, 1, 2, 3] if batch == 2 else [0, 1, 3, 2])]
    return graph(nodes, {}, batch, (3, 4, 4))


def spread(batch):
    nodes = [helper.make_node("Reshape", ["images", "to"], ["r"]), helper.make_node("Reshape", ["r", "out"], ["y"])]
    return graph(nodes, {"to": [batch, batch, 48 // batch], "out": [batch, 48]}, batch, (48,))


def longer(batch):
    nodes = [helper.make_node("Relu", ["images" if i == 0 else f"x{i - 1}"], [f"x{i}"]) for i in range(batch)]
    return graph([*nodes, helper.make_node("Relu", [f"x{batch - 1}"], ["y"])], {}, batch, (3, 4, 4))


def of_first_axis(batch):
    nodes = [helper.make_node("Reshape", ["images", "to"], ["y"])]
    made = graph(nodes, {"to": [3, 16 * batch]}, batch)
    made.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 16 * batch
    return made


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (multiplied, "whose values depend on the batch"),
        (transposed, "is another node for another batch"),
        (spread, "spreads the batch over 3 dimensions"),
        (longer, "has other nodes for another batch"),
        (of_first_axis, "the first dimension of 'y' is not the batch"),
    ],
)
def test_what_is_no_graph_for_any_batch_is_refused_by_node(make, said):
    with pytest.raises(ArtifactError, match=said) as error:
        open_batch(make(2), make(3), 8)
    assert error.value.hint == "export it for one batch: --batch N"
