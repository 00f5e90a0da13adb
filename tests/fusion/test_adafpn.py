"""AdaFPN: sampling against a definition by brute force, where the points start, the weights of the fusion, the cost."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fine_edge.fusion.adafpn import AdaFpn, AdaptiveFusion, AdaptiveUpsampling, PointSampling
from fine_edge.zoo.count import macs

C, C_HIGH = 32, 24
# Corners of a pixel around its centre, x and y.
CORNERS = [(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)]


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def bilinear(feature, x, y):
    """Of a map (C, h, w) at a place in its own pixels, whose centres are whole; the border goes on outside."""
    height, width = feature.shape[1:]
    x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
    left, top = math.floor(x), math.floor(y)
    total = np.zeros(len(feature))
    for row in (top, top + 1):
        for column in (left, left + 1):
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            if weight > 0:
                total += weight * feature[:, row, column]
    return total


def by_brute_force(feature, offset):
    """A map (C, h, w) and offsets (8, H, W) in low-level pixels to (C, H, W)."""
    height, width = offset.shape[1:]
    across, down = feature.shape[2] / width, feature.shape[1] / height
    out = np.zeros((len(feature), height, width))
    for row in range(height):
        for column in range(width):
            for point, (x, y) in enumerate(CORNERS):
                x = column + 0.5 + x + offset[2 * point, row, column]
                y = row + 0.5 + y + offset[2 * point + 1, row, column]
                out[:, row, column] += bilinear(feature, x * across - 0.5, y * down - 0.5) / 4
    return out


@pytest.mark.parametrize("spread", [0.0, 1.0, 20.0])
@pytest.mark.parametrize(("low_hw", "high_hw"), [((8, 6), (4, 3)), ((7, 9), (4, 5)), ((3, 1), (2, 1))], ids=str)
def test_sampling_is_the_mean_of_four_bilinear_points(spread, low_hw, high_hw):
    feature = torch.randn(2, 3, *high_hw, dtype=torch.float64)
    offset = torch.randn(2, 8, *low_hw, dtype=torch.float64) * spread
    expected = np.stack([by_brute_force(a, b) for a, b in zip(feature.numpy(), offset.numpy(), strict=True)])
    np.testing.assert_allclose(PointSampling()(feature, offset).numpy(), expected, rtol=1e-10, atol=1e-10)


def test_it_starts_as_an_interpolation_of_its_own_feature():
    """On a ramp, the mean over a pixel's corners is the value at its centre."""
    module = AdaptiveUpsampling(C, C_HIGH).double()
    ramp = torch.arange(8.0).double().expand(1, C_HIGH, 8, 8) + torch.arange(8.0)[:, None]
    up = module(torch.randn(1, C, 16, 16).double(), ramp)
    expected = F.interpolate(module.feature(ramp), size=(16, 16), mode="bilinear")
    torch.testing.assert_close(up[:, :, 2:-2, 2:-2], expected[:, :, 2:-2, 2:-2])


def test_the_points_learn_apart_from_each_other():
    module = AdaptiveUpsampling(C, C_HIGH)
    module(torch.randn(1, C, 8, 8), torch.randn(1, C_HIGH, 4, 4)).square().sum().backward()
    of_points = module.offset.bias.grad.reshape(4, 2)
    assert len({tuple(point.tolist()) for point in of_points}) == 4


def test_the_fusions_weights_are_in_the_unit_interval_and_one_for_each_map_and_pixel():
    module, low, up = AdaptiveFusion(C, C_HIGH), torch.rand(1, C, 5, 7) + 1, torch.rand(1, C_HIGH, 5, 7) + 1
    weighted_low, weighted_up = module(low, up)
    for weighted, whole in ((weighted_low, low), (weighted_up, up)):
        weight = weighted / whole
        torch.testing.assert_close(weight, weight[:, :1].expand_as(weight))
        assert ((weight > 0) & (weight < 1)).all()
    assert not torch.allclose((weighted_low / low)[:, :1], (weighted_up / up)[:, :1])


def test_a_weight_follows_its_own_logit():
    """The first of the two outputs is the upsampled map's."""
    module = AdaptiveFusion(C, C_HIGH)
    nn.init.zeros_(module.layers[6].weight)
    with torch.no_grad():
        module.layers[6].bias.copy_(torch.tensor([100.0, 0.0]))
    low, up = torch.randn(1, C, 4, 4), torch.randn(1, C_HIGH, 4, 4)
    weighted_low, weighted_up = module(low, up)
    assert torch.equal(weighted_up, up)
    assert torch.equal(weighted_low, low / 2)


@pytest.mark.parametrize(("low_hw", "high_hw"), [((8, 8), (4, 4)), ((7, 9), (4, 5)), ((1, 1), (1, 1))], ids=str)
def test_both_maps_come_in_the_size_of_low(low_hw, high_hw):
    refined, up = AdaFpn(C, C_HIGH)(torch.randn(2, C, *low_hw), torch.randn(2, C_HIGH, *high_hw))
    assert refined.shape == (2, C, *low_hw)
    assert up.shape == (2, C_HIGH, *low_hw)


def test_gradients_reach_all_weights_once_the_offsets_leave_zero():
    method, low, high = AdaFpn(C, C_HIGH), torch.randn(1, C, 8, 8), torch.randn(1, C_HIGH, 4, 4)
    optimiser = torch.optim.SGD(method.parameters(), 0.01)
    still = []
    for _ in range(2):
        optimiser.zero_grad()
        sum(x.square().sum() for x in method(low, high)).backward()
        still.append({name for name, p in method.named_parameters() if not p.grad.abs().sum()})
        optimiser.step()
    assert still == [
        {"upsampling.compare.weight", "upsampling.compare.bias"},
        set(),
    ]  # behind a zero layer for one step


def test_parameters_and_macs_in_closed_form():
    (height, width), (high_height, high_width) = (10, 12), (5, 6)
    with torch.device("meta"):
        method = AdaFpn(C, C_HIGH)
        maps = torch.empty(1, C, height, width), torch.empty(1, C_HIGH, high_height, high_width)
    both, narrow = C + C_HIGH, C // 16
    at_low = both * C_HIGH + 9 * C_HIGH * 8 + 9 * both * C + 9 * C * C + 9 * C * narrow + 9 * narrow * 2
    at_high = C_HIGH * C_HIGH
    biases = C_HIGH + 8 + C_HIGH + C + C + narrow + 2
    assert sum(p.numel() for p in method.parameters()) == at_low + at_high + biases
    upsampling, sampling, mean = 4 * C_HIGH, 4 * 4 * C_HIGH, 0
    per_pixel = at_low + upsampling + sampling + mean
    assert macs(method, *maps) == per_pixel * height * width + at_high * high_height * high_width
