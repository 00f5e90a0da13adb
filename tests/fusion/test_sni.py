"""Soft nearest neighbour interpolation: a quarter of the upsampled map, for nothing."""

import pytest
import torch
import torch.nn.functional as F

from fine_edge.errors import ConfigError
from fine_edge.fusion.top_down import Sni, TopDown


@pytest.mark.parametrize(("low_hw", "high_hw"), [((8, 6), (4, 3)), ((9, 7), (5, 4)), ((1, 1), (1, 1))], ids=str)
def test_the_upsampled_map_weighs_a_quarter_at_any_size_and_low_is_untouched(low_hw, high_hw):
    low, high = torch.rand(2, 3, *low_hw), torch.rand(2, 5, *high_hw)
    refined, up = Sni()(low, high)
    assert refined is low
    assert torch.equal(up, F.interpolate(high, size=low_hw, mode="nearest") / 4)


def test_the_weight_is_the_quotient_of_the_resolutions():
    assert [Sni(factor).alpha for factor in (1, 2, 4)] == [1, 1 / 4, 1 / 16]


def test_it_has_nothing_to_learn_and_lets_gradients_through():
    high = torch.rand(1, 2, 3, 3, requires_grad=True)
    Sni()(torch.rand(1, 2, 6, 6), high)[1].sum().backward()
    assert isinstance(Sni(), TopDown)
    assert list(Sni().state_dict()) == []
    assert torch.equal(high.grad, torch.ones_like(high))  # four pixels of a quarter each


def test_a_factor_below_one_is_refused():
    with pytest.raises(ConfigError, match="factor must be at least 1, not 0"):
        Sni(0)
