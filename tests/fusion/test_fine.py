from typing import get_args

import numpy as np
import pytest
import reference_fine
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fine_edge.errors import ConfigError
from fine_edge.fine_options import AttentionName, DownName, ModulationName
from fine_edge.fusion import Fine, FineConfig

ATTENTIONS, DOWNS, MODULATIONS = (get_args(names) for names in (AttentionName, DownName, ModulationName))


def make_block(config: FineConfig, seed: int = 0) -> Fine:
    """A block in float64 with every weight random, so that no norm or bias is neutral."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block = Fine(config).double()
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        for norm in (block.norm_low, block.norm_high):
            torch.nn.init.normal_(norm.weight, mean=1.0, std=0.3)
    return block


def maps(config: FineConfig, low_hw, high_hw, batch=1, seed=1):
    rng = np.random.default_rng(seed)
    low = rng.standard_normal((batch, config.channels, *low_hw))
    high = rng.standard_normal((batch, config.high_channels or config.channels, *high_hw))
    return torch.from_numpy(low), torch.from_numpy(high)


def assert_equals_the_paper(config, low_hw, high_hw, batch=1):
    block = make_block(config)
    low, high = maps(config, low_hw, high_hw, batch)
    with torch.no_grad():
        out = block(low, high).numpy()
    expected = np.stack([reference_fine.fine(block, a.numpy(), b.numpy()) for a, b in zip(low, high, strict=True)])
    np.testing.assert_allclose(out, expected, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize(
    ("low_hw", "high_hw"),
    [((8, 8), (4, 4)), ((16, 12), (8, 6)), ((9, 13), (5, 7)), ((7, 15), (4, 8)), ((1, 1), (1, 1)), ((1, 9), (1, 5))],
    ids=str,
)
def test_block_is_eq_4_to_9(attention, low_hw, high_hw):
    assert_equals_the_paper(FineConfig(channels=32, attention=attention, k=2), low_hw, high_hw, batch=2)


@pytest.mark.parametrize("down", DOWNS)
@pytest.mark.parametrize(("k", "r"), [(1, 1), (1, 2), (2, 2), (2, 4), (3, 2)])
def test_tokens_cover_odd_maps_without_padding_in_an_average(down, k, r):
    assert_equals_the_paper(FineConfig(channels=32, down=down, k=k, r=r), (11, 7), (6, 5))


@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("ffn_ratio", [0, 2, 4])
@pytest.mark.parametrize("attention", ["aats", "window"])
def test_modulations_and_feed_forward_widths(modulation, ffn_ratio, attention):
    config = FineConfig(channels=32, attention=attention, modulation=modulation, ffn_ratio=ffn_ratio)
    assert_equals_the_paper(config, (9, 8), (5, 4))


@pytest.mark.parametrize(("heads", "head_dim"), [(None, 8), (None, 32), (1, 16), (4, 16), (32, 16)])
def test_heads_split_the_channels(heads, head_dim):
    config = FineConfig(channels=32, heads=heads, head_dim=head_dim)
    assert config.num_heads == (heads or 32 // head_dim)
    assert_equals_the_paper(config, (6, 6), (3, 3))


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("high_channels", [16, 48])
def test_eq_10_unifies_different_channels(attention, high_channels):
    config = FineConfig(channels=32, high_channels=high_channels, attention=attention)
    assert Fine(config).unify.bias is None
    assert_equals_the_paper(config, (6, 7), (3, 4))


@settings(max_examples=60)
@given(
    attention=st.sampled_from(ATTENTIONS),
    window=st.integers(1, 4),
    areas=st.integers(1, 6),
    low_hw=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    high_hw=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_every_strategy_sees_exactly_what_its_definition_says(attention, window, areas, low_hw, high_hw):
    config = FineConfig(channels=16, head_dim=8, attention=attention, window=window, areas=areas)
    assert_equals_the_paper(config, low_hw, high_hw)


@settings(max_examples=80)
@given(
    attention=st.sampled_from(ATTENTIONS),
    down=st.sampled_from(DOWNS),
    modulation=st.sampled_from(MODULATIONS),
    k=st.integers(1, 3),
    r=st.integers(1, 4),
    low_hw=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    high_hw=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    batch=st.integers(1, 2),
)
def test_any_size_gives_a_finite_map_and_gradients(attention, down, modulation, k, r, low_hw, high_hw, batch):
    config = FineConfig(channels=32, attention=attention, down=down, modulation=modulation, k=k, r=r)
    block = Fine(config)
    low, high = (x.float().requires_grad_() for x in maps(config, low_hw, high_hw, batch))
    out = block(low, high)
    assert out.shape == low.shape
    assert torch.isfinite(out).all()
    out.square().sum().backward()
    for name, parameter in (*block.named_parameters(), ("high", high)):
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("down", DOWNS)
def test_every_parameter_can_learn(attention, down):
    config = FineConfig(channels=32, high_channels=16, attention=attention, down=down, k=2)
    block = make_block(config)
    low, high = maps(config, (16, 16), (8, 8))
    block(low, high).square().sum().backward()
    for name, parameter in block.named_parameters():
        # A constant added to all keys shifts every score of a query alike, which softmax does not see.
        if name != "key.bias" or attention == "linear":
            assert parameter.grad.abs().max() > 1e-9, name


@pytest.mark.parametrize("attention", ["window", "area"])
@pytest.mark.parametrize("low_hw", [(8, 8), (9, 10), (3, 3), (15, 1)], ids=str)
def test_padding_takes_no_attention(attention, low_hw):
    """Where all values are one, attention over keys that exist gives one: padding would pull it down to zero."""
    config = FineConfig(channels=32, attention=attention, modulation="none", ffn_ratio=0)
    block = make_block(config)
    torch.nn.init.zeros_(block.value.weight)
    torch.nn.init.ones_(block.value.bias)
    torch.nn.init.eye_(block.project.weight)
    torch.nn.init.zeros_(block.project.bias)
    low, high = maps(config, low_hw, (5, 5))
    torch.testing.assert_close(block(low, high), torch.ones_like(low), rtol=0, atol=1e-12)


@pytest.mark.parametrize("modulation", ["residual", "direct"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("ffn_ratio", [0, 2])
def test_identity_start_returns_low_bit_for_bit(modulation, attention, ffn_ratio):
    config = FineConfig(channels=32, attention=attention, modulation=modulation, ffn_ratio=ffn_ratio, identity=True)
    low, high = (x.float() for x in maps(config, (13, 9), (7, 5)))
    low[0, 0, 0, :4] = torch.tensor([0.0, 1e-42, 1e4, -1e-3])  # zero, a subnormal, a large one
    out = Fine(config)(low, high)
    assert torch.equal(out.view(torch.int32), low.view(torch.int32))


@pytest.mark.parametrize("modulation", ["residual", "direct"])
def test_identity_start_can_leave_identity(modulation):
    config = FineConfig(channels=32, modulation=modulation, identity=True)
    block = Fine(config)
    low, high = (x.float() for x in maps(config, (8, 8), (4, 4)))
    block(low, high).square().sum().backward()
    assert block.ffn.down.weight.grad.abs().max() > 0


def test_without_identity_the_block_changes_its_input():
    config = FineConfig(channels=32)
    low, high = (x.float() for x in maps(config, (8, 8), (4, 4)))
    assert (Fine(config)(low, high) - low).abs().max() > 1e-3


def test_a_map_of_other_channels_is_refused():
    with pytest.raises(ConfigError, match="has 16 channels, the block was made for 32"):
        Fine(FineConfig(channels=32))(torch.zeros(1, 16, 4, 4), torch.zeros(1, 32, 2, 2))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"channels": 250}, r"channels \(250\) must be divisible by head_dim \(16\)"),
        ({"channels": 256, "heads": 3}, r"channels \(256\) must be divisible by heads \(3\)"),
        ({"channels": 0}, "channels must be at least 1, not 0"),
        ({"k": 0}, "k must be at least 1"),
        ({"r": -1}, "r must be at least 1, not -1"),
        ({"head_dim": 0}, "head_dim must be at least 1"),
        ({"heads": 0}, "heads must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
        ({"areas": 0}, "areas must be at least 1"),
        ({"high_channels": 0}, "high_channels must be at least 1"),
        ({"ffn_ratio": -1}, "ffn_ratio must not be negative"),
        ({"attention": "global"}, "attention is 'global', known: aats, vanilla, window, area, linear"),
        ({"down": "median"}, "down is 'median', known: avg, max, dwconv"),
        ({"modulation": "add"}, "modulation is 'add', known: residual, direct, none"),
        ({"modulation": "none", "identity": True}, "cannot start as the identity"),
    ],
    ids=str,
)
def test_a_configuration_that_cannot_exist_says_why(fields, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        FineConfig(**fields)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_identity_is_refused_later_too():
    block = Fine(FineConfig(channels=32, modulation="none"))
    with pytest.raises(ConfigError, match="cannot start as the identity"):
        block.reset_to_identity()
