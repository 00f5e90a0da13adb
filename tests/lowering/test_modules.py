"""Lowering module by module changes no output."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.ops.misc import FrozenBatchNorm2d

from fine_edge.fusion import Fine, FineConfig
from fine_edge.lowering.modules import fold_batch_norms, lower_modules


def stirred(module):
    """With weights and statistics of which no two are alike."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))
    return module.eval()


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm2d])
def test_norms_fold_into_the_convolutions_before_them(norm):
    network = stirred(resnet18(weights=None, norm_layer=norm)).double()
    lowered = copy.deepcopy(network)
    fold_batch_norms(lowered)
    assert not any(hasattr(module, "running_mean") for module in lowered.modules())
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(lowered(images), expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


def test_a_norm_that_follows_no_convolution_stays():
    network = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    fold_batch_norms(network)
    assert [type(module).__name__ for module in network] == ["BatchNorm2d", "ReLU", "Conv2d", "ReLU", "BatchNorm2d"]


class Neck(nn.Module):
    def __init__(self):
        super().__init__()
        self.fine = nn.ModuleDict({"2": Fine(FineConfig(channels=32, high_channels=48, k=2))})

    def forward(self, low, high):
        return self.fine["2"](low, high)


def test_fine_keeps_its_arguments_and_its_scope():
    neck = Neck().eval()
    low, high = torch.rand(1, 32, 12, 20), torch.rand(1, 48, 6, 10)
    with torch.no_grad():
        lowered = lower_modules(copy.deepcopy(neck))
        torch.testing.assert_close(lowered(low, high), neck(low, high), rtol=1e-4, atol=1e-5)
    assert "fine.2.project.weight" in lowered.state_dict()
    assert any(isinstance(module, Fine) for module in neck.modules()), "the original is left as it is"
