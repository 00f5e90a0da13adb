from __future__ import annotations

import platform

import numpy as np
import onnxruntime
import pytest
from graph_builders import model, node, small_net, value
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto as T

from fine_edge.graph.convert import to_fp16
from fine_edge.graph.emulate import emulated
from fine_edge.graph.view import GraphView

HALF = np.float16


def run(graph, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def chain(w1, w2):
    """x -> MatMul -> Relu -> MatMul -> y."""
    nodes = [
        node("MatMul", ["x", "w1"], ["a"], name="up"),
        node("Relu", ["a"], ["b"], name="relu"),
        node("MatMul", ["b", "w2"], ["y"], name="down"),
    ]
    dims = (1, len(w1))
    return model(nodes, [value("x", T.FLOAT, dims)], [value("y", T.FLOAT, dims)], {"w1": w1, "w2": w2})


def rounded_chain(x, w1, w2):
    """The same in numpy: results in FP16, sums in FP32."""
    with np.errstate(over="ignore", invalid="ignore"):
        x, w1, w2 = (array.astype(HALF).astype(np.float32) for array in (x, w1, w2))
        middle = np.maximum((x @ w1).astype(HALF).astype(np.float32), 0)
        return (middle @ w2).astype(HALF).astype(np.float32)


@given(st.data())
def test_results_are_rounded_as_numpy_rounds(data):
    values = st.floats(-4, 4, width=32)
    x, w1, w2 = (data.draw(arrays.arrays(np.float32, dims, elements=values)) for dims in ((1, 4), (4, 4), (4, 4)))
    result = run(emulated(to_fp16(chain(w1, w2))), {"x": x})
    # Weights that FP16 rounds to zero become its smallest number; sums may be added in another order.
    np.testing.assert_allclose(result, rounded_chain(x, w1, w2), rtol=2e-3, atol=2e-5)


def test_an_overflow_in_the_middle_shows_which_onnx_runtime_hides():
    w1, w2 = np.full((4, 4), 1e3, np.float32), np.full((4, 4), 1e-3, np.float32)
    half = to_fp16(chain(w1, w2))
    x = {"x": np.full((1, 4), 100, np.float32)}
    assert np.isinf(run(emulated(half), x)).all()
    if platform.machine() == "x86_64":
        # Why the emulation exists: should this ever fail, ONNX Runtime has learnt to round.
        assert np.isfinite(run(half, x)).all()


@pytest.mark.parametrize("kept", [[], ["up", "relu", "down"], ["up"]])
def test_kept_nodes_are_not_rounded(kept):
    rng = np.random.default_rng(2)
    w1, w2 = (rng.normal(size=(4, 4)).astype(np.float32) for _ in range(2))
    graph = chain(w1, w2)
    x = {"x": rng.normal(size=(1, 4)).astype(np.float32)}
    exact, result = run(graph, x), run(emulated(to_fp16(graph, keep_fp32=kept)), x)
    assert np.array_equal(exact, result) == (len(kept) == 3)


def test_nothing_is_fp16_any_more_but_what_the_casts_round():
    half = to_fp16(small_net())
    before = half.SerializeToString()
    graph = emulated(half)
    assert half.SerializeToString() == before
    view = GraphView(graph)
    halves = {name for name, dtype in view.dtypes().items() if dtype == T.FLOAT16}
    assert halves
    assert all(name.endswith("/half") for name in halves)
    x = {"x": np.random.default_rng(0).random((1, 3, 8, 8), dtype=np.float32)}
    np.testing.assert_allclose(run(graph, x), run(half, x), atol=2e-3)
