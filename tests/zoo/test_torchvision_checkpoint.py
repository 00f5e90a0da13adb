"""torchvision's checkpoint files: today's keys, those of the published files, epsilons, and what is none."""

from __future__ import annotations

import argparse
import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fine_edge.errors import WeightsError
from fine_edge.zoo.catalog import find
from fine_edge.zoo.checkpoints import learned_state, save
from fine_edge.zoo.family import family_of
from fine_edge.zoo.load import load

pytestmark = pytest.mark.host

FAMILY = family_of("torchvision")
CLASSES = 7


def backbone(levels):
    extra = LastLevelP6P7(256, 256) if len(levels) == 3 else None
    return resnet_fpn_backbone(backbone_name="resnet18", weights=None, returned_layers=levels, extra_blocks=extra)


def shaken(model):
    """No statistic neutral, and variances as small as an epsilon here and there."""
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.copy_(torch.logspace(-5, 0, len(tensor))[torch.randperm(len(tensor))])
            elif "running_mean" in key or (tensor.ndim == 1 and "backbone.body" in key):
                tensor.uniform_(-0.5, 1.0)
    return model.eval()


BUILDERS = {
    "retinanet": lambda: detection.RetinaNet(backbone([2, 3, 4]), CLASSES),
    "fcos": lambda: detection.FCOS(backbone([2, 3, 4]), CLASSES),
    "fasterrcnn": lambda: detection.FasterRCNN(backbone([1, 2, 3, 4]), CLASSES),
    "maskrcnn": lambda: detection.MaskRCNN(backbone([1, 2, 3, 4]), CLASSES),
}


@pytest.fixture(scope="module", params=list(BUILDERS))
def named_model(request):
    torch.manual_seed(0)
    return request.param, shaken(BUILDERS[request.param]())


def former(state, *, fcos):
    """Keys as torchvision wrote them until 0.13."""
    renamed = {}
    for key, tensor in state.items():
        key = re.sub(r"(fpn\.\w+_blocks\.\d)\.0\.", r"\1.", key)
        key = re.sub(r"(rpn\.head\.conv)\.0\.0\.", r"\1.", key)
        key = re.sub(r"mask_head\.(\d)\.0\.", lambda m: f"mask_head.mask_fcn{int(m[1]) + 1}.", key)
        if not fcos:
            key = re.sub(r"(_head\.conv)\.(\d)\.0\.", lambda m: f"{m[1]}.{2 * int(m[2])}.", key)
        renamed[key] = tensor
    return renamed


@pytest.fixture
def image():
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def features(model, image):
    with torch.no_grad():
        return list(model.backbone(image).values())


def test_today_s_keys_are_taken_as_they_are(named_model, tmp_path):
    name, model = named_model
    path = tmp_path / "model.pth"
    torch.save(model.state_dict(), path)
    checkpoint = FAMILY.read(path)
    assert checkpoint.layout == "torchvision"
    assert FAMILY.num_labels(checkpoint) == CLASSES
    assert checkpoint.state.keys() == model.state_dict().keys()
    assert all(torch.equal(checkpoint.state[key], value) for key, value in model.state_dict().items()), name


def test_training_scripts_files_hold_it_under_model(named_model, tmp_path):
    _, model = named_model
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": model.state_dict(), "epoch": 3, "optimizer": {}}, path)
    assert FAMILY.read(path).state.keys() == model.state_dict().keys()


def test_former_keys_load_and_do_what_torchvision_makes_of_them(named_model, image, tmp_path):
    name, model = named_model
    state = former(model.state_dict(), fcos=name == "fcos")
    assert state.keys() != model.state_dict().keys()
    path = tmp_path / "published.pth"
    torch.save(state, path)
    checkpoint = FAMILY.read(path)
    ours = BUILDERS[name]().eval()
    ours.load_state_dict(checkpoint.state)
    theirs = BUILDERS[name]().eval()
    theirs.load_state_dict(dict(state))
    if name != "fcos":
        overwrite_eps(theirs, 0.0)  # as torchvision does with these weights, and with FCOS's not
    for mine, wanted in zip(features(ours, image), features(theirs, image), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    if name != "fcos":
        overwrite_eps(theirs, 1e-5)  # the difference shows, so the test sees something
        assert not torch.allclose(features(ours, image)[0], features(theirs, image)[0], rtol=1e-2)


def test_a_model_with_another_epsilon_is_saved_for_the_usual_one(image, tmp_path):
    torch.manual_seed(0)
    model = shaken(BUILDERS["retinanet"]())
    overwrite_eps(model, 0.0)
    before = features(model, image)
    save(model, tmp_path / "own.safetensors", name="retinanet_r50", labels=("a", "b"))
    again = BUILDERS["retinanet"]().eval()
    again.load_state_dict(FAMILY.read(tmp_path / "own.safetensors").state)
    assert next(m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)).eps == 0.0  # left as it was
    for mine, wanted in zip(features(again, image), before, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.fixture(scope="module")
def small():
    return load(find("fcos_mobilenetv3")).model


def _scripts_file(state):
    """As ``references/detection`` of torchvision saves it."""
    args = argparse.Namespace(model="fcos_resnet50_fpn", data_path=Path("coco"), weights=None, lr=np.float64(0.02))
    return {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.02}]}, "args": args, "epoch": 25}


