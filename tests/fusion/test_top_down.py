"""The one place where a neck's maps meet: with nothing, with FINE, with a method that speaks for both maps."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fine_edge.fusion import Fine, FineConfig
from fine_edge.fusion.top_down import TopDown, top_down


class Both(TopDown):
    """Gives away what it was given."""

    def forward(self, low, high):
        return low + 1, F.interpolate(high - 1, size=low.shape[-2:])


@pytest.mark.parametrize(("low_hw", "high_hw"), [((8, 8), (4, 4)), ((9, 13), (5, 7)), ((1, 3), (1, 2))], ids=str)
def test_without_a_method_high_is_repeated_to_the_size_of_low(low_hw, high_hw):
    low, high = torch.rand(1, 4, *low_hw), torch.rand(1, 6, *high_hw)
    same, up = top_down(None, low, high)
    rows = torch.arange(low_hw[0]) * high_hw[0] // low_hw[0]
    columns = torch.arange(low_hw[1]) * high_hw[1] // low_hw[1]
    assert same is low
    assert torch.equal(up, high[:, :, rows][:, :, :, columns])


def test_fine_refines_low_alone():
    block = Fine(FineConfig(channels=32))
    low, high = torch.rand(1, 32, 8, 8), torch.rand(1, 32, 4, 4)
    refined, up = top_down(block, low, high)
    assert torch.equal(refined, block(low, high))
    assert torch.equal(up, F.interpolate(high, scale_factor=2.0))


def test_any_module_that_gives_one_map_refines_low():
    class Doubled(nn.Module):
        def forward(self, low, high):
            return low * high.amax()

    low, high = torch.rand(1, 2, 4, 4), torch.full((1, 2, 2, 2), 2.0)
    refined, up = top_down(Doubled(), low, high)
    assert torch.equal(refined, 2 * low)
    assert torch.equal(up, torch.full((1, 2, 4, 4), 2.0))


def test_a_method_for_both_maps_gives_both():
    low, high = torch.rand(1, 2, 4, 4), torch.ones(1, 2, 2, 2)
    refined, up = top_down(Both(), low, high)
    assert torch.equal(refined, low + 1)
    assert torch.equal(up, torch.zeros(1, 2, 4, 4))
