"""torchvision's checkpoint files: today's keys, those of the published files, epsilons, and what is none."""

from __future__ import annotations

import re

import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fine_edge.errors import WeightsError
from fine_edge.zoo.catalog import find
from fine_edge.zoo.checkpoints import save
from fine_edge.zoo.families import family_of
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
