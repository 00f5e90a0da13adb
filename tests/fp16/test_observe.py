from __future__ import annotations

import numpy as np
import pytest
from graph_builders import model, node, value
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto as T
from planted import network_of, pictures, write_planted
from tiny_detector import open_batch, write_detector

from fine_edge.fp16 import observe as module
from fine_edge.fp16.network import read_network
from fine_edge.fp16.observe import TensorStats, observe
from fine_edge.graph.view import GraphView
from fine_edge.images import read_image
from fine_edge.preprocess import preprocess


@given(arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)))
def test_figures_are_those_of_numpy(values):
    seen = TensorStats("x").with_values(values)
    finite = np.abs(values[np.isfinite(values)])
    with np.errstate(over="ignore"):
        half = finite.astype(np.float16).astype(np.float64)
    assert seen.values == values.size
    assert seen.max_abs == finite.max(initial=0)
    assert seen.smallest == finite[finite > 0].min(initial=np.inf)
    assert seen.non_finite == values.size - finite.size
    assert seen.vanishing == ((finite > 0) & (half == 0)).sum()
    assert seen.subnormal == ((finite < 2**-14) & (half > 0)).sum()


@given(arrays.arrays(np.float32, 400, elements=st.floats(2.0**-30, 2.0**-15, width=32)))
def test_the_loss_is_about_what_rounding_to_fp16_does(values):
    seen = TensorStats("x").with_values(values)
    wide = values.astype(np.float64)
    lost = np.linalg.norm(wide - values.astype(np.float16).astype(np.float64)) / np.linalg.norm(wide)
    # The estimate takes errors for evenly spread; at most half a step each, 1.73 times its root mean square.
    assert lost <= 1.8 * seen.loss + 1e-12
    assert seen.loss <= 1


def test_figures_of_two_arrays_are_those_of_both_together():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30)).astype(np.float32) * np.float32(1e-5)
    apart = TensorStats("x").with_values(a).with_values(b)
    together = TensorStats("x").with_values(np.concatenate([a, b]))
    assert (apart.values, apart.max_abs, apart.smallest) == (together.values, together.max_abs, together.smallest)
    assert apart.subnormal == together.subnormal
    assert apart.rms == pytest.approx(together.rms)
    assert apart.loss == pytest.approx(together.loss)


def test_masks_are_not_counted():
    values = np.array([1, -2, 1e9, np.finfo(np.float32).min, -np.inf], np.float32)
    seen = TensorStats("x").with_values(values, masked=True)
    assert (seen.values, seen.max_abs, seen.non_finite) == (2, 2, 0)


def test_every_float_tensor_is_seen_with_its_real_values(tmp_path):
    path = write_planted(tmp_path / "m")
    network = read_network(path)
    images = pictures(tmp_path / "images")
    seen = observe(network, GraphView(network.model), images)
    inputs = np.concatenate([preprocess(read_image(p).pixels, 64, 64, network.preprocessing)[0] for p in images])
    features = inputs.mean(axis=(2, 3)) + 1
    assert seen.stats["images"].max_abs == inputs.max()
    assert seen.stats["images"].values == inputs.size
    assert seen.stats["features"].max_abs == pytest.approx(features.max(), rel=1e-5)
    assert seen.stats["grown"].max_abs == pytest.approx(features.max() * 2e5, rel=1e-5)
    assert seen.stats["grown"].rms == pytest.approx(np.sqrt((features**2).mean()) * 2e5, rel=1e-5)
    floats = {name for n in network.model.graph.node for name in n.output} | {"images"}
    assert floats <= set(seen.stats)
    assert {"big", "divisor", "to_logits"} <= seen.constants
    assert (seen.hidden_nodes, seen.untyped, seen.chunks) == (0, 0, 1)


@pytest.mark.parametrize("batch", [1, 2])
def test_small_chunks_and_batches_see_the_same(tmp_path, monkeypatch, batch):
    images = pictures(tmp_path / "images")
    whole = read_network(write_planted(tmp_path / "m"))
    expected = observe(whole, GraphView(whole.model), images)
    network = read_network(write_planted(tmp_path / "b", batch=batch))
    monkeypatch.setattr(module, "CHUNK_MIB", 1e-4)  # about a hundred bytes
    seen = observe(network, GraphView(network.model), images)
    assert seen.chunks > 4
    for name, stats in expected.stats.items():
        assert seen.stats[name].max_abs == pytest.approx(stats.max_abs), name
        assert seen.stats[name].smallest == pytest.approx(stats.smallest), name


