"""MGC: each of its steps against a definition by brute force, what it must not depend on, and what it costs."""

import math

import pytest
import torch
import torch.nn.functional as F

from fine_edge.errors import ConfigError
from fine_edge.fusion.mgc import Collector, Distributor, GraphReasoning, Mgc
from fine_edge.zoo.count import macs

C = 32
LEVELS = (24, 40)
"""Channels of the backbone's maps in most tests."""


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def shares(looking, at):
    """Softmax over the rows of ``at`` of sqrt(C) times the cosine with the one vector ``looking``."""
    cosines = torch.stack([looking @ row / (looking.norm() * row.norm()) for row in at])
    return (math.sqrt(len(looking)) * cosines).softmax(0)


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


def test_a_step_of_graph_reasoning_on_the_complete_graph():
    module, nodes = GraphReasoning(C).double(), torch.randn(2, 6, C).double()
    x = torch.relu(nodes @ module.narrow.weight.T + module.narrow.bias)
    others = torch.stack([x[:, index] - x.sum(1) / 6 for index in range(6)], 1)
    x = torch.relu(others @ module.state.weight.T + module.state.bias)
    torch.testing.assert_close(module(nodes), nodes + x @ module.widen.weight.T + module.widen.bias)


def test_a_pixel_reads_the_contexts_that_point_its_querys_way():
    module = Distributor(24, C).double()
    pixels, contexts = torch.randn(1, 4, 24).double(), torch.randn(1, 6, C).double()
    read = torch.stack([shares(module.query(pixel), contexts[0]) @ contexts[0] for pixel in pixels[0]])
    expected = pixels @ module.residual.weight.T + (read @ module.project.weight.T)[None]
    torch.testing.assert_close(module(pixels, contexts), expected)


def test_contexts_are_global_pixels_may_come_in_any_order():
    method, fine, coarse = Mgc(LEVELS, C).double(), torch.randn(1, 20, 24).double(), torch.randn(1, 6, 40).double()
    contexts = method.contexts([fine, coarse])
    assert [x.shape for x in contexts] == [(1, 256, C), (1, 192, C)]
    torch.testing.assert_close(method.contexts([fine.flip(1), coarse.roll(2, 1)]), contexts)


def test_every_pixel_hears_of_every_pixel_of_the_other_level():
    method = Mgc(LEVELS, C)
    fine, coarse = torch.randn(1, 24, 4, 4, requires_grad=True), torch.randn(1, 40, 2, 2, requires_grad=True)
    refined_fine, refined_coarse = method([fine, coarse])
    (of_coarse,) = torch.autograd.grad(refined_fine[0, 0, 0, 0], coarse, retain_graph=True)
    (of_fine,) = torch.autograd.grad(refined_coarse[0, 0, 1, 1], fine)
    assert (of_coarse.abs().sum(1) > 0).all()
    assert (of_fine.abs().sum(1) > 0).all()


def test_with_nothing_distributed_it_is_a_lateral_convolution_a_level():
    method, maps = Mgc(LEVELS, C), [torch.randn(2, 24, 7, 9), torch.randn(2, 40, 4, 5)]
    for distributor in method.distribute:
        torch.nn.init.zeros_(distributor.project.weight)
    for distributor, x, refined in zip(method.distribute, maps, method(maps), strict=True):
        torch.testing.assert_close(refined, F.conv2d(x, distributor.residual.weight[:, :, None, None]))


@pytest.mark.parametrize("levels", [1, 4])
def test_all_maps_keep_their_size_and_gradients_reach_all_weights(levels):
    channels, sizes = (24, 40, 16, 24)[:levels], [(7, 9), (4, 5), (2, 3), (2, 2)][:levels]
    method = Mgc(channels, C)
    refined = method([torch.randn(2, count, *size) for count, size in zip(channels, sizes, strict=True)])
    assert [x.shape for x in refined] == [(2, C, *size) for size in sizes]
    sum(x.square().sum() for x in refined).backward()
    assert [name for name, p in method.named_parameters() if not p.grad.abs().sum()] == []


def test_parameters_and_matrix_products_in_closed_form():
    (height, width), (low_height, low_width) = (10, 12), (5, 6)
    with torch.device("meta"):
        method = Mgc(LEVELS, C)
        maps = [torch.empty(1, LEVELS[0], height, width), torch.empty(1, LEVELS[1], low_height, low_width)]
    contexts, pixels, narrow = (256, 192), (height * width, low_height * low_width), C // 4
    graph = 2 * C * narrow + narrow * narrow
    entities = [n * count for n, count in zip(contexts, LEVELS, strict=True)]
    layers = [3 * count * C + C * C for count in LEVELS]
    biases = 2 * narrow + C
    assert sum(p.numel() for p in method.parameters()) == sum(entities) + sum(layers) + 3 * (graph + biases)
    at_levels = sum(
        (entity + layer + 3 * n * C) * count
        for entity, layer, n, count in zip(entities, layers, contexts, pixels, strict=True)
    )
    assert macs(method, *maps, run=lambda copied, *levels: copied(levels)) == at_levels + 2 * sum(contexts) * graph
    assert method.entity_macs([(10, 12), (5, 6)]) == entities[0] * 120 + entities[1] * 30


@pytest.mark.parametrize(("levels", "channels"), [(5, 32), (2, 30)])
def test_what_it_cannot_be_made_of_is_refused(levels, channels):
    with pytest.raises(ConfigError, match="needs at most 4 levels and channels that 4 divides"):
        Mgc((24,) * levels, channels)
