"""FaPN: what its two modules are where offsets and masks are known, and what it costs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fine_edge.errors import ConfigError
from fine_edge.fusion.fapn import Fapn, FeatureAlignment, FeatureSelection
from fine_edge.zoo.count import macs

C, C_HIGH = 16, 24
POINTS = 8 * 9
CERTAIN = 40.0
"""A mask's logit whose sigmoid is 1."""


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def alignment(offset_y=0.0, offset_x=0.0, logit=CERTAIN):
    """An alignment that moves every point by the same offset, whatever it sees."""
    module = FeatureAlignment(C, C_HIGH)
    nn.init.uniform_(module.align.bias)
    with torch.no_grad():
        module.predict.bias[0 : 2 * POINTS : 2] = offset_y
        module.predict.bias[1 : 2 * POINTS : 2] = offset_x
        module.predict.bias[2 * POINTS :] = logit
    return module


def convolved(module, up):
    return F.conv2d(up, module.align.weight, module.align.bias, padding=1)


def test_selection_is_the_papers_formula():
    module, x = FeatureSelection(C), torch.randn(2, C, 5, 7)
    u = torch.sigmoid(torch.einsum("oc,bc->bo", module.importance.weight[:, :, 0, 0], x.mean((2, 3))))
    expected = torch.einsum("oc,bchw->bohw", module.select.weight[:, :, 0, 0], x * (1 + u[:, :, None, None]))
    torch.testing.assert_close(module(x), expected)


def test_without_offsets_and_with_all_masks_at_one_alignment_is_a_convolution():
    low, up = torch.randn(2, C, 7, 9), torch.randn(2, C_HIGH, 7, 9)
    module = alignment()
    torch.testing.assert_close(module(low, up), F.relu(convolved(module, up)))


def test_it_starts_as_half_a_convolution_of_the_regular_grid():
    low, up = torch.randn(1, C, 6, 6), torch.randn(1, C_HIGH, 6, 6)
    module = FeatureAlignment(C, C_HIGH)
    torch.testing.assert_close(module(low, up), F.relu(convolved(module, up / 2)))
    assert (module.predict.weight == 0).all()


def test_whole_offsets_move_the_map():
    """One down and two left: the convolution of the shifted map, with zeros coming in from outside."""
    low, up = torch.randn(1, C, 8, 8), torch.randn(1, C_HIGH, 8, 8)
    module = alignment(offset_y=1, offset_x=-2)
    # Padded first: what the kernel's own padding reads beyond the border is part of the shifted map.
    shifted = F.pad(up, (3, 3, 3, 3))[:, :, 3 : 3 + 10, 0 : 0 + 10]
    expected = F.relu(F.conv2d(shifted, module.align.weight, module.align.bias))
    torch.testing.assert_close(module(low, up), expected)


@pytest.mark.parametrize(("low_hw", "high_hw"), [((8, 8), (4, 4)), ((7, 9), (4, 5)), ((1, 1), (1, 1))], ids=str)
def test_both_maps_come_in_the_size_of_low(low_hw, high_hw):
    refined, up = Fapn(C, C_HIGH)(torch.randn(2, C, *low_hw), torch.randn(2, C_HIGH, *high_hw))
    assert refined.shape == (2, C, *low_hw)
    assert up.shape == (2, C_HIGH, *low_hw)
    assert (up >= 0).all()


def test_gradients_reach_all_weights_once_the_offsets_leave_zero():
    method, low, high = Fapn(C, C_HIGH), torch.randn(1, C, 6, 6), torch.randn(1, C_HIGH, 3, 3)
    optimiser = torch.optim.SGD(method.parameters(), 0.1)
    still = []
    for _ in range(2):
        optimiser.zero_grad()
        sum(x.square().sum() for x in method(low, high)).backward()
        still.append({name for name, p in method.named_parameters() if not p.grad.abs().sum()})
        optimiser.step()
    assert still == [{"alignment.compare.weight"}, set()]  # behind a zero layer for one step


def test_parameters_and_macs_in_closed_form():
    """fvcore has no count of the deformable convolution's own product."""
    height, width = 10, 12
    with torch.device("meta"):
        method = Fapn(C, C_HIGH)
        maps = torch.empty(1, C, height, width), torch.empty(1, C_HIGH, 5, 6)
    selection, compare, predict, align = 2 * C * C, (C + C_HIGH) * C_HIGH, 9 * C_HIGH * 3 * POINTS, 9 * C_HIGH**2
    assert sum(p.numel() for p in method.parameters()) == (selection + compare + predict + 3 * POINTS + align + C_HIGH)
    upsampling = 4 * C_HIGH * height * width
    assert macs(method, *maps) == C * C + (C * C + compare + predict) * height * width + upsampling


def test_channels_that_cannot_be_grouped_are_refused():
    with pytest.raises(ConfigError, match="20 channels cannot be cut into 8 deformable groups"):
        Fapn(16, 20)
