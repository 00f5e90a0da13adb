"""The largest of a row, in groups or not."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fine_edge.export.trace import trace
from fine_edge.lowering.topk import group_count, largest


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.sampled_from([1, 8, 9, 11, 16]),
    size=st.integers(40, 400),
    count=st.integers(1, 40),
)
def test_the_same_as_without_groups(batch, groups, size, count):
    assert group_count(groups * size, count) in (1, groups) or groups == 1
    scores = torch.randn(batch, groups * size, generator=torch.Generator().manual_seed(size))
    values, index = largest(scores, count)
    expected = scores.topk(count, dim=1)
    assert torch.equal(values, expected.values)
    assert torch.equal(index, expected.indices)


@pytest.mark.parametrize(
    ("length", "count", "groups"),
    [
        (24_000, 300, 8),  # pairs of 300 queries and 80 classes
        (8_400, 300, 1),  # anchors at 640x640: no gain
        (120_087, 1000, 9),  # RetinaNet's anchors at 800x800, which eight do not divide
        (91_000, 1000, 8),
        (16_000, 100, 8),
        (13_343, 1000, 1),
        (24_001, 300, 1),  # nothing divides it
        (16_000, 2000, 1),  # groups no longer than what is looked for
    ],
)
def test_when_a_row_is_cut(length, count, groups):
    assert group_count(length, count) == groups


def test_of_equal_scores_the_first_are_taken_as_without_groups():
    class Selection(torch.nn.Module):
        def forward(self, scores):
            return *largest(scores, 20), scores.topk(20, dim=1).indices

    scores = torch.randint(0, 4, (1, 16_000), generator=torch.Generator().manual_seed(0)).float()
    assert group_count(16_000, 20) == 8
    graph = trace(Selection(), scores, ["scores"], ["values", "index", "expected"])
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    values, index, expected = session.run(None, {"scores": scores.numpy()})
    assert np.array_equal(index, expected)
    assert np.array_equal(values, scores.numpy()[:, index[0]])