def test_an_open_batch_is_studied_at_its_smallest(tmp_path):
    network = read_network(open_batch(write_detector(tmp_path), (2, 4, 8)))
    assert network.shape == (2, 3, 64, 64)
    seen = observe(network, GraphView(network.model), pictures(tmp_path / "images"))
    assert seen.stats["scores"].max_abs == pytest.approx(0.9)


def test_optimisation_hides_nothing(tmp_path):
    """ONNX Runtime would fuse Conv and Relu, and fold the constant branch."""
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        node("Relu", ["c"], ["r"], name="relu"),
        node("Exp", ["k"], ["folded"], name="exp"),
        node("Add", ["r", "folded"], ["y"], name="add"),
    ]
    constants = {"w": np.full((2, 3, 1, 1), -1, np.float32), "k": np.full(1, 3, np.float32)}
    graph = model(nodes, [value("x", T.FLOAT, (1, 3, 8, 8))], [value("y", T.FLOAT, (1, 2, 8, 8))], constants)
    seen = observe(network_of(graph), GraphView(graph), pictures(tmp_path, 1)).stats
    assert seen["c"].max_abs > 0.5
    assert seen["r"].max_abs == 0
    assert seen["folded"].max_abs == pytest.approx(np.exp(3))


def test_mask_values_are_followed_through_sums_and_choices(tmp_path):
    lowest = np.finfo(np.float32).min
    nodes = [
        node("Add", ["x", "mask"], ["sum"], name="add"),
        node("Transpose", ["sum"], ["turned"], name="turn", perm=[0, 1, 3, 2]),
        node("Softmax", ["turned"], ["y"], name="softmax"),
    ]
    shape = (1, 3, 8, 8)
    constants = {"mask": np.where(np.eye(8) > 0, lowest, 0).astype(np.float32)}
    graph = model(nodes, [value("x", T.FLOAT, shape)], [value("y", T.FLOAT, shape)], constants)
    seen = observe(network_of(graph), GraphView(graph), pictures(tmp_path, 1)).stats
    assert max(seen[name].max_abs for name in ("mask", "sum", "turned", "y")) <= 1
    assert seen["y"].values == 3 * 64


def test_non_finite_values_and_rows_of_layer_norms(tmp_path):
    nodes = [
        node("Mul", ["x", "hundred"], ["large"], name="mul"),
        node("LayerNormalization", ["large", "gamma"], ["l"], name="norm"),
        node("Log", ["zero"], ["minus_infinity"], name="log"),
        node("Add", ["l", "minus_infinity"], ["y"], name="add"),
    ]
    shape = (1, 3, 8, 8)
    constants = {"hundred": np.float32(100), "gamma": np.ones(8, np.float32), "zero": np.zeros(1, np.float32)}
    graph = model(nodes, [value("x", T.FLOAT, shape)], [value("y", T.FLOAT, shape)], constants)
    images = pictures(tmp_path, 1)
    seen = observe(network_of(graph), GraphView(graph), images).stats
    assert (seen["minus_infinity"].non_finite, seen["y"].non_finite) == (1, 192)
    rows = 100 * preprocess(read_image(images[0]).pixels, 8, 8, network_of(graph).preprocessing)[0].reshape(-1, 8)
    assert seen["large"].row_squares == pytest.approx(rows.var(axis=1).max() * 8, rel=1e-4)


def test_subgraphs_are_counted_not_seen(tmp_path):
    shape = (1, 3, 8, 8)
    branches = []
    for factor, name in ((1.0, "then"), (2.0, "else")):
        inner = model(
            [node("Mul", ["x", f"{name}_factor"], [f"{name}_y"], name=f"{name}_mul")],
            [],
            [value(f"{name}_y", T.FLOAT, shape)],
            {f"{name}_factor": np.float32(factor)},
        ).graph
        branches.append(inner)
    nodes = [
        node("ReduceMean", ["x"], ["mean"], name="mean", keepdims=0),
        node("Greater", ["mean", "half"], ["bright"], name="bright"),
        node("If", ["bright"], ["y"], name="if", then_branch=branches[0], else_branch=branches[1]),
    ]
    graph = model(
        nodes, [value("x", T.FLOAT, shape)], [value("y", T.FLOAT, shape)], {"half": np.float32(0.5)}, ir_version=8
    )
    seen = observe(network_of(graph), GraphView(graph), pictures(tmp_path, 1))
    assert seen.hidden_nodes == 2
    assert "then_y" not in seen.stats
    assert seen.stats["y"].max_abs > 0
