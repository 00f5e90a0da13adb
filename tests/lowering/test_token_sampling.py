"""Samples of rows are those of GridSample, also beside the map, far outside of it and on a map of one cell."""

import pytest
import torch

from fine_edge.lowering.token_sampling import CornerRows, GridSampling, RowSampling

BATCH, QUERIES, HEADS, POINTS, DIM = 2, 40, 2, 3, 4


@pytest.mark.parametrize("sizes", [[(8, 6), (4, 3)], [(5, 1), (1, 2), (1, 1)]])
def test_rows_give_what_grid_sample_gives(sizes):
    random = torch.Generator().manual_seed(0)
    values = [torch.randn(BATCH, height * width, HEADS * DIM, generator=random) for height, width in sizes]
    boxes = torch.rand(BATCH, QUERIES, 4, generator=random)
    offsets = 2 * torch.randn(BATCH, QUERIES, HEADS, len(sizes), POINTS, 2, generator=random)
    offsets[:, 0] *= 1e30  # no integer holds such a position
    offsets[:, 1] = 0
    weights = torch.randn(BATCH, QUERIES, HEADS, len(sizes) * POINTS, generator=random).softmax(-1)

    found, expected = (
        form(sizes, HEADS, POINTS)(boxes, offsets, weights, values) for form in (RowSampling, GridSampling)
    )
    assert torch.equal(found[:, 0], torch.zeros(BATCH, HEADS * DIM))
    assert (expected[:, 1] != 0).all()
    assert (found - expected).abs().max() < 2e-5

    rows, shares = CornerRows(sizes, HEADS, POINTS)(boxes, offsets, weights)
    assert rows.dtype == torch.int32
    assert (rows >= 0).all()
    for level, (height, width) in enumerate(sizes):
        assert rows[:, :, :, level].max() < height * width * HEADS
    assert CornerRows(sizes, HEADS, POINTS)(boxes * torch.nan, offsets, weights)[0].min() >= 0
    given = shares.sum(-2) / weights.reshape(*weights.shape[:3], len(sizes), POINTS)
    assert given.min() == 0
    assert given.max() == pytest.approx(1, abs=1e-3)
    assert ((given > 0.01) & (given < 0.99)).any(), "samples outside of the maps, on them and across their borders"
