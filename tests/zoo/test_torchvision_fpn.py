"""FINE in torchvision's feature pyramid: where it goes, what it leaves alone, and that it learns."""

from __future__ import annotations

import copy

import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fine_edge.errors import ConfigError
from fine_edge.fusion.methods import METHODS, MethodConfig
from fine_edge.zoo.torchvision.family import FAMILY
from fine_edge.zoo.torchvision.fpn import FusionPlace, deepest, inject, pyramid_fusions

pytestmark = pytest.mark.host

ONE_BLOCK = 527_616  # parameters of FINE at 256 channels: half of what the paper's two modules add


def backbone(levels):
    """ResNet-18, which is the smallest, with the given levels."""
    extra = LastLevelP6P7(256, 256) if len(levels) == 3 else None
    return resnet_fpn_backbone(backbone_name="resnet18", weights=None, returned_layers=levels, extra_blocks=extra)


@pytest.fixture(scope="module")
def detectors():
    torch.manual_seed(0)
    three, four = [2, 3, 4], [1, 2, 3, 4]
    return {
        "retinanet": detection.RetinaNet(backbone(three), 5).eval(),
        "fcos": detection.FCOS(backbone(three), 5).eval(),
        "fasterrcnn": detection.FasterRCNN(backbone(four), 5).eval(),
        "maskrcnn": detection.MaskRCNN(backbone(four), 5).eval(),
        "keypointrcnn": detection.KeypointRCNN(backbone(four), 5).eval(),
    }


@pytest.fixture
def images():
    return torch.rand(1, 3, 96, 120, generator=torch.Generator().manual_seed(0))


NAMES = ("retinanet", "fcos", "fasterrcnn", "maskrcnn", "keypointrcnn")


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_two_deepest_fusions_take_it_and_no_output_changes(detectors, images, name):
    baseline = detectors[name]
    refined = inject(copy.deepcopy(baseline))
    levels = len(baseline.backbone.fpn.inner_blocks)
    assert list(refined.backbone.fpn.fine) == [str(levels - 2), str(levels - 3)]  # two-stage: not at stride 4
    assert [block.config.k for block in pyramid_fusions(refined)] == [1, 2]
    more = sum(p.numel() for p in refined.parameters()) - sum(p.numel() for p in baseline.parameters())
    assert more == 2 * ONE_BLOCK
    before, after = baseline.backbone(images), refined.backbone(images)
    assert list(before) == list(after)
    assert all(torch.equal(before[level], after[level]) for level in before)


@torch.no_grad()
def test_detections_of_the_whole_model_stay_bit_for_bit(detectors):
    image = torch.rand(3, 64, 80, generator=torch.Generator().manual_seed(1))
    model = copy.deepcopy(detectors["fasterrcnn"])
    model.transform.min_size, model.roi_heads.score_thresh = (64,), 0.0
    before = model([image])[0]
    after = inject(model)([image])[0]
    assert len(before["scores"]) > 10
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_s_weights_load_and_only_fine_is_missing(detectors, name):
    result = inject(copy.deepcopy(detectors[name])).load_state_dict(detectors[name].state_dict(), strict=False)
    assert not result.unexpected_keys
    assert result.missing_keys
    assert all(key.startswith("backbone.fpn.fine.") for key in result.missing_keys)
    assert any(key.endswith(".query.weight") for key in result.missing_keys)


@torch.no_grad()
def test_fine_off_the_identity_reaches_the_levels_at_and_below_its_fusions(detectors, images):
    refined = inject(copy.deepcopy(detectors["fasterrcnn"]), MethodConfig(identity=False))
    before, after = detectors["fasterrcnn"].backbone(images), refined.backbone(images)
    changed = [not torch.equal(before[level], after[level]) for level in before]
    assert changed == [True, True, True, False, False]  # strides 4 to 32, and the pooled level


