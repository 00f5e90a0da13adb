"""Fusion methods by name: their parts, and that each exports and keeps the rules."""

from __future__ import annotations

from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from fine_edge.errors import ConfigError
from fine_edge.export.trace import trace
from fine_edge.fusion.methods import METHODS, MethodConfig, Place, method_of, parts_of
from fine_edge.fusion.top_down import top_down
from fine_edge.graph.checks import check
from fine_edge.lowering.modules import fold_batch_norms, lower_modules
from fine_edge.zoo.catalog import MethodName

RIVALS = ("sni", "fapn", "adafpn", "mgc")

# GridSample nodes of one module.
SAMPLERS = {"sni": 0, "fapn": 1, "adafpn": 4, "mgc": 0}


def test_the_catalogues_names_are_all_there():
    assert set(METHODS) == set(get_args(MethodName))
    assert set(RIVALS) == set(METHODS) - {"fine"}


def test_which_layers_of_a_detector_a_method_replaces():
    """As the authors' logs print their models: laterals by FaPN and MGC, the block behind a fusion by AdaFPN."""
    assert {name for name, parts in METHODS.items() if parts.laterals} == {"fapn", "mgc"}
    assert {name for name, parts in METHODS.items() if parts.sums} == {"adafpn"}
    assert {name for name, parts in METHODS.items() if not parts.replaces_layers} == {"fine", "sni"}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_stands_under_its_own_name(name):
    owner, parts = nn.Module(), parts_of(MethodConfig(name))
    assert method_of(owner) is None
    module = parts.fusion(Place(32, 32, 1), MethodConfig(name)) if parts.fusion else parts.laterals((64, 64), 32)
    owner.add_module(name, module)
    assert method_of(owner) is module


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r"no fusion method is called 'fapm'.*known: fine, sni, fapn, adafpn, mgc"):
        parts_of(MethodConfig("fapm"))


class Neck(nn.Module):
    """Two laterals and a fusion by addition, from one input as the exporter takes it."""

    def __init__(self, name, channels):
        super().__init__()
        parts, config = parts_of(MethodConfig(name)), MethodConfig(name)
        self.smooth = nn.AvgPool2d(2, ceil_mode=True)
        self.laterals = parts.laterals((2 * channels, 2 * channels), channels) if parts.laterals else None
        if parts.fusion:
            self.add_module(name, parts.fusion(Place(channels, channels, 1), config))

    def forward(self, x):
        maps = [x, self.smooth(x)]
        low, high = self.laterals([torch.cat([y, y], 1) for y in maps]) if self.laterals else maps
        refined, up = top_down(method_of(self), low, high)
        return refined + up


def randomised(name, channels=32):
    """In eval mode, with no layer at zero, so that points are sampled off the grid."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        neck = Neck(name, channels).eval()
        for parameter in neck.parameters():
            if not parameter.abs().sum():
                nn.init.normal_(parameter, std=0.1)
    return neck.requires_grad_(False)


@pytest.mark.parametrize("name", RIVALS)
def test_each_exports_and_keeps_the_rules(name):
    neck, low = randomised(name), torch.randn(2, 32, 13, 9, generator=torch.Generator().manual_seed(1))
    expected = neck(low).numpy()
    fold_batch_norms(neck)
    model = trace(lower_modules(neck), low, ["low"], ["out"])
    assert {finding.rule for finding in check(model)} <= {"FE16"}  # attention is fused in FP16 alone
    # What samples has a scope of its own, by which it can stay in FP32.
    samplers = [node.name for node in model.graph.node if node.op_type == "GridSample"]
    assert [f"/{name}/" in sampler and "/sampling/" in sampler for sampler in samplers] == [True] * SAMPLERS[name]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"low": low.numpy()})
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
