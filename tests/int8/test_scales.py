from __future__ import annotations

import numpy as np
import pytest
from convolutional import graph, pictures, write
from graph_builders import model, node, value
from onnx import TensorProto as T
from PIL import Image

from fine_edge.errors import ArtifactError, ImageError
from fine_edge.fp16.network import read_network
from fine_edge.graph.view import GraphView
from fine_edge.images import Pictures
from fine_edge.int8.scales import METHODS, calibration_pictures, largest_magnitudes, shared, unsuited


@pytest.mark.parametrize(
    ("pixels", "reason"),
    [
        (np.full((20, 20, 3), 128), "one colour"),
        (np.random.default_rng(0).integers(0, 256, (64, 64, 3)), "noise"),
        (np.arange(60).reshape(20, 1, 3) * 4, "one pixel wide"),
        (np.arange(20)[None, :, None] * np.ones((20, 20, 3)) * 12, ""),
    ],
)
def test_pictures_that_say_nothing_of_real_inputs(pixels, reason):
    found = unsuited(pixels.astype(np.uint8))
    assert reason in found
    assert bool(found) == bool(reason)


def test_calibration_takes_different_pictures_and_refuses_too_few(tmp_path):
    folder = pictures(tmp_path / "p", 9)
    found = calibration_pictures(Pictures([folder]))
    assert len(found.paths) == 9
    assert found.sha256 == calibration_pictures(Pictures([folder])).sha256
    for index in range(2, 9):  # copies of one picture
        (folder / f"picture{index:02}.png").write_bytes((folder / "picture01.png").read_bytes())
    with pytest.raises(ImageError, match="2 different pictures are too few"):
        calibration_pictures(Pictures([folder]))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "black.png")
    with pytest.raises(ImageError, match="one colour") as caught:
        calibration_pictures(Pictures([folder]))
    assert "black.png" in str(caught.value)


def test_ranges_of_all_methods(tmp_path):
    network = read_network(write(tmp_path))
    images = sorted(pictures(tmp_path / "p", 8).iterdir())
    found = {method: largest_magnitudes(network, ["r0", "pooled"], images, method, lambda: None) for method in METHODS}
    for name in ("r0", "pooled"):
        largest = found["minmax"][name]
        assert 0 < found["entropy"][name] <= largest * 1.01
        assert 0.9 * largest < found["percentile"][name] <= largest * 1.01


def test_a_map_without_values_or_with_infinite_ones_is_refused(tmp_path):
    images = sorted(pictures(tmp_path / "p", 8).iterdir())
    network = read_network(write(tmp_path))
    for tensor in network.model.graph.initializer:
        if tensor.name in ("stem", "bias"):
            tensor.raw_data = bytes(len(tensor.raw_data))
    with pytest.raises(ArtifactError, match="'r0' is zero on all pictures"):
        largest_magnitudes(network, ["r0"], images, "minmax", lambda: None)
    huge = np.full(16, np.float32(3e38)).tobytes()
    next(t for t in network.model.graph.initializer if t.name == "bias").raw_data = huge
    with pytest.raises(ArtifactError, match="not finite"):
        largest_magnitudes(network, ["c1", "c2"], images, "minmax", lambda: None)


def test_maps_that_only_move_share_one_scale():
    view = GraphView(graph())
    assert shared(view, {"r0": 1.0, "r2": 2.0, "pooled": 3.0}) == {"r0": 1.0, "r2": 3.0, "pooled": 3.0}
    joined = model(
        [
            node("Concat", ["a", "b"], ["ab"], axis=1),
            node("Resize", ["ab", "", "scales"], ["wide"], mode="nearest"),
            node("Relu", ["wide"], ["y"]),
        ],
        [value("a", T.FLOAT, (1, 2, 4, 4)), value("b", T.FLOAT, (1, 2, 4, 4))],
        [value("y", T.FLOAT, (1, 4, 8, 8))],
        {"scales": np.array([1, 1, 2, 2], np.float32)},
    )
    assert shared(GraphView(joined), {"a": 1.0, "b": 5.0, "wide": 2.0, "y": 9.0}) == {
        "a": 5.0,
        "b": 5.0,
        "wide": 5.0,
        "y": 9.0,
    }
