"""RoIAlign of tokens against torchvision's own operator."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import MultiScaleRoIAlign

from fine_edge.export.trace import trace
from fine_edge.graph.open_batch import open_batch
from fine_edge.lowering import roi_align
from fine_edge.lowering.roi_align import BinRows, Pooling, pool, stride_exponents, tokens_of

pytestmark = pytest.mark.host

CHANNELS = 3


def sizes_of(height: int, width: int) -> tuple[tuple[int, int], ...]:
    return tuple((-(-height // stride), -(-width // stride)) for stride in (4, 8, 16, 32))


class Pooled(nn.Module):
    def __init__(self, height: int, width: int, pooling: Pooling) -> None:
        super().__init__()
        self.bins, self.side = BinRows(sizes_of(height, width), height, pooling), pooling.output

    def forward(self, maps: list[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
        pooled = pool(tokens_of(maps), *self.bins(boxes))
        return pooled.flatten(0, 1).transpose(1, 2).unflatten(2, (self.side, self.side))


def maps_of(height: int, width: int, batch: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return [torch.randn(batch, CHANNELS, *size, generator=generator) for size in sizes_of(height, width)]


def torchvisions(maps: list[torch.Tensor], boxes: torch.Tensor, height: int, width: int, pooling: Pooling):
    names = [str(i) for i in range(len(maps))]
    align = MultiScaleRoIAlign(names, pooling.output, pooling.ratio)
    return align(dict(zip(names, maps, strict=True)), list(boxes), [(height, width)] * len(boxes))


def random_boxes(height: int, width: int, batch: int, count: int, seed: int, spill: float) -> torch.Tensor:
    """Boxes of all sizes and shapes, of which some reach ``spill`` of the image's size beyond its borders."""
    draw = np.random.default_rng(seed)
    size = np.array([width, height])
    centre = draw.uniform(-spill, 1 + spill, (batch, count, 2)) * size
    half = np.exp(draw.uniform(np.log(0.1), np.log(0.6 * max(height, width)), (batch, count, 2)))
    boxes = np.concatenate([centre - half, centre + half], -1)
    if not spill:
        boxes = np.clip(boxes, 0, [width, height, width, height])
    return torch.from_numpy(boxes.astype(np.float32))


@pytest.fixture(autouse=True, scope="module")
def few_boxes_at_once():
    """Let every test gather in several parts, the last of which is smaller."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roi_align, "AT_ONCE", 15)
        yield


@given(
    height=st.integers(33, 300),
    width=st.integers(33, 300),
    batch=st.integers(1, 2),
    output=st.sampled_from([7, 14]),
    seed=st.integers(0, 10**6),
    spill=st.sampled_from([0.0, 0.3]),
)
@example(height=33, width=300, batch=1, output=7, seed=0, spill=0.0)  # two levels of one inferred stride
@example(height=33, width=33, batch=1, output=7, seed=0, spill=0.3)
@example(height=300, width=36, batch=2, output=7, seed=0, spill=0.0)  # the coarse levels are wider than the finest
@settings(max_examples=25)
def test_equals_torchvision(height, width, batch, output, seed, spill):
    pooling = Pooling(output)
    maps, boxes = maps_of(height, width, batch), random_boxes(height, width, batch, 40, seed, spill)
    expected = torchvisions(maps, boxes, height, width, pooling)
    found = Pooled(height, width, pooling)(maps, boxes)
    assert found.shape == (batch * 40, CHANNELS, output, output)
    torch.testing.assert_close(found, expected, atol=5e-4, rtol=0)


def test_at_the_borders_and_without_area():
    height, width = 200, 264
    edges = [
        [0, 0, width, height],  # all of it
        [0, 0, 0, 0],  # a point, which RoIAlign gives a side of one pixel of the map
        [width, height, width, height],  # the same where nothing is left of the map
        [width - 1, 0, width, height],
        [0, height - 1, width, height],
        [10, 20, 10, 90],
        [-50, -50, -20, -20],  # outside
        [width + 8, 0, width + 60, 60],
        [0.5, 0.5, 1.0, 1.0],
    ]
    boxes = torch.tensor([edges], dtype=torch.float32)
    maps, pooling = maps_of(height, width), Pooling(7)
    expected = torchvisions(maps, boxes, height, width, pooling)
    assert (expected[2] == 0).all(), "torchvision reads nothing beyond the border"
    torch.testing.assert_close(Pooled(height, width, pooling)(maps, boxes), expected, atol=5e-4, rtol=0)


@pytest.mark.parametrize(
    ("side", "level"), [(1, 0), (111, 0), (112, 1), (223, 1), (224, 2), (447, 2), (448, 3), (900, 3)]
)
def test_level_by_area(side, level):
    """Eq. 1 of the FPN paper: the canonical 224 pixels take the level of stride 16."""
    maps = [torch.full((1, 1, *size), float(i)) for i, size in enumerate(sizes_of(2048, 2048))]
    boxes = torch.tensor([[[0.0, 0.0, side, side], [0.0, 0.0, side / 2, side * 2]]])
    assert Pooled(2048, 2048, Pooling(7))(maps, boxes).round(decimals=5).unique().tolist() == [level]


def test_strides_are_powers_of_two():
    assert stride_exponents(sizes_of(800, 800), 800) == [2, 3, 4, 5]
    assert stride_exponents(sizes_of(270, 100), 270) == [2, 3, 4, 5]


@pytest.mark.parametrize("batch", [1, 2])
def test_as_onnx(batch):
    height, width = 96, 160
    module = Pooled(height, width, Pooling(7)).eval()
    maps, boxes = maps_of(height, width, batch), random_boxes(height, width, batch, 20, 1, 0.0)

    class OneInput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module
            self.maps = nn.ParameterList(maps)

        def forward(self, boxes: torch.Tensor) -> torch.Tensor:
            return self.module(list(self.maps), boxes)

    model = trace(OneInput().eval(), boxes, ["boxes"], ["pooled"])
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"GridSample", "RoiAlign", "NonZero", "ScatterND", "If", "Loop", "GatherND"}
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"boxes": boxes.numpy()})
    expected = torchvisions(maps, boxes, height, width, Pooling(7))
    np.testing.assert_allclose(found, expected.numpy(), atol=5e-4)


def test_one_graph_serves_every_batch():
    bins = BinRows(sizes_of(64, 96), 64, Pooling(2)).eval()
    two, three = (
        trace(bins, random_boxes(64, 96, batch, 5, 0, 0.3), ["boxes"], ["rows", "shares"]) for batch in (2, 3)
    )
    session = ort.InferenceSession(open_batch(two, three, 4).SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in (1, 3, 4):
        boxes = random_boxes(64, 96, batch, 5, batch, 0.3)
        rows, shares = session.run(None, {"boxes": boxes.numpy()})
        expected_rows, expected_shares = bins(boxes)
        np.testing.assert_array_equal(rows, expected_rows.numpy())
        np.testing.assert_allclose(shares, expected_shares.numpy(), atol=1e-5)
