"""The lowered detector computes what transformers' own forward pass computes."""

from __future__ import annotations

import copy

import pytest
import torch
from detectors import distinct
from scipy.optimize import linear_sum_assignment

from fine_edge.errors import ConfigError
from fine_edge.zoo.family import GraphForm, family_of

BOX_PX, LOGIT = 0.02, 1e-3
STRATEGIES = ("vanilla", "window", "area", "linear")


@pytest.fixture(scope="module")
def r18_fine():
    return distinct("rtdetr_r18_fine")


@pytest.fixture(scope="module")
def r18():
    return distinct("rtdetr_r18")


def lower_raw(model, batch, height, width):
    return family_of("rtdetr").lowered(model, GraphForm(batch, height, width, raw=True))


@torch.no_grad()
def assert_equal(model, batch, height, width):
    """Query by query: which of two near-ties comes first in a top-k is chance."""
    images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(3))
    expected, (logits, boxes) = model(images), lower_raw(model, batch, height, width)(images)
    assert boxes.shape == (batch, 300, 4)
    size = torch.tensor([width, height, width, height])
    for image in range(batch):
        ours, theirs = boxes[image] * size, expected.pred_boxes[image] * size
        assert theirs[:, :2].std(dim=0).min() > 5, "boxes that are all alike prove nothing"
        distance = torch.cdist(theirs.double(), ours.double(), p=float("inf"))
        rows, columns = linear_sum_assignment(distance)
        assert distance[rows, columns].max() < BOX_PX
        assert (expected.logits[image][rows] - logits[image][columns]).abs().max() < LOGIT


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 160, 160), (1, 128, 192), (2, 128, 160)])
def test_r18_with_fine(r18_fine, batch, height, width):
    assert_equal(r18_fine, batch, height, width)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 160, 160), (2, 128, 192)])
def test_r18(r18, batch, height, width):
    assert_equal(r18, batch, height, width)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_other_strategy(strategy):
    model = distinct(f"rtdetr_r18_fine_{strategy}")
    assert_equal(model, 1, 128, 192)
    assert_equal(model, 2, 128, 160)


@pytest.mark.slow
@pytest.mark.parametrize("rival", ["fapn", "adafpn", "mgc"])
def test_rivals_that_replace_layers(rival):
    assert_equal(distinct(f"rtdetr_r18_{rival}"), 1, 128, 160)


@pytest.mark.slow
def test_r50_with_fine():
    assert_equal(distinct("rtdetr_r50_fine"), 1, 128, 160)


def test_fine_takes_part(r18_fine):
    """Without this the tests above could pass with FINE left out on both sides."""
    without = copy.deepcopy(r18_fine)
    for block in without.model.encoder.fpn_blocks:
        block.fine.reset_to_identity()
    images = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        changed = (without(images).logits - r18_fine(images).logits).abs().max()
    assert changed > 100 * LOGIT


def test_the_model_itself_is_left_as_it_is(r18_fine):
    before = {key: value.clone() for key, value in r18_fine.state_dict().items()}
    wanted = {key: parameter.requires_grad for key, parameter in r18_fine.named_parameters()}
    lowered = lower_raw(r18_fine, 1, 160, 160)
    with torch.no_grad():
        for tensor in lowered.state_dict().values():
            tensor.zero_()
    after = r18_fine.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert {key: parameter.requires_grad for key, parameter in r18_fine.named_parameters()} == wanted
    assert not any(parameter.requires_grad for parameter in lowered.parameters())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("normalize_before", True),
        ("learn_initial_query", True),
        ("num_feature_levels", 4),
        ("eval_size", 640),
        ("encode_proj_layers", [1, 2]),
        ("activation_function", "relu"),
        ("encoder_activation_function", "relu"),
        ("decoder_activation_function", "gelu"),
    ],
)
def test_a_configuration_that_is_not_covered_is_refused(r18_fine, monkeypatch, field, value):
    monkeypatch.setattr(r18_fine.config, field, value)
    with pytest.raises(ConfigError, match=f"export needs {field} = ") as caught:
        lower_raw(r18_fine, 1, 160, 160)
    assert repr(value) in str(caught.value)


def test_a_backbone_of_another_activation_is_refused(r18_fine, monkeypatch):
    monkeypatch.setattr(r18_fine.config.backbone_config, "hidden_act", "gelu")
    with pytest.raises(ConfigError, match="relu backbone, found 'gelu'"):
        lower_raw(r18_fine, 1, 160, 160)
