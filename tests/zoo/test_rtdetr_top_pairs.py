"""Postprocessing in the graph and its counterpart in numpy find the same detections."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.detections import from_outputs, from_raw
from fine_edge.zoo.rtdetr.lowered import TopPairs


@given(
    st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 40), st.integers(1, 9), st.sampled_from([96, 160, 640])
)
def test_graph_and_numpy_agree(seed, batch, queries, classes, width):
    height = 128
    rng = np.random.default_rng(seed)
    # A permutation of distinct values: which of two equal logits comes first is chance.
    logits = (rng.permutation(batch * queries * classes) * 0.01 - 5).astype(np.float32)
    raw = {
        "logits": logits.reshape(batch, queries, classes),
        "boxes": rng.uniform(-0.1, 1.1, (batch, queries, 4)).astype(np.float32),
    }
    found = TopPairs(height, width)(torch.from_numpy(raw["logits"]), torch.from_numpy(raw["boxes"]))
    outputs = {name: tensor.numpy() for name, tensor in zip(("labels", "boxes_xyxy", "scores"), found, strict=True)}
    assert [outputs[name].shape for name in outputs] == [(batch, queries), (batch, queries, 4), (batch, queries)]
    assert (np.diff(outputs["scores"], axis=1) <= 0).all(), "best first"
    for image in range(batch):
        ours, theirs = from_outputs(outputs, image), from_raw(raw, height, width, image)
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(ours.boxes_xyxy_px, theirs.boxes_xyxy_px, atol=1e-3)
