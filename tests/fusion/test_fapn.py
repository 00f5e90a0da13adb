"""FaPN: what its two modules are where offsets and masks are known, and what it costs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fine_edge.errors import ConfigError
from fine_edge.fusion.fapn import Fapn, FeatureAlignment, FeatureSelection, SelectedLaterals
from fine_edge.zoo.count import macs, ptflops

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
    module = FeatureAlignment(C, C_HIGH).eval()
    nn.init.uniform_(module.align.bias)
    with torch.no_grad():
        module.predict.bias[0 : 2 * POINTS : 2] = offset_y
        module.predict.bias[1 : 2 * POINTS : 2] = offset_x
        module.predict.bias[2 * POINTS :] = logit
    return module


def convolved(module, up):
    return F.conv2d(up, module.align.weight, module.align.bias, padding=1, groups=8)


def test_selection_is_the_papers_formula_with_a_norm_of_groups():
    """Two channels in a group: the norm leaves which of both answers more to the global average."""
    module, x = FeatureSelection(64, C), torch.randn(1, 64, 4, 6)
    answers = (module.importance.weight[:, :, 0, 0] @ x.mean((2, 3))[0]).reshape(32, 2)
    u = torch.sigmoid(F.layer_norm(answers, [2])).flatten()
    expected = torch.einsum("oc,chw->ohw", module.select.weight[:, :, 0, 0], x[0] * (1 + u[:, None, None]))
    torch.testing.assert_close(module(x)[0], expected)


def test_laterals_bring_every_level_to_the_necks_channels():
    laterals = SelectedLaterals((64, 96), C)
    maps = [torch.randn(2, 64, 6, 4), torch.randn(2, 96, 3, 2)]
    selected = laterals(maps)
    assert [x.shape for x in selected] == [(2, C, 6, 4), (2, C, 3, 2)]
    torch.testing.assert_close(selected[1], laterals.selections[1](maps[1]))


def test_without_offsets_and_with_all_masks_at_one_alignment_is_a_convolution():
    low, up = torch.randn(2, C, 7, 9), torch.randn(2, C_HIGH, 7, 9)
    module = alignment()
    torch.testing.assert_close(module(low, up), F.relu(convolved(module, up)))


def test_it_starts_as_half_a_convolution_of_the_regular_grid():
    low, up = torch.randn(1, C, 6, 6), torch.randn(1, C_HIGH, 6, 6)
    module = FeatureAlignment(C, C_HIGH).eval()
    torch.testing.assert_close(module(low, up), F.relu(convolved(module, up / 2)))
    assert (module.predict.weight == 0).all()


def test_whole_offsets_move_the_map():
    """One down and two left: the convolution of the shifted map, with zeros coming in from outside."""
    low, up = torch.randn(1, C, 8, 8), torch.randn(1, C_HIGH, 8, 8)
    module = alignment(offset_y=1, offset_x=-2)
    # Padded first: what the kernel's own padding reads beyond the border is part of the shifted map.
    shifted = F.pad(up, (3, 3, 3, 3))[:, :, 3 : 3 + 10, 0 : 0 + 10]
    expected = F.relu(F.conv2d(shifted, module.align.weight, module.align.bias, groups=8))
    torch.testing.assert_close(module(low, up), expected)


@pytest.mark.parametrize(("low_hw", "high_hw"), [((8, 8), (4, 4)), ((7, 9), (4, 5)), ((1, 1), (1, 1))], ids=str)
def test_both_maps_come_in_the_size_of_low(low_hw, high_hw):
    low = torch.randn(2, C, *low_hw)
    refined, up = Fapn(C, C_HIGH).eval()(low, torch.randn(2, C_HIGH, *high_hw))
    assert refined is low
    assert up.shape == (2, C_HIGH, *low_hw)
    assert (up >= 0).all()


def test_gradients_reach_all_weights_once_the_offsets_leave_zero():
    method, low, high = Fapn(C, C_HIGH), torch.randn(1, C, 6, 6), torch.randn(1, C_HIGH, 3, 3)
    optimiser = torch.optim.SGD(method.parameters(), 0.1)
    still = []
    for _ in range(2):
        optimiser.zero_grad()
        method(low, high)[1].square().sum().backward()
        still.append({name for name, p in method.named_parameters() if not p.grad.abs().sum()})
        optimiser.step()
    behind = {f"alignment.compare.{name}" for name in ("0.weight", "1.weight", "1.bias")}
    assert still == [behind, set()]  # behind a zero layer for one step


def test_parameters_and_counts_in_closed_form():
    """fvcore has no count of the deformable convolution's own product; ptflops has one, and 25 a point for sampling."""
    height, width = 10, 12
    with torch.device("meta"):
        method = Fapn(C, C_HIGH).eval()
        maps = torch.empty(1, C, height, width), torch.empty(1, C_HIGH, 5, 6)
    pixels, compare, predict, align = height * width, (C + C_HIGH) * C_HIGH, 9 * C_HIGH * 3 * POINTS, 9 * C_HIGH**2 // 8
    assert sum(p.numel() for p in method.parameters()) == (compare + 2 * C_HIGH + predict + 3 * POINTS + align + C_HIGH)
    upsampling, norm = 4 * C_HIGH, 2 * C_HIGH
    assert macs(method, *maps) == (compare + norm + predict + upsampling) * pixels
    biases, relu, sampling = 3 * POINTS + C_HIGH, 2 * C_HIGH, 25 * 9
    per_pixel = compare + norm + predict + align + sampling + biases + relu + C_HIGH
    assert ptflops(method, *maps) == per_pixel * pixels


def test_parameters_of_the_selection_in_closed_form():
    count = sum(p.numel() for p in FeatureSelection(64, C).parameters())
    assert count == 64 * 64 + 2 * 64 + 64 * C


def test_channels_that_cannot_be_grouped_are_refused():
    with pytest.raises(ConfigError, match="20 channels cannot be cut into 8 deformable groups"):
        Fapn(16, 20)
    for channels in (32, 80):
        with pytest.raises(ConfigError, match=f"{channels} channels cannot be cut into 32 groups of two or more"):
            SelectedLaterals((64, channels), C)
