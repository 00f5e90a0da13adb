"""Down(.) and Up(.) alone, at the sizes where rounding shows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fine_edge.fusion.sampling import build_down, feature_map, tokens, upsample


def test_smaller_blocks_at_the_border_are_averaged_over_their_own_pixels():
    x = torch.arange(15.0).reshape(1, 1, 3, 5)
    expected = torch.tensor([[[[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]]])
    assert torch.equal(build_down("avg", 1, 2)(x), expected)


def test_largest_of_each_block():
    x = -torch.arange(15.0).reshape(1, 1, 3, 5)
    assert torch.equal(build_down("max", 1, 2)(x), -torch.tensor([[[[0.0, 2.0, 4.0], [10.0, 12.0, 14.0]]]]))


def test_depthwise_starts_as_the_average_where_blocks_are_whole():
    x = torch.randn(2, 8, 12, 8)
    torch.testing.assert_close(build_down("dwconv", 8, 4)(x), build_down("avg", 8, 4)(x))


@pytest.mark.parametrize("name", ["avg", "max", "dwconv"])
def test_kernel_one_costs_nothing(name):
    down = build_down(name, 8, 1)
    x = torch.randn(1, 8, 5, 3)
    assert not list(down.parameters())
    assert down(x) is x


@given(st.integers(1, 5), st.integers(1, 17), st.integers(1, 17), st.sampled_from(["avg", "max", "dwconv"]))
def test_every_pixel_gets_the_token_of_its_own_block(kernel, height, width, name):
    x = torch.randn(1, 3, height, width)
    sampled = build_down(name, 3, kernel)(x)
    rows, cols = -(-height // kernel), -(-width // kernel)
    assert sampled.shape == (1, 3, rows, cols)
    numbers = torch.arange(float(rows * cols)).reshape(1, 1, rows, cols)
    up = upsample(numbers, kernel, height, width)
    assert up.shape == (1, 1, height, width)
    for y in range(height):
        for x_ in range(width):
            assert up[0, 0, y, x_] == y // kernel * cols + x_ // kernel


def test_tokens_run_row_by_row_and_come_back():
    x = torch.randn(2, 3, 4, 5)
    t = tokens(x)
    assert torch.equal(t[:, 7], x[:, :, 1, 2])
    assert torch.equal(feature_map(t, 4, 5), x)