def test_gradients_reach_every_weight_of_fine_in_training(detectors):
    model = inject(copy.deepcopy(detectors["retinanet"])).train()
    for block in pyramid_fusions(model):
        torch.nn.init.normal_(block.ffn.down.weight, std=0.01)  # at the identity the first step moves this one alone
        torch.nn.init.normal_(block.project.weight, std=0.01)
    image = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(2))
    model.transform.min_size = (96,)
    target = {"boxes": torch.tensor([[10.0, 10.0, 60.0, 70.0]]), "labels": torch.tensor([1])}
    sum(model([image], [target]).values()).backward()
    # Softmax does not see a bias of the keys: its gradient is rounding.
    blind = {key for key, p in model.named_parameters() if ".fine." in key and not p.grad.any()}
    assert {key.split(".", 4)[-1] for key in blind} <= {"key.bias"}
    assert any(".fine." in key for key, _ in model.named_parameters())


def test_at_the_identity_the_last_projection_has_a_gradient(detectors):
    model = inject(copy.deepcopy(detectors["fcos"])).train()
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    sum(level.square().mean() for level in model.backbone(images).values()).backward()
    assert all(block.ffn.down.weight.grad.abs().max() > 0 for block in pyramid_fusions(model))


@torch.no_grad()
def test_three_fusions_for_segmentation(detectors, images):
    model = inject(copy.deepcopy(detectors["maskrcnn"]), places=deepest(3, (1, 2, 4)))
    assert list(model.backbone.fpn.fine) == ["2", "1", "0"]
    assert [block.config.k for block in pyramid_fusions(model)] == [1, 2, 4]
    assert len(model.backbone(images)) == 5


@pytest.mark.parametrize("method", sorted(METHODS))
@torch.no_grad()
def test_every_method_keeps_sizes_that_no_stride_divides(detectors, method):
    model = inject(copy.deepcopy(detectors["fasterrcnn"]), MethodConfig(method, identity=False)).eval()
    images = torch.rand(1, 3, 90, 75, generator=torch.Generator().manual_seed(4))
    levels = list(model.backbone(images).values())
    sizes = [tuple(level.shape[-2:]) for level in levels]
    assert sizes == [tuple(level.shape[-2:]) for level in detectors["fasterrcnn"].backbone(images).values()]
    assert all(f".{method}." in key for key in model.state_dict().keys() - detectors["fasterrcnn"].state_dict().keys())
    lowered = FAMILY.lower_layers(model).backbone(images)
    for level, expected in zip(lowered.values(), levels, strict=True):
        torch.testing.assert_close(level, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("method", ["fapn", "mgc"])
@torch.no_grad()
def test_a_methods_laterals_take_the_place_of_the_pyramids_convolutions(detectors, method):
    """The finest level gets a map for itself too, though its fusion stays as it is."""
    model = inject(copy.deepcopy(detectors["fasterrcnn"]), MethodConfig(method)).eval()
    assert list(model.backbone.fpn.inner_blocks) == []
    laterals = pyramid_fusions(model)[-1]
    assert laterals.in_channels == (64, 128, 256, 512)
    assert len(pyramid_fusions(model)) == {"fapn": 3, "mgc": 1}[method]
    maps = [torch.rand(1, count, 8 >> i, 8 >> i) for i, count in enumerate(laterals.in_channels)]
    assert [x.shape for x in laterals(maps)] == [(1, 256, 8 >> i, 8 >> i) for i in range(4)]


def test_what_has_no_such_pyramid_is_refused(detectors):
    refined = inject(copy.deepcopy(detectors["retinanet"]))
    with pytest.raises(ConfigError, match="already there"):
        inject(refined)
    with pytest.raises(ConfigError, match="SSD has no feature pyramid"):
        inject(detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None))
    with pytest.raises(ConfigError, match="2 fusions, none at level 5"):
        inject(copy.deepcopy(detectors["fcos"]), places=[FusionPlace(5, 1)])

    class Own(FeaturePyramidNetwork):
        pass

    other = copy.deepcopy(detectors["fcos"])
    other.backbone.fpn.__class__ = Own
    with pytest.raises(ConfigError, match="Own is a pyramid of its own kind"):
        inject(other)
