"""FINE blocks with the plugin's node equal those without: ONNX Runtime puts the node's body in its place."""

from __future__ import annotations

import copy
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modulate_build import SOURCES, load_reference
from onnx import TensorProto, helper
from torch import nn

from fine_edge.errors import ConfigError
from fine_edge.export.plugin import DOMAIN, OPERATOR, define_plugin, use_plugin
from fine_edge.export.trace import trace
from fine_edge.fusion import Fine, FineConfig
from fine_edge.graph.convert import to_fp16
from fine_edge.lowering.fine import LoweredFine

pytestmark = pytest.mark.host

reference = load_reference()


def run(model, **inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def plugin_nodes(model):
    return [node for node in model.graph.node if node.op_type == OPERATOR]


def attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


class Neck(nn.Module):
    """A low-level map and its high-level one, for a FINE block."""

    def __init__(self, fine: LoweredFine) -> None:
        super().__init__()
        self.smooth = nn.AvgPool2d(3, 1, 1)
        self.fine = fine

    def forward(self, low):
        high = self.smooth(low)[:, :, ::2, ::2].permute(0, 2, 3, 1)
        return self.fine(low, high)


@torch.no_grad()
def neck(config):
    """FINE off the identity, no bias neutral."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Fine(config)
        for parameter in block.parameters():
            nn.init.normal_(parameter, std=0.3)
        return Neck(LoweredFine(block)).eval().requires_grad_(False)


def exported_pair(config, size):
    """The same block, native and with the plugin."""
    native = neck(config)
    plugin = copy.deepcopy(native)
    use_plugin(plugin, "neck")
    example = torch.rand(1, config.channels, size, size)
    graphs = [trace(module, example, ["low"], ["out"]) for module in (native, plugin)]
    define_plugin(graphs[1])
    return graphs


@pytest.fixture(scope="module")
def border_pair():
    """14 is no multiple of the kernel, 4."""
    return exported_pair(FineConfig(channels=32, k=2), 14)


def assert_equal_graphs(native, plugin, size):
    low = np.random.default_rng(0).standard_normal((1, 32, size, size)).astype(np.float32)
    expected = run(native, low=low)
    assert np.abs(expected - low).max() > 0.1, "at the identity this proves nothing"
    np.testing.assert_allclose(run(plugin, low=low), expected, rtol=1e-4, atol=1e-4)


def test_a_block_with_the_plugin_equals_the_native_one(border_pair):
    native, plugin = border_pair
    assert not plugin_nodes(native)
    (node,) = plugin_nodes(plugin)
    assert attributes(node) == {"kernel": 4, "plugin_version": b"1", "plugin_namespace": b""}
    assert_equal_graphs(native, plugin, 14)


def test_so_does_one_without_a_feed_forward():
    assert_equal_graphs(*exported_pair(FineConfig(channels=32, k=1, ffn_ratio=0), 16), 16)


def test_a_strategy_without_sampling_has_kernel_1():
    module = neck(FineConfig(channels=32, attention="linear"))
    use_plugin(module, "neck")
    assert module.fine.modulate.kernel == 1


@pytest.mark.parametrize("modulation", ["direct", "none"])
def test_another_modulation_is_refused(modulation):
    with pytest.raises(ConfigError, match="the plugin fine_modulate computes"):
        use_plugin(neck(FineConfig(channels=32, modulation=modulation)), "neck")


def test_a_model_without_fine_is_refused():
    with pytest.raises(ConfigError, match="choose a model with FINE, or export without --plugin"):
        use_plugin(nn.Sequential(nn.Linear(2, 2)), "rtdetr_r18")


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 17), st.integers(1, 17)),
    kernel=st.integers(1, 9),
    dtype=st.sampled_from([np.float16, np.float32]),
    seed=st.integers(0, 2**31),
)
def test_the_nodes_body_is_the_reference(shape, kernel, dtype, seed):
    rng = np.random.default_rng(seed)
    low = rng.standard_normal(shape).astype(dtype)
    m = rng.standard_normal((*shape[:2], -(-shape[2] // kernel), -(-shape[3] // kernel))).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(low.dtype)
    node = helper.make_node(OPERATOR, ["low", "m"], ["out"], domain=DOMAIN, kernel=kernel)
    values = [helper.make_tensor_value_info(name, kind, value.shape) for name, value in (("low", low), ("m", m))]
    graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("out", kind, shape)])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    define_plugin(model)
    onnx.checker.check_model(model, full_check=True)
    # Two roundings, where the kernel has one.
    tolerance = {np.float16: 4e-3, np.float32: 1e-6}[dtype]
    np.testing.assert_allclose(
        run(model, low=low, m=m).astype(np.float64), reference.modulate(low, m, kernel), rtol=tolerance, atol=tolerance
    )


def test_fp16_goes_through_the_node(border_pair):
    """Types and shapes around it are known, as a strongly typed network needs."""
    _, plugin = border_pair
    half = to_fp16(plugin)
    (node,) = plugin_nodes(half)
    values = {value.name: value.type.tensor_type for value in (*half.graph.value_info, *half.graph.input)}
    types = {name: (values[name].elem_type, [d.dim_value for d in values[name].shape.dim]) for name in node.input}
    assert list(types.values()) == [(TensorProto.FLOAT16, [1, 32, 14, 14]), (TensorProto.FLOAT16, [1, 32, 4, 4])]
    low = np.random.default_rng(0).standard_normal((1, 32, 14, 14)).astype(np.float32)
    np.testing.assert_allclose(run(half, low=low), run(plugin, low=low), rtol=0.05, atol=0.05)


def test_the_node_asks_for_the_plugin_that_the_library_holds():
    """Operator, version, namespace and attribute are what the parser looks a plugin up by."""
    text = (SOURCES / "fine_modulate_plugin.cpp").read_text()
    names = dict(re.findall(r'constexpr char const\* k(\w+) = "(.*)";', text))
    assert names == {"Name": OPERATOR, "Version": "1", "Namespace": "", "KernelField": "kernel"}
