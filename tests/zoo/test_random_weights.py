"""Random weights that stand in for trained ones must be the same every time, and behave like a detector."""

import random

import numpy as np
import pytest
import torch

from fine_edge.detections import from_raw
from fine_edge.fusion.fine import Fine
from fine_edge.images import sample_photographs
from fine_edge.preprocess import Preprocessing, preprocess
from fine_edge.zoo.catalog import find
from fine_edge.zoo.load import load
from fine_edge.zoo.rtdetr.fusion import rtdetr_fusions


@pytest.fixture(scope="module")
def detector():
    return load(find("rtdetr_r18_fine"), None, seed=3)


def state_of(detector):
    return detector.model.state_dict()


def test_equal_seeds_give_equal_weights_and_leave_the_global_random_state(detector):
    torch.manual_seed(12345)  # whatever went before
    np.random.seed(1)
    random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    again = load(find("rtdetr_r18_fine"), None, seed=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
    assert all(torch.equal(tensor, state_of(again)[key]) for key, tensor in state_of(detector).items())


def test_other_seeds_give_other_weights(detector):
    other = load(find("rtdetr_r18_fine"), None, seed=4)
    differ = [key for key, tensor in state_of(detector).items() if not torch.equal(tensor, state_of(other)[key])]
    assert any("backbone" in key for key in differ)
    assert any(".fine." in key for key in differ)
    assert any("class_embed" in key for key in differ)


def test_the_provenance_says_random(detector):
    assert detector.provenance == {"source": "random", "seed": 3}
    assert detector.report is None
    assert not detector.model.training


def test_a_photograph_gets_scores_and_boxes_that_differ(detector):
    for photograph in sample_photographs()[:2]:
        tensor, _ = preprocess(photograph.pixels, 160, 160, Preprocessing())
        with torch.no_grad():
            out = detector.model(torch.from_numpy(tensor))
        found = from_raw({"logits": out.logits.numpy(), "boxes": out.pred_boxes.numpy()}, 160, 160)
        assert (found.scores > 0.3).sum() >= 3
        assert found.scores[0] - found.scores[-1] > 0.3
        assert len(np.unique(found.scores)) > 0.9 * len(found)
        assert len(np.unique(found.labels)) >= 8
        boxes = found.boxes_xyxy_px
        assert len(np.unique(boxes.round(2), axis=0)) > 50
        assert boxes.std(axis=0).min() > 10
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_weights_are_finite_and_fine_is_not_at_identity(detector):
    assert all(torch.isfinite(tensor).all() for tensor in state_of(detector).values() if tensor.is_floating_point())
    blocks = rtdetr_fusions(detector.model)
    assert len(blocks) == 2
    for block in blocks:
        assert isinstance(block, Fine)
        low, high = torch.randn(1, 256, 8, 8), torch.randn(1, 256, 4, 4)
        with torch.no_grad():
            assert (block(low, high) - low).abs().mean() > 0.01


def test_where_transformers_starts_at_zero_there_are_weights(detector):
    for layer in detector.model.model.decoder.layers:
        assert layer.encoder_attn.sampling_offsets.weight.std() > 0.01
        assert layer.encoder_attn.attention_weights.weight.std() > 0.01
    for head in (detector.model.model.enc_bbox_head, *detector.model.model.decoder.bbox_embed):
        assert head.layers[-1].weight.std() > 0.01


def test_no_hook_of_the_calibration_is_left(detector):
    hooks = [name for name, module in detector.model.named_modules() if module._forward_pre_hooks]
    assert hooks == ["model.encoder.fpn_blocks.0", "model.encoder.fpn_blocks.1"]
