"""Semantic and Panoptic FPN as the zoo has them: structure, counts, checkpoints, random weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fine_edge.errors import ConfigError
from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo import checkpoints
from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.labels import CITYSCAPES_LABELS, COCO_LABELS, COCO_PANOPTIC_LABELS, COCO_STUFF
from fine_edge.zoo.segmentation import panoptic, semantic
from fine_edge.zoo.segmentation.family import FpnSegmenter

pytestmark = pytest.mark.host

FAMILY = FpnSegmenter()


@pytest.fixture(scope="module")
def plain_semantic():
    return semantic.build(19, None).eval()


@pytest.fixture(scope="module")
def filled_semantic():
    """With FINE, and random weights as an export has them."""
    return filled("semantic_fpn_r50_fine")


def filled(name):
    entry = find(name)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = FAMILY.build(entry, len(FAMILY.labels(entry)), identity=False)
        FAMILY.randomise(model)
    return model


def test_labels_are_those_of_cityscapes_and_of_cocos_two_kinds():
    assert FAMILY.labels(find("semantic_fpn_r50")) == CITYSCAPES_LABELS
    assert len(CITYSCAPES_LABELS) == len(set(CITYSCAPES_LABELS)) == 19
    labels = FAMILY.labels(find("panoptic_fpn_r50"))
    assert labels == COCO_PANOPTIC_LABELS
    assert len(labels) == len(set(labels)) == 1 + 80 + 53 + 1
    assert labels[1:81] == COCO_LABELS
    assert labels[81:134] == COCO_STUFF
    assert (labels[0], labels[134]) == ("__background__", "things")


@pytest.mark.parametrize(
    ("name", "params_m", "flops_g"),
    [
        ("semantic_fpn_r50", 28.498, 90.874),
        ("semantic_fpn_r50_fine", 30.078, 91.686),
        ("panoptic_fpn_r50", 46.031, 156.7),
        ("panoptic_fpn_r50_fine", 47.612, 157.352),
    ],
)
def test_counts_are_the_papers(name, params_m, flops_g):
    entry = find(name)
    model = FAMILY.build(entry, len(FAMILY.labels(entry)))
    cost = FAMILY.count(model, *entry.detector.input_hw)
    assert cost.params_m == pytest.approx(params_m, abs=0.001)
    assert cost.flops_g == pytest.approx(flops_g, abs=0.07)
    assert cost.params_m == pytest.approx(entry.paper.params_m, abs=0.05)
    assert cost.flops_g == pytest.approx(entry.paper.flops_g, abs=0.1)


def test_fine_refines_the_two_deepest_fusions_with_a_feed_forward_of_ratio_4(filled_semantic):
    """As the authors' logs count it: +1.580 M parameters, 16 heads."""
    configs = [fusion.config for fusion in FAMILY.fusions(filled_semantic)]
    assert [(config.k, config.ffn_ratio, config.num_heads) for config in configs] == [(1, 4, 16), (2, 4, 16)]
    keys = [key for key in filled_semantic.state_dict() if ".fine." in key]
    assert {key.split(".")[3] for key in keys} == {"2", "1"}
    assert sum(filled_semantic.state_dict()[key].numel() for key in keys) == 1_580_544
    with torch.device("meta"):
        users = FAMILY.inject(panoptic.PanopticFpn(81), MethodConfig())
    assert [fusion.config.ffn_ratio for fusion in FAMILY.fusions(users)] == [4, 4]
    assert FAMILY.fusions(semantic.build(19, None)) == []


def test_the_identity_changes_nothing(plain_semantic):
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    fine = semantic.build(19, MethodConfig()).eval()
    report = fine.load_state_dict(plain_semantic.state_dict(), strict=False)
    assert all(".fine." in key for key in report.missing_keys)
    with torch.no_grad():
        torch.testing.assert_close(fine(images), plain_semantic(images), rtol=0, atol=0)


def test_gradients_reach_every_parameter():
    model = semantic.build(5, MethodConfig(identity=False))
    logits = model(torch.rand(2, 3, 64, 64))
    assert logits.shape == (2, 5, 64, 64)
    nn.functional.cross_entropy(logits, torch.randint(5, (2, 64, 64))).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("size", [(96, 100), (16, 64)])
