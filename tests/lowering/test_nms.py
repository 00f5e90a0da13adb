"""Suppression with fixed shapes finds what torchvision's greedy kernel finds, before and after export."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, nms

from fine_edge.engine.inspect import inspect
from fine_edge.errors import ConfigError
from fine_edge.export.trace import trace
from fine_edge.graph.checks import check
from fine_edge.lowering import nms as module
from fine_edge.lowering.nms import Nms

pytestmark = pytest.mark.host


def greedy(boxes, scores, groups, threshold):
    """Rows that torchvision's kernel keeps, group by group, best first."""
    kept = [torch.empty(0, dtype=torch.int64)]
    for group in groups.unique():
        rows = torch.where((groups == group) & (scores > 0))[0]
        kept.append(rows[nms(boxes[rows], scores[rows], threshold)])
    kept = torch.cat(kept)
    return kept[scores[kept].argsort(descending=True)]


def assert_greedy(boxes, scores, groups, threshold, keep=None):
    """One image, scores without ties."""
    keep = len(boxes) if keep is None else keep
    expected = greedy(boxes, scores, groups, threshold)[:keep]
    got_boxes, got_scores, rows = Nms(threshold, keep)(boxes[None], scores[None], groups[None])
    assert got_boxes.shape == (1, keep, 4)
    assert rows.dtype == torch.int64
    count = len(expected)
    assert rows[0, :count].tolist() == expected.tolist()
    torch.testing.assert_close(got_boxes[0, :count], boxes[expected], rtol=0, atol=0)
    torch.testing.assert_close(got_scores[0, :count], scores[expected], rtol=0, atol=0)
    assert not got_boxes[0, count:].any()
    assert not got_scores[0, count:].any()
    assert not rows[0, count:].any()


def distinct_scores(count, generator):
    return (torch.randperm(count, generator=generator) + 1).float() / (count + 1)


def boxes_of(corners, sides):
    return torch.cat([corners, corners + sides], 1)


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 60),
    spread=st.sampled_from([5, 40, 400]),
    classes=st.integers(1, 4),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.7, 1.0]),
    share=st.sampled_from([0.3, 1.0]),
)
@example(seed=0, count=1, spread=5, classes=1, threshold=0.5, share=1.0)
def test_whole_pixels_where_overlaps_meet_the_threshold_exactly(seed, count, spread, classes, threshold, share):
    g = torch.Generator().manual_seed(seed)
    corners = torch.randint(0, spread, (count, 2), generator=g).float()
    boxes = boxes_of(corners, torch.randint(0, 30, (count, 2), generator=g).float())  # some without area
    groups = torch.randint(0, classes, (count,), generator=g)
    scores = distinct_scores(count, g) * (torch.rand(count, generator=g) < share)
    keep = int(torch.randint(1, count + 1, (1,), generator=g))
    assert_greedy(boxes, scores, groups, threshold, keep)


@given(seed=st.integers(0, 10**6), threshold=st.sampled_from([0.5, 0.6, 0.7]))
def test_fractions_of_pixels_in_a_crowd(seed, threshold):
    g = torch.Generator().manual_seed(seed)
    boxes = boxes_of(torch.rand(400, 2, generator=g) * 300, 20 + torch.rand(400, 2, generator=g) * 80)
    assert_greedy(boxes, distinct_scores(400, g), torch.randint(0, 2, (400,), generator=g), threshold)


def chain(count, step=25.0):
    """Boxes of 100 px, each moved a step further: one overlaps its neighbours by 0.6, the next but one by 1 / 3."""
    left = torch.arange(count) * step
    zeros = torch.zeros(count)
    return torch.stack([left, zeros, left + 100, zeros + 100], 1)


def in_order(count):
    return torch.linspace(0.9, 0.1, count)


@pytest.mark.parametrize("count", [1, 2, module.ROUNDS, module.ROUNDS + 1])
def test_a_chain_of_as_many_boxes_as_there_are_rounds(count):
    assert_greedy(chain(count), in_order(count), torch.zeros(count), 0.5)


def test_a_longer_chain_leaves_boxes_too_many_and_loses_none():
    boxes, scores, groups = chain(60), in_order(60), torch.zeros(60)
    expected = set(greedy(boxes, scores, groups, 0.5).tolist())
    _, kept_scores, rows = Nms(0.5, 60)(boxes[None], scores[None], groups[None])
    kept = set(rows[0][kept_scores[0] > 0].tolist())
    assert expected == set(range(0, 60, 2))
    assert kept > expected


def test_chains_across_blocks():
    """Chains of eight boxes whose scores lie far apart, so that every chain runs through all blocks."""
    chains, length = 125, 8
    boxes = torch.cat([chain(length) + torch.tensor([0.0, 200.0 * i, 0.0, 200.0 * i]) for i in range(chains)])
    scores = in_order(length).repeat(chains) + torch.arange(chains).repeat_interleave(length) * 1e-4
    assert len(boxes) > 2 * module.LARGEST_BLOCK
    assert_greedy(boxes, scores, torch.zeros(len(boxes)), 0.5)


