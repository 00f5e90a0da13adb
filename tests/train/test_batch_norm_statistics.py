"""Batch norms measured with the final weights."""

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from fine_edge.train.run import measure_batch_norms


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(2, momentum=0.01)
        self.frozen = FrozenBatchNorm2d(2)

    def forward(self, x):
        return self.frozen(self.norm(x))


@pytest.fixture
def batches():
    generator = torch.Generator().manual_seed(0)
    return [{"x": 3 + 2 * torch.randn(4, 2, 5, 5, generator=generator)} for _ in range(6)]


def test_they_are_the_mean_of_what_the_batches_have(batches):
    network = Network()
    measure_batch_norms(network, batches, 4, seed=0)
    seen = [batch["x"] for batch in batches[:4]]
    expected_mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(0)
    expected_var = torch.stack([x.var(dim=(0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(network.norm.running_mean, expected_mean)
    torch.testing.assert_close(network.norm.running_var, expected_var)
    assert network.norm.momentum == 0.01
    assert not network.training
    assert torch.equal(network.frozen.running_var, torch.ones(2))


def test_weights_and_random_numbers_stay(batches):
    network = Network()
    state = torch.get_rng_state()
    measure_batch_norms(network, batches, 6, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(network.norm.weight, torch.ones(2))


def test_without_batch_norms_nothing_runs(batches):
    def never(_x):
        raise AssertionError

    network = FrozenBatchNorm2d(2)
    network.forward = never
    measure_batch_norms(network, batches, 6, seed=0)