def test_sizes_that_do_not_halve_five_times_are_refused(plain_semantic, size):
    with pytest.raises(ConfigError, match="does not divide by 32"):
        plain_semantic(torch.zeros(1, 3, *size))
    with pytest.raises(ConfigError, match="does not divide by 32"):
        FAMILY.graph(plain_semantic, GraphForm(1, *size))


def test_random_weights_give_varied_class_maps(filled_semantic):
    images = semantic.photographs(128, 256, find("semantic_fpn_r50").detector.preprocessing)
    with torch.no_grad():
        classes = FAMILY.reference(filled_semantic, images, raw=False).outputs["classes"]
    shares = torch.bincount(classes.flatten(), minlength=19) / classes.numel()
    assert (shares > 0.005).sum() >= 15
    assert shares.max() < 0.3


def test_raw_outputs_are_what_the_class_map_comes_from(filled_semantic):
    images = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = FAMILY.reference(filled_semantic, images, raw=True).outputs["logits"]
        classes = FAMILY.reference(filled_semantic, images, raw=False).outputs["classes"]
    assert logits.shape == (2, 19, 16, 32)
    full = nn.functional.interpolate(logits, size=(64, 128), mode="bilinear", align_corners=False)
    assert torch.equal(full.argmax(1), classes)


def mmseg_key(key):
    """Ours to mmsegmentation's, as its FPNHead, FPN and ResNetV1c name their layers."""
    for ours, theirs in (
        ("backbone.body.conv1.", "backbone.stem."),
        ("backbone.body.", "backbone."),
        ("semantic.classifier.", "decode_head.conv_seg."),
    ):
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    kind, level, *rest = key.split(".")[2:]
    if kind == "inner_blocks":
        return ".".join(["neck.lateral_convs", level, "conv", *rest[1:]])
    if kind == "layer_blocks":
        return ".".join(["neck.fpn_convs", level, "conv", *rest[1:]])
    _, _, level, stage, layer, name = key.split(".")
    index = 2 * int(stage) if level != "0" else 0
    return f"decode_head.scale_heads.{level}.{index}.{'conv' if layer == '0' else 'bn'}.{name}"


def test_mmsegmentations_checkpoints_load(filled_semantic, folder):
    state = {k: v for k, v in filled_semantic.state_dict().items() if ".fine." not in k}
    theirs = {mmseg_key(key): tensor for key, tensor in state.items()}
    assert "decode_head.scale_heads.3.4.bn.running_var" in theirs
    names = tuple(f"own_{index}" for index in range(19))
    torch.save({"meta": {"CLASSES": names}, "state_dict": theirs}, folder / "fpn.pth")
    checkpoint = FAMILY.read(folder / "fpn.pth")
    assert checkpoint.layout == "mmsegmentation"
    assert FAMILY.num_labels(checkpoint) == 19
    assert checkpoint.labels == names
    wanted = checkpoints.learned(state)
    assert checkpoint.state.keys() == wanted.keys()
    assert all(torch.equal(checkpoint.state[key], tensor) for key, tensor in wanted.items())


def test_our_own_files_come_back(filled_semantic, folder):
    path = folder / "own.safetensors"
    checkpoints.save(filled_semantic, path, name="semantic_fpn_r50_fine", labels=CITYSCAPES_LABELS)
    checkpoint = FAMILY.read(path)
    assert (checkpoint.layout, checkpoint.model) == ("fine_edge", "semantic_fpn_r50_fine")
    assert checkpoint.labels == CITYSCAPES_LABELS
    assert FAMILY.num_labels(checkpoint) == 19


def test_labels_of_a_checkpoint_are_those_of_its_heads():
    heads = {"semantic.classifier.weight": torch.zeros(54, 128, 1, 1)}
    assert FAMILY.num_labels(checkpoints.Checkpoint(heads, "torch")) == 54
    heads["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(81, 1024)
    assert FAMILY.num_labels(checkpoints.Checkpoint(heads, "torch")) == 135
    del heads["semantic.classifier.weight"]
    assert FAMILY.num_labels(checkpoints.Checkpoint(heads, "torch")) is None  # torchvision's Mask R-CNN


def test_a_panoptic_model_needs_labels_for_both_heads():
    with pytest.raises(ConfigError, match="54"):
        panoptic.build(55, None)
    model = panoptic.build(56, None)
    assert model.first_stuff == 2
