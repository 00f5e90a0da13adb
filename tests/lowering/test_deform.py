"""Deformable convolution as GridSample: equal to torchvision's own operator wherever its points may lie."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import DeformConv2d

from fine_edge.export.trace import trace
from fine_edge.graph.checks import check
from fine_edge.lowering.deform import LoweredDeformConv2d, LoweredPointSampling, is_deformable


def pair(seed=0, **fields):
    """A layer of torchvision with random weights, in double, and its lowered form."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = DeformConv2d(**fields).double().requires_grad_(False)
        if layer.bias is not None:
            nn.init.normal_(layer.bias)
    return layer, LoweredDeformConv2d(layer)


def inputs(layer, size, groups, spread, *, masked, batch=1, seed=1):
    """A map and, for the layer's output size, offsets of that many pixels and masks."""
    kernel, out = layer.kernel_size, []
    for axis in (0, 1):
        reach = layer.dilation[axis] * (kernel[axis] - 1) + 1
        out.append((size[axis] + 2 * layer.padding[axis] - reach) // layer.stride[axis] + 1)
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    points = kernel[0] * kernel[1]
    offset = spread * random(batch, groups * points * 2, *out)
    mask = random(batch, groups * points, *out).sigmoid() if masked else None
    return random(batch, layer.in_channels, *size), offset, mask


def assert_equal(layer, lowered, arguments):
    torch.testing.assert_close(lowered(*arguments), layer(*arguments), rtol=1e-10, atol=1e-10)


@settings(max_examples=200)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    stride=st.sampled_from([1, 1, 2]),
    dilation=st.integers(1, 2),
    conv_groups=st.sampled_from([1, 2, 4]),
    deformable_groups=st.sampled_from([1, 2, 4, 8]),
    size=st.tuples(st.integers(7, 12), st.integers(7, 12)),
    spread=st.sampled_from([0.0, 0.5, 3.0, 50.0]),
    masked=st.booleans(),
    bias=st.booleans(),
    batch=st.integers(1, 2),
)
def test_any_layer_on_any_map(
    kernel, padding, stride, dilation, conv_groups, deformable_groups, size, spread, masked, bias, batch
):
    layer, lowered = pair(
        in_channels=8,
        out_channels=12,
        kernel_size=kernel,
        padding=padding,
        stride=stride,
        dilation=dilation,
        groups=conv_groups,
        bias=bias,
    )
    assert_equal(layer, lowered, inputs(layer, size, deformable_groups, spread, masked=masked, batch=batch))


@pytest.mark.parametrize("offset", [0.0, 0.25, 1.0, -1.0, -1.5, 2.0, 6.0, -7.0, 6.75, 100.0])
def test_points_on_and_beyond_the_border(offset):
    """All points by the same offset: whole pixels, the last pixel's centre, less and more than a pixel outside."""
    layer, lowered = pair(in_channels=4, out_channels=4, kernel_size=3, padding=1)
    x, zero, _ = inputs(layer, (7, 7), 2, 0.0, masked=False)
    assert_equal(layer, lowered, (x, zero + offset))


def test_maps_of_one_row_column_or_pixel():
    layer, lowered = pair(in_channels=4, out_channels=4, kernel_size=3, padding=1)
    for size in ((1, 1), (1, 6), (6, 1)):
        assert_equal(layer, lowered, inputs(layer, size, 2, 1.0, masked=True))


def test_without_offsets_and_masks_it_is_a_convolution():
    layer, lowered = pair(in_channels=4, out_channels=6, kernel_size=3, padding=1)
    x, zero, _ = inputs(layer, (9, 7), 1, 0.0, masked=False)
    expected = nn.functional.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(lowered(x, zero), expected)


def test_the_first_of_an_offsets_channels_is_down_the_second_across():
    layer, _ = pair(in_channels=1, out_channels=1, kernel_size=1)
    sampling = LoweredPointSampling(layer)
    x = torch.arange(25.0).double().reshape(1, 1, 5, 5)
    moved = sampling(x, torch.tensor([1.0, 2.0]).double()[None, :, None, None].expand(1, 2, 5, 5))
    assert torch.allclose(moved[0, 0, :4, :3], x[0, 0, 1:, 2:])
    assert torch.equal(moved[0, 0, 4], torch.zeros(5).double())


class Predicted(nn.Module):
    """A deformable convolution with what moves it, from one input as the exporter takes it."""

    def __init__(self, deformable, channels, groups):
        super().__init__()
        self.groups = groups
        self.predict = nn.Conv2d(channels, groups * 27, 3, padding=1)
        self.align = deformable

    def forward(self, x):
        offset, mask = self.predict(x).split([self.groups * 18, self.groups * 9], dim=1)
        return self.align(x, offset, mask.sigmoid())


@pytest.mark.parametrize(("batch", "size"), [(1, (8, 8)), (2, (7, 11))], ids=str)
def test_onnx_runtime_agrees_with_torchvision_and_the_graph_keeps_all_rules(batch, size):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Predicted(DeformConv2d(16, 8, 3, padding=1), 16, groups=4).eval().requires_grad_(False)
        model.predict.weight.mul_(10)  # far enough for points outside
        x = torch.randn(batch, 16, *size)
    expected = model(x).numpy()
    model.align = LoweredDeformConv2d(model.align)
    graph = trace(model, x, ["x"], ["y"])
    assert check(graph) == []
    assert {node.op_type for node in graph.graph.node} <= {
        *("Conv", "Split", "Sigmoid", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Concat", "Mul", "Add"),
        "GridSample",
    }
    assert sum(node.op_type == "GridSample" for node in graph.graph.node) == 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], expected, rtol=1e-4, atol=1e-4)


def test_torchvisions_layer_is_told_from_others():
    layer, lowered = pair(in_channels=1, out_channels=1, kernel_size=1)
    assert is_deformable(layer)
    assert not is_deformable(lowered)
    assert not is_deformable(nn.Conv2d(1, 1, 1))
