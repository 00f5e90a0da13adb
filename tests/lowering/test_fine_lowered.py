"""FINE alone: the lowered block equals the block as the paper has it, and its graph holds what it may hold."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fine_edge.export.trace import trace
from fine_edge.fine_options import AttentionName, DownName, ModulationName
from fine_edge.fusion import Fine, FineConfig
from fine_edge.graph.checks import check
from fine_edge.lowering.fine import LoweredFine

ATTENTIONS, DOWNS, MODULATIONS = (get_args(names) for names in (AttentionName, DownName, ModulationName))
FORBIDDEN = {"Shape", "Gather", "Cast", "ScatterND", "If", "Loop"}


@contextmanager
def in_double():
    """Modules and tensors made inside are float64; no gradients."""
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def random_block(config: FineConfig) -> Fine:
    """No norm and no bias neutral."""
    block = Fine(config)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    for norm in (block.norm_low, block.norm_high):
        nn.init.normal_(norm.weight, mean=1.0, std=0.3)
    return block


def assert_equal(config: FineConfig, low_hw, high_hw, batch=1):
    with in_double():
        block = random_block(config)
        low = torch.randn(batch, config.channels, *low_hw)
        high = torch.randn(batch, config.high_channels or config.channels, *high_hw)
        expected = block(low, high)
        out = LoweredFine(block)(low, high.permute(0, 2, 3, 1))
    assert (expected - low).abs().max() > 1e-3, "at the identity this proves nothing"
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=150)
@given(
    attention=st.sampled_from(ATTENTIONS),
    down=st.sampled_from(DOWNS),
    modulation=st.sampled_from(MODULATIONS),
    ffn_ratio=st.sampled_from([0, 2, 4]),
    high_channels=st.sampled_from([None, 16, 48]),
    k=st.integers(1, 3),
    r=st.integers(1, 4),
    low_hw=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    high_hw=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    batch=st.integers(1, 2),
)
def test_any_block_on_any_size(attention, down, modulation, ffn_ratio, high_channels, k, r, low_hw, high_hw, batch):
    config = FineConfig(
        channels=32,
        high_channels=high_channels,
        attention=attention,
        k=k,
        r=r,
        down=down,
        modulation=modulation,
        ffn_ratio=ffn_ratio,
        window=3,
        areas=2,
    )
    assert_equal(config, low_hw, high_hw, batch)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(("low_hw", "high_hw"), [((8, 8), (4, 4)), ((9, 13), (5, 7)), ((7, 15), (4, 8))], ids=str)
def test_sizes_that_the_kernel_divides_and_that_it_does_not(attention, low_hw, high_hw):
    for ffn_ratio in (0, 2):
        assert_equal(FineConfig(channels=32, attention=attention, k=2, ffn_ratio=ffn_ratio), low_hw, high_hw)


class Neck(nn.Module):
    """Gives the block the scope that the graph's rules know it by."""

    def __init__(self, fine: LoweredFine) -> None:
        super().__init__()
        self.smooth = nn.AvgPool2d(3, 1, 1)
        self.fine = fine

    def forward(self, low):
        high = self.smooth(low)[:, :, ::2, ::2].permute(0, 2, 3, 1)
        return self.fine(low, high)


@pytest.mark.parametrize(
    ("attention", "size"),
    [("aats", 16), ("aats", 14), ("vanilla", 16), ("window", 14), ("window", 16), ("area", 16), ("linear", 16)],
)
def test_the_graph_of_every_strategy_holds_no_operator_that_splits_the_block(attention, size):
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        neck = Neck(LoweredFine(random_block(FineConfig(channels=32, attention=attention, k=2)))).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's remarks on constants
        model = trace(neck, torch.rand(1, 32, size, size), ["low"], ["out"])
    inside = [node.op_type for node in model.graph.node if node.name.startswith("/fine/")]
    assert {"MatMul", "LayerNormalization"} <= set(inside)
    assert not FORBIDDEN & set(inside)
    assert [finding for finding in check(model) if finding.severity == "error"] == []