def candidates(objects, noise, generator, side=512):
    """The best 1000 of anchors that see random objects: boxes near the object's, scores by how well the anchor fits."""
    sizes = tuple((s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in (32, 64, 128, 256, 512))
    maps = [torch.empty(1, 1, side // stride, side // stride) for stride in (8, 16, 32, 64, 128)]
    image = ImageList(torch.empty(1, 3, side, side), [(side, side)])
    (anchors,) = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)(image, maps)
    sides = 20 * 15 ** torch.rand(objects, 2, generator=generator)
    truth = boxes_of(torch.rand(objects, 2, generator=generator) * side - sides / 2, sides)
    fit, which = box_iou(anchors, truth).max(1)
    scores = torch.sigmoid(10 * (fit - 0.5) + 0.8 * torch.randn(len(fit), generator=generator))
    best = (scores * (fit > 0.25)).topk(1000).indices
    jitter = noise * (1 - fit[best]).clamp_min(0.1)[:, None] * sides[which[best]].repeat(1, 2)
    boxes = truth[which[best]] + jitter * torch.randn(1000, 4, generator=generator)
    return boxes, scores[best], which[best] % 5


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7])
@pytest.mark.parametrize(("objects", "noise"), [(5, 0.2), (30, 0.2), (30, 0.4), (100, 0.4)])
def test_candidates_as_dense_detectors_have_them(objects, noise, threshold):
    g = torch.Generator().manual_seed(objects)
    for _ in range(5):
        boxes, scores, groups = candidates(objects, noise, g)
        assert_greedy(boxes, scores, groups, threshold, 300)


def test_rows_in_order_are_not_sorted_again():
    g = torch.Generator().manual_seed(1)
    boxes, scores, groups = candidates(10, 0.2, g)
    scores, order = scores.sort(descending=True)
    boxes, groups = boxes[order], groups[order]
    scores[::7] = 0  # rows that are none, between others
    sorted_again, as_they_are = Nms(0.5, 100), Nms(0.5, 100, ordered=True)
    for ours, theirs in zip(
        as_they_are(boxes[None], scores[None], groups[None]),
        sorted_again(boxes[None], scores[None], groups[None]),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_images_of_a_batch_do_not_meet():
    g = torch.Generator().manual_seed(2)
    batch = [candidates(n, 0.2, g) for n in (5, 50)]
    together = Nms(0.5, 100)(*(torch.stack(parts) for parts in zip(*batch, strict=True)))
    for image, one in enumerate(batch):
        alone = Nms(0.5, 100)(*(part[None] for part in one))
        assert all(torch.equal(whole[image], part[0]) for whole, part in zip(together, alone, strict=True))


def test_fewer_boxes_than_rows_are_refused():
    with pytest.raises(ConfigError, match="3 boxes are fewer than the 4 to keep"):
        Nms(0.5, 4)(torch.zeros(1, 3, 4), torch.zeros(1, 3), torch.zeros(1, 3))


# --- exported


class Exported(nn.Module):
    """One input that holds boxes, scores and groups, (B, N, 6)."""

    def __init__(self, **options):
        super().__init__()
        self.postprocess = Nms(0.5, 100, **options)

    def forward(self, x):
        return self.postprocess(x[..., :4], x[..., 4], x[..., 5].round())


NAMES = ["boxes", "scores", "rows"]


def cases(batch, count):
    """None, one, many."""
    g = torch.Generator().manual_seed(3)
    parts = [candidates(20, 0.3, g) for _ in range(batch)]
    many = torch.stack([torch.cat([b, s[:, None], c[:, None]], 1)[:count] for b, s, c in parts])
    none, one = many.clone(), many.clone()
    none[..., 4] = 0
    one[:, :-1, 4] = 0
    return none, one, many


@pytest.mark.parametrize("how", ["graph", "onnx"])
@pytest.mark.parametrize(("batch", "count"), [(1, 1000), (2, 400)])
def test_onnx_runtime_finds_the_same(how, batch, count):
    exported = Exported(how=how).eval()
    model = trace(exported, torch.zeros(batch, count, 6), ["x"], NAMES)
    found = {(finding.rule, finding.severity) for finding in check(model)}
    assert found == (set() if how == "graph" else {("FE14", "warning")})
    operators = {node.op_type for node in model.graph.node}
    assert ("NonMaxSuppression" in operators) == (how == "onnx")
    assert operators.isdisjoint({"If", "Loop", "NonZero", "ScatterND", "ScatterElements"})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for x in cases(batch, count):
        expected = exported(x)  # run by torch, both ways are the same
        for ours, theirs in zip(session.run(NAMES, {"x": x.numpy()}), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs.numpy())


def test_it_compiles_to_few_kernels(tmp_path):
    path = tmp_path / "nms.onnx"
    onnx.save(trace(Exported(ordered=True).eval(), torch.zeros(1, 1000, 6), ["x"], NAMES), path)
    compiled = inspect(path).compiled
    assert len(compiled.kernels) <= 42
    assert compiled.activation_mib < 10
