"""MGC: each of its steps against a definition by brute force, what it must not depend on, and what it costs."""

import math

import pytest
import torch
import torch.nn.functional as F

from fine_edge.errors import ConfigError
from fine_edge.fusion.mgc import Collector, Distributor, GraphReasoning, Mgc, contexts_of
from fine_edge.zoo.count import macs

C, C_HIGH = 32, 24


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def shares(looking, at):
    """Softmax over the rows of ``at`` of sqrt(C) times the cosine with the one vector ``looking``."""
    cosines = torch.stack([looking @ row / (looking.norm() * row.norm()) for row in at])
    return (math.sqrt(len(looking)) * cosines).softmax(0)


def test_the_deeper_the_level_the_fewer_the_contexts():
    assert [contexts_of(level) for level in (2, 3, 4, 5)] == [256, 192, 128, 64]


def test_a_context_is_the_mean_of_the_pixels_that_point_its_entitys_way():
    module, pixels = Collector(C, 5, 12).double(), torch.randn(2, 7, C).double()
    values = pixels @ module.value.weight.T
    for image, value, contexts in zip(pixels, values, module(pixels), strict=True):
        expected = torch.stack([shares(entity, image) @ value for entity in module.entities])
        torch.testing.assert_close(contexts, expected)


def test_the_attention_sees_directions_not_lengths():
    module, pixels = Collector(C, 5, 12).double(), torch.randn(1, 7, C).double()
    before = module(pixels)
    module.entities.data *= 3
    torch.testing.assert_close(module(pixels), before)
    torch.testing.assert_close(module(100 * pixels), 100 * before)


def test_entities_start_orthogonal_and_the_penalty_measures_how_far_they_are_from_it():
    module = Collector(C, 5, C).double()
    assert module.orthogonality().item() == pytest.approx(0, abs=1e-10)
    module.entities.data[1] = module.entities.data[0]
    assert module.orthogonality().item() == pytest.approx(2)  # two entries off the diagonal are 1 instead of 0
    module.orthogonality().backward()
    assert module.entities.grad.abs().sum() > 0


def test_a_step_of_graph_reasoning():
    module, nodes = GraphReasoning(6, C).double(), torch.randn(2, 6, C).double()
    x = torch.relu(nodes @ module.narrow.weight.T + module.narrow.bias)
    mixed = torch.einsum("mn,bnc->bmc", module.mix.weight, x) + module.mix.bias[:, None]
    expected = nodes + torch.relu(x - mixed) @ module.widen.weight.T + module.widen.bias
    torch.testing.assert_close(module(nodes), expected)


def test_a_pixel_reads_the_contexts_that_point_its_querys_way():
    module = Distributor(C_HIGH, C).double()
    pixels, contexts = torch.randn(1, 4, C_HIGH).double(), torch.randn(1, 6, C).double()
    read = torch.stack([shares(module.query(pixel), contexts[0]) @ contexts[0] for pixel in pixels[0]])
    torch.testing.assert_close(module(pixels, contexts), pixels + (read @ module.project.weight.T)[None])


def test_contexts_are_global_pixels_may_come_in_any_order():
    method, low, high = Mgc(C, C_HIGH).double(), torch.randn(1, 20, C).double(), torch.randn(1, 6, C_HIGH).double()
    contexts = method.contexts(low, high)
    assert contexts.shape == (1, 128 + 64, C)
    torch.testing.assert_close(method.contexts(low.flip(1), high.roll(2, 1)), contexts)


def test_every_pixel_of_both_maps_hears_of_every_pixel_of_the_other():
    method = Mgc(C, C_HIGH)
    low, high = torch.randn(1, C, 4, 4, requires_grad=True), torch.randn(1, C_HIGH, 2, 2, requires_grad=True)
    refined, up = method(low, high)
    (of_high,) = torch.autograd.grad(refined[0, 0, 0, 0], high, retain_graph=True)
    (of_low,) = torch.autograd.grad(up[0, 0, 3, 3], low)
    assert (of_high.abs().sum(1) > 0).all()
    assert (of_low.abs().sum(1) > 0).all()


def test_with_nothing_distributed_it_is_plain_upsampling():
    method, low, high = Mgc(C, C_HIGH), torch.randn(2, C, 7, 9), torch.randn(2, C_HIGH, 4, 5)
    for distributor in (method.distribute_low, method.distribute_high):
        torch.nn.init.zeros_(distributor.project.weight)
    refined, up = method(low, high)
    assert torch.equal(refined, low)
    assert torch.equal(up, F.interpolate(high, size=(7, 9)))


@pytest.mark.parametrize(("low_hw", "high_hw"), [((8, 8), (4, 4)), ((7, 9), (4, 5)), ((1, 1), (1, 1))], ids=str)
@pytest.mark.parametrize("level", [2, 3, 4])
def test_both_maps_come_in_the_size_of_low_and_gradients_reach_all_weights(low_hw, high_hw, level):
    method = Mgc(C, C_HIGH, level)
    refined, up = method(torch.randn(2, C, *low_hw), torch.randn(2, C_HIGH, *high_hw))
    assert refined.shape == (2, C, *low_hw)
    assert up.shape == (2, C_HIGH, *low_hw)
    (refined.square().sum() + up.square().sum()).backward()
    if low_hw != (1, 1):  # one pixel takes all attention, whatever its direction
        assert [name for name, p in method.named_parameters() if not p.grad.abs().sum()] == []


@pytest.mark.parametrize("level", [3, 4])
def test_parameters_and_matrix_products_in_closed_form(level):
    (height, width), (high_height, high_width) = (10, 12), (5, 6)
    with torch.device("meta"):
        method = Mgc(C, C_HIGH, level)
        maps = torch.empty(1, C, height, width), torch.empty(1, C_HIGH, high_height, high_width)
    n, n_high, narrow = contexts_of(level), contexts_of(level + 1), C // 4
    n_all = n + n_high
    graphs = sum(2 * C * narrow + narrow + C + m * m + m for m in (n, n_high, n_all))
    entities = n * C + n_high * C_HIGH
    assert sum(p.numel() for p in method.parameters()) == entities + 3 * C * C + 3 * C * C_HIGH + graphs
    of_graphs = sum(2 * m * C * narrow + m * m * narrow for m in (n, n_high, n_all))
    at_low = 3 * C * C + 2 * n * C + 2 * n_all * C
    at_high = 3 * C * C_HIGH + n_high * (C_HIGH + C) + 2 * n_all * C
    upsampling = C_HIGH * height * width
    expected = at_low * height * width + at_high * high_height * high_width + of_graphs + upsampling
    assert macs(method, *maps) == expected


@pytest.mark.parametrize(("channels", "level"), [(32, 5), (30, 4)])
def test_what_it_cannot_be_made_of_is_refused(channels, level):
    with pytest.raises(ConfigError, match="needs a level of at most 4 and channels that 4 divides"):
        Mgc(channels, C_HIGH, level)
