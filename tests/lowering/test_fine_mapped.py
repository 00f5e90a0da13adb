"""FINE lowered on maps computes what FINE computes, for every strategy, modulation and size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fine_edge.export.plugin import use_plugin
from fine_edge.fusion import Fine, FineConfig
from fine_edge.fusion.sampling import feature_map, upsample
from fine_edge.lowering.fine import MappedFine

pytestmark = pytest.mark.host


def fine(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Fine(FineConfig(channels=32, **options)).double().eval()
        with torch.no_grad():
            for parameter in block.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return block.requires_grad_(False)


def maps(height, width, high_channels=32, batch=1):
    generator = torch.Generator().manual_seed(1)
    low = torch.randn(batch, 32, height, width, generator=generator, dtype=torch.float64)
    high = torch.randn(batch, high_channels, -(-height // 2), -(-width // 2), generator=generator, dtype=torch.float64)
    return low, high


@settings(max_examples=40)
@given(
    attention=st.sampled_from(["aats", "vanilla", "window", "area", "linear"]),
    modulation=st.sampled_from(["residual", "direct", "none"]),
    k=st.sampled_from([1, 2, 4]),
    ffn_ratio=st.sampled_from([0, 2, 4]),
    high_channels=st.sampled_from([32, 48]),
    size=st.tuples(st.integers(4, 17), st.integers(4, 17)),
    batch=st.integers(1, 2),
)
def test_it_equals_fine(attention, modulation, k, ffn_ratio, high_channels, size, batch):
    block = fine(
        attention=attention, modulation=modulation, k=k, ffn_ratio=ffn_ratio, high_channels=high_channels, areas=2
    )
    low, high = maps(*size, high_channels, batch)
    with torch.no_grad():
        torch.testing.assert_close(MappedFine(block).double()(low, high), block(low, high), rtol=1e-6, atol=1e-6)


def test_the_plugin_takes_tokens_and_adds_the_low_level_map_itself():
    block = fine(k=1)
    low, high = maps(8, 12)
    with torch.no_grad():
        mapped = MappedFine(block).double()
        use_plugin(mapped, "a model")
        given = []
        mapped.modulate.register_forward_pre_hook(lambda _module, inputs: given.extend(inputs))
        mapped(low, high)
        f, m, rows, columns = given
        assert (f is low, m.shape, rows, columns) == (True, (1, 24, 32), 4, 6)
        up = upsample(feature_map(m, rows, columns), 2, 8, 12)
        torch.testing.assert_close(low * up + low, block(low, high), rtol=1e-6, atol=1e-6)
