"""Fusion methods by name: what each adds beside the paper's Table 2, and that each exports and keeps the rules."""

from __future__ import annotations

from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from fine_edge.errors import ConfigError
from fine_edge.export.trace import trace
from fine_edge.fusion.methods import METHODS, MethodConfig, Place, build_method, method_of
from fine_edge.fusion.mgc import Mgc
from fine_edge.fusion.top_down import top_down
from fine_edge.graph.checks import check
from fine_edge.lowering.modules import lower_modules
from fine_edge.zoo.catalog import MethodName
from fine_edge.zoo.count import macs
from fine_edge.zoo.paper import rows_of

RIVALS = ("sni", "fapn", "adafpn", "mgc")
# k, sides of the low- and the high-level map at the two deepest fusions; FLOPs for a multiply-accumulate.
DETECTORS = {
    "fasterrcnn_r50": ([(1, 50, 25), (2, 100, 50)], 1),
    "rtdetr_r18": ([(1, 40, 20), (2, 80, 40)], 2),
}
# What two modules add: parameters, FLOPs. The paper's differences are in the comments.
ADDED = {
    ("fasterrcnn_r50", "sni"): (0.000, 0.00),  # +0.0 +0.0
    ("fasterrcnn_r50", "fapn"): (2.700, 8.69),  # +6.7 +9.2
    ("fasterrcnn_r50", "adafpn"): (4.045, 24.72),  # +3.8 +25.0
    ("fasterrcnn_r50", "mgc"): (1.330, 6.81),  # +2.6 +27.4
    ("rtdetr_r18", "sni"): (0.000, 0.00),  # +0.0 +0.0
    ("rtdetr_r18", "fapn"): (2.700, 11.12),  # +1.7 +10.1
    ("rtdetr_r18", "adafpn"): (4.045, 31.64),  # +2.7 +21.1
    ("rtdetr_r18", "mgc"): (1.330, 8.745),  # +0.9 +7.0
}

# GridSample nodes of one module.
SAMPLERS = {"sni": 0, "fapn": 1, "adafpn": 4, "mgc": 0}


def test_the_catalogues_names_are_all_there():
    assert set(METHODS) == set(get_args(MethodName))
    assert set(RIVALS) == set(METHODS) - {"fine"}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_stands_under_its_own_name(name):
    owner = nn.Module()
    assert method_of(owner) is None
    owner.add_module(name, build_method(Place(32, 32, 1), MethodConfig(name)))
    assert method_of(owner) is owner.get_submodule(name)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r"no fusion method is called 'fapm'.*known: fine, sni, fapn, adafpn, mgc"):
        build_method(Place(32, 32, 1), MethodConfig("fapm"))


@pytest.mark.parametrize(("k", "contexts"), [(1, (128, 64)), (2, (192, 128)), (4, (256, 192))])
def test_mgcs_contexts_follow_the_level_that_k_stands_for(k, contexts):
    method = build_method(Place(32, 32, k), MethodConfig("mgc"))
    assert isinstance(method, Mgc)
    assert (len(method.collect_low.entities), len(method.collect_high.entities)) == contexts


@pytest.mark.parametrize(("detector", "name"), ADDED)
def test_what_two_modules_add_to_a_detector(detector, name):
    """By the conventions of each family: fvcore, doubled for RT-DETR. See the methods' files for what differs."""
    stages, flops_per_mac = DETECTORS[detector]
    params = flops = 0
    for k, low, high in stages:
        with torch.device("meta"):
            method = build_method(Place(256, 256, k), MethodConfig(name))
            maps = torch.empty(1, 256, low, low), torch.empty(1, 256, high, high)
            plain = macs(TopDownPath(None), *maps)
        params += sum(p.numel() for p in method.parameters())
        flops += flops_per_mac * (macs(TopDownPath(method), *maps) - plain)
    reached = params / 1e6, flops / 1e9
    assert reached == (
        pytest.approx(ADDED[detector, name][0], abs=5e-4),
        pytest.approx(ADDED[detector, name][1], abs=5e-3),
    )
    assert len(rows_of(f"{detector}_{name}")) == 1


class TopDownPath(nn.Module):
    """What a neck makes of two maps."""

    def __init__(self, method):
        super().__init__()
        self.method = method

    def forward(self, low, high):
        return top_down(self.method, low, high)


class Neck(nn.Module):
    """A fusion by addition, from one input as the exporter takes it."""

    def __init__(self, name, channels):
        super().__init__()
        self.smooth = nn.AvgPool2d(2, ceil_mode=True)
        self.add_module(name, build_method(Place(channels, channels, 1), MethodConfig(name)))

    def forward(self, low):
        refined, up = top_down(method_of(self), low, self.smooth(low))
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
    model = trace(lower_modules(neck), low, ["low"], ["out"])
    assert {finding.rule for finding in check(model)} <= {"FE16"}  # attention is fused in FP16 alone
    # What samples has a scope of its own, by which it can stay in FP32.
    samplers = [node.name for node in model.graph.node if node.op_type == "GridSample"]
    assert [f"/{name}/" in sampler and "/sampling/" in sampler for sampler in samplers] == [True] * SAMPLERS[name]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {"low": low.numpy()})
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
