"""One call puts FINE into a detector of any known library; at identity nothing changes, and gradients flow."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.detection import retinanet_resnet50_fpn
from transformers import RTDetrModel

from fine_edge.errors import ConfigError, FineEdgeError
from fine_edge.fusion import Fine
from fine_edge.zoo.family import family_of
from fine_edge.zoo.inject import inject_fine
from fine_edge.zoo.rtdetr.family import rtdetr_config
from fine_edge.zoo.yolo.library import DetectionModel, quiet


def retinanet():
    return retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4).eval()


def yolo():
    with quiet():
        return DetectionModel("yolov8n.yaml", nc=4, verbose=False).eval()


def dense(model, images):
    """What comes out before anything is selected."""
    if isinstance(model, DetectionModel):
        return [model(images)[0]]
    found = model.head(list(model.backbone(images).values()))
    return [found["cls_logits"], found["bbox_regression"]]


@pytest.mark.parametrize("make", [retinanet, yolo])
def test_at_identity_nothing_changes_and_gradients_reach_fine(make):
    torch.manual_seed(0)
    model = make()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        before = dense(model, images)
    keys = set(model.state_dict())
    assert inject_fine(model) is model
    blocks = [module for module in model.modules() if isinstance(module, Fine)]
    assert [block.config.k for block in blocks] == [1, 2]
    assert {key for key in model.state_dict() if ".fine." not in key} == keys
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(before, dense(model, images), strict=True))
    twin = copy.deepcopy(model)
    sum(x.square().mean() for x in dense(twin, images)).backward()
    for block in (module for module in twin.modules() if isinstance(module, Fine)):
        # The two projections that are zero at the identity; the others follow once these have moved.
        assert block.project.weight.grad.abs().max() > 0
        assert block.ffn.down.weight.grad.abs().max() > 0


def test_what_is_not_known_is_refused():
    with pytest.raises(ConfigError, match=r"a Sequential is not known.*known: detectors of transformers"):
        inject_fine(nn.Sequential())
    model = retinanet()
    inject_fine(model, "window")
    with pytest.raises(ConfigError, match="a fusion method is already there"):
        inject_fine(model)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RTDetrModel(rtdetr_config("r18", 3)), "a RTDetrModel is no RT-DETR with its heads"),
        (lambda: nn.DataParallel(retinanet()), "a DataParallel wraps a detector"),
        (lambda: resnet18(weights=None), "ResNet has no feature pyramid"),
        (lambda: None, "a NoneType is not known"),
    ],
)
def test_a_model_of_another_class_is_our_type_error(make, words):
    with torch.device("meta"):
        model = make()
    with pytest.raises(TypeError, match=words) as caught:
        inject_fine(model)
    assert isinstance(caught.value, FineEdgeError)


def test_a_family_is_found_by_its_name():
    assert family_of("rtdetr").libraries == ("torch", "transformers")
    with pytest.raises(ModuleNotFoundError):
        family_of("nothing")