@pytest.mark.parametrize(
    "wrap",
    [
        _scripts_file,
        lambda state: {f"_orig_mod.{key}": tensor for key, tensor in state.items()},
        lambda state: {"state_dict": {f"model.{key}": t for key, t in state.items()}, "hyper_parameters": {"lr": 1}},
        lambda state: {"state_dict": {f"model._orig_mod.module.{key}": t for key, t in state.items()}},
        lambda state: {"model": {"x": torch.zeros(1)}, "model_ema": {f"module.{key}": t for key, t in state.items()}},
        lambda state: {"net": state, "best": torch.tensor(0.5)},
        lambda state: {key: tensor.double() for key, tensor in state.items()},
    ],
    ids=["script", "compiled", "lightning", "all", "average", "net", "double"],
)
def test_what_trainings_write_is_loaded(wrap, small, tmp_path):
    torch.save(wrap(small.state_dict()), tmp_path / "a.pth")
    found = load(find("fcos_mobilenetv3"), tmp_path / "a.pth")
    assert not found.report.missing
    for key, tensor in learned_state(small).items():
        assert torch.equal(found.model.state_dict()[key], tensor), key


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.fill_(torch.nan), "not finite"),
        (lambda t: t.double() * 1e300, "not finite"),
        (lambda t: t.to(torch.int8), "is of int8, floats are needed"),
        (lambda t: t > 0, "is of bool"),
        (lambda t: t.to(torch.float8_e4m3fn), "is of float8_e4m3fn"),
    ],
)
def test_weights_that_nothing_can_be_computed_with_are_refused_by_name(change, words, small, tmp_path):
    key = "backbone.fpn.inner_blocks.0.0.weight"
    state = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    torch.save({**state, key: change(state[key])}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=f"{re.escape(key)} .*{words}"):
        load(find("fcos_mobilenetv3"), tmp_path / "a.pth")


def test_half_files_keep_what_fp16_cannot_hold(small, tmp_path):
    model = copy.deepcopy(small)
    with torch.no_grad():
        model.head.classification_head.cls_logits.weight[0, 0, 0, 0] = 1e6
    labels = ("background", "a")
    path = tmp_path / "half.safetensors"
    save(model, path, name="fcos_mobilenetv3", labels=labels * 45 + labels[:1], half=True)
    found = load(find("fcos_mobilenetv3"), path).model
    assert found.head.classification_head.cls_logits.weight[0, 0, 0, 0] == 1e6
    with torch.no_grad():
        model.head.classification_head.cls_logits.weight[0, 0, 0, 0] = torch.inf
    with pytest.raises(WeightsError, match=r"head\.classification_head\.cls_logits\.weight holds 1 of"):
        save(model, tmp_path / "bad.safetensors", name="fcos_mobilenetv3", labels=labels)
    assert not (tmp_path / "bad.safetensors").exists()


def test_the_model_that_weights_are_of_is_named(small, tmp_path):
    torch.save(small.state_dict(), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"weights of another model: .* -> use fcos_mobilenetv3"):
        load(find("retinanet_r50"), tmp_path / "a.pth")
    torch.save({"model": small.state_dict(), "args": argparse.Namespace(model="ssd300_vgg16")}, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match="its args say model = 'ssd300_vgg16'"):
        load(find("fcos_mobilenetv3"), tmp_path / "b.pth")


def test_a_training_from_published_weights_goes_on_without_an_epsilon(image, tmp_path):
    torch.manual_seed(0)
    theirs = shaken(BUILDERS["retinanet"]())
    overwrite_eps(theirs, 0.0)
    args = argparse.Namespace(model="retinanet_resnet50_fpn", weights="RetinaNet_ResNet50_FPN_Weights.COCO_V1")
    torch.save({"model": theirs.state_dict(), "args": args}, tmp_path / "a.pth")
    ours = BUILDERS["retinanet"]().eval()
    ours.load_state_dict(FAMILY.read(tmp_path / "a.pth").state)
    for mine, wanted in zip(features(ours, image), features(theirs, image), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_our_own_layout(tmp_path):
    model = BUILDERS["fcos"]()
    path = tmp_path / "own.safetensors"
    labels = tuple(f"kind {i}" for i in range(CLASSES))
    save(model, path, name="fcos_r50", labels=labels)
    checkpoint = FAMILY.read(path)
    assert (checkpoint.layout, checkpoint.model, checkpoint.labels) == ("fine_edge", "fcos_r50", labels)
    assert FAMILY.num_labels(checkpoint) == CLASSES


def test_other_weights_are_none_of_a_detector(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(3, 3)}, path)
    assert FAMILY.num_labels(FAMILY.read(path)) is None
    path.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="not a PyTorch checkpoint"):
        FAMILY.read(path)


def test_a_published_baseline_becomes_a_model_with_fine_at_the_identity(tmp_path):
    theirs = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
    path = tmp_path / "retinanet.pth"
    torch.save(theirs.state_dict(), path)
    loaded = load(find("retinanet_r50_fine"), path)
    assert "FINE starts at identity" in str(loaded.report)
    assert len(loaded.labels) == CLASSES
    image = torch.rand(1, 3, 64, 64)
    for mine, wanted in zip(features(loaded.model, image), features(theirs, image), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(WeightsError, match="weights of another model"):
        load(find("fcos_r50"), path)
