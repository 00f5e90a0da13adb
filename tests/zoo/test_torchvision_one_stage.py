"""RetinaNet and FCOS: as torchvision builds them, and as graphs that find what torchvision finds."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from fine_edge.errors import ConfigError
from fine_edge.export.trace import trace
from fine_edge.fusion.methods import MethodConfig
from fine_edge.graph.checks import check
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import GraphForm, family_of
from fine_edge.zoo.random_weights import photographs
from fine_edge.zoo.torchvision import one_stage
from fine_edge.zoo.torchvision.fpn import inject

pytestmark = pytest.mark.host

HEIGHT, WIDTH = 128, 160
FORM = GraphForm(2, HEIGHT, WIDTH)
FAMILY = family_of("torchvision")
KINDS = {"retinanet": detection.RetinaNet, "fcos": detection.FCOS}
MOBILENET = "fcos_mobilenetv3"
ROWS = {"retinanet": 300, "fcos": 100}
BOX_PX, SCORE = 0.02, 5e-4


def small(name):
    """The small FCOS, or one of the others on ResNet-18, so that this takes seconds.

    With FINE off the identity and random weights, scores raised so that this size has detections.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        if name == MOBILENET:
            detector = one_stage.build(name, 91)
        else:
            backbone = resnet_fpn_backbone(
                backbone_name="resnet18", weights=None, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
            )
            detector = KINDS[name](backbone, 91)
        model = inject(detector.eval(), MethodConfig(identity=False))
        one_stage.randomise(model)
        model.head.classification_head.cls_logits.bias += 4.0
    return model


@pytest.fixture(scope="module", params=[*KINDS, MOBILENET])
def model(request):
    return small(request.param)


@pytest.fixture(scope="module")
def images():
    return photographs(HEIGHT, WIDTH, find("fcos_r50").detector.preprocessing)[:2]


@torch.no_grad()
def found_by(graph, images, specs):
    outputs = graph(images)
    assert [tuple(x.shape) for x in outputs] == [spec.shape for spec in specs]
    assert [str(x.dtype) for x in outputs] == [f"torch.{spec.dtype}" for spec in specs]
    return {spec.name: x for spec, x in zip(specs, outputs, strict=True)}


def assert_same_detections(expected, got):
    torch.testing.assert_close(got["scores"], expected["scores"], rtol=0, atol=SCORE)
    torch.testing.assert_close(got["boxes_xyxy"], expected["boxes_xyxy"], rtol=0, atol=BOX_PX)
    assert torch.equal(got["labels"], expected["labels"])


@torch.no_grad()
def test_the_graph_finds_what_torchvision_finds(model, images):
    expected = FAMILY.reference(model, images, raw=False).outputs
    number = (expected["scores"] > 0).sum(1)
    assert (number >= 20).all()  # else this proves little
    widths = (expected["boxes_xyxy"][..., 2] - expected["boxes_xyxy"][..., 0])[expected["scores"] > 0]
    assert widths.std() > 5
    got = found_by(FAMILY.lowered(model, FORM), images, FAMILY.outputs(model, FORM))
    assert_same_detections(expected, got)


@torch.no_grad()
def test_one_image_finds_what_it_finds_in_a_batch(model, images):
    form = replace(FORM, batch=1)
    alone = found_by(FAMILY.lowered(model, form), images[1:], FAMILY.outputs(model, form))
    expected = {key: value[1:] for key, value in FAMILY.reference(model, images, raw=False).outputs.items()}
    assert_same_detections(expected, alone)


@torch.no_grad()
def test_nothing_to_find(model, images):
    blind = copy.deepcopy(model)
    blind.head.classification_head.cls_logits.bias -= 100
    got = found_by(FAMILY.lowered(blind, FORM), images, FAMILY.outputs(model, FORM))
    assert not any(output.any() for output in got.values())
    assert not any(output.any() for output in FAMILY.reference(blind, images, raw=False).outputs.values())


@torch.no_grad()
def test_dense_outputs_are_those_of_the_library_s_head_and_coder(model, images):
    form = replace(FORM, raw=True)
    specs = FAMILY.outputs(model, form)
    assert [spec.name for spec in specs] == ["boxes_xyxy", "scores"]
    expected = FAMILY.reference(model, images, raw=True).outputs
    got = found_by(FAMILY.lowered(model, form), images, specs)
    torch.testing.assert_close(got["scores"], expected["scores"], rtol=0, atol=SCORE)
    torch.testing.assert_close(got["boxes_xyxy"], expected["boxes_xyxy"], rtol=0, atol=BOX_PX)


@torch.no_grad()
def test_more_candidates_than_go_into_suppression(model, images, monkeypatch):
    """The best ones are found all the same."""
    rows = model.detections_per_img
    monkeypatch.setattr(one_stage, "CANDIDATES", rows)
    crowded = copy.deepcopy(model)
    crowded.head.classification_head.cls_logits.bias += 6
    expected = FAMILY.reference(crowded, images, raw=False).outputs
    assert (expected["scores"] > 0).all()
    got = found_by(FAMILY.lowered(crowded, FORM), images, FAMILY.outputs(crowded, FORM))
    for image in range(2):
        count = int((got["scores"][image] > 0).sum())
        assert count > rows // 4
        for key in got:
            torch.testing.assert_close(got[key][image, :count], expected[key][image, :count], rtol=0, atol=BOX_PX)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "nms"), [("retinanet", "graph"), (MOBILENET, "onnx")], indirect=["model"], scope="module"
)
def test_the_exported_graph(model, images, nms):
    """Each head once and each form of suppression once: neither knows of the other. Tracing takes most of the time."""
    form = replace(FORM, nms=nms)
    specs = FAMILY.outputs(model, form)
    names = [spec.name for spec in specs]
    exported = trace(FAMILY.lowered(model, form), torch.zeros_like(images), ["images"], names)
    assert not [finding for finding in check(exported) if finding.severity == "error"]
    scopes = {node.name.split("/")[2] for node in exported.graph.node if node.name.startswith("/detector/")}
    assert {scope.partition(".")[0] for scope in scopes} == {"backbone", "encoder", "decoder", "selection", "boxes"}
    assert any("/encoder/fine.1/" in node.name for node in exported.graph.node)
    with torch.no_grad():
        expected = FAMILY.reference(model, images, raw=False).outputs
    session = onnxruntime.InferenceSession(exported.SerializeToString())
    got = dict(zip(names, map(torch.from_numpy, session.run(names, {"images": images.numpy()})), strict=True))
    assert_same_detections(expected, got)
    _half_precision_finds_most_of_it(exported, images, expected)


def _half_precision_finds_most_of_it(exported: onnx.ModelProto, images, expected):
    half = to_fp16(exported, keep_fp32=kept_by_exporter(exported))
    assert not [finding for finding in check(half) if finding.severity == "error"]
    session = onnxruntime.InferenceSession(half.SerializeToString())
    scores = session.run(["scores"], {"images": images.numpy()})[0]
    assert np.isfinite(scores).all()
    for image in range(len(images)):
        found, wanted = (np.count_nonzero(x[image]) for x in (scores, expected["scores"].numpy()))
        assert abs(found - wanted) <= 0.1 * wanted + 1
        np.testing.assert_allclose(scores[image][:10], expected["scores"][image][:10], atol=0.03)


def test_inputs_that_are_too_small_are_refused(model):
    few = copy.deepcopy(model)
    few.head.classification_head.num_classes = 1
    with pytest.raises(ConfigError, match="anchors for"):
        FAMILY.outputs(few, GraphForm(1, 8, 8))


# --- the published models


@pytest.mark.parametrize(
    ("name", "weights"),
    [("retinanet_r50", detection.RetinaNet_ResNet50_FPN_Weights), ("fcos_r50", detection.FCOS_ResNet50_FPN_Weights)],
)
def test_built_as_the_published_ones(name, weights):
    entry = find(name)
    labels = FAMILY.labels(entry)
    published = weights.COCO_V1.meta
    assert labels == tuple(published["categories"])
    assert (labels[0], labels[1], labels[90]) == ("__background__", "person", "toothbrush")
    model = FAMILY.build(entry, len(labels))
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) == published["num_params"]
    assert isinstance(model.backbone.body.bn1, FrozenBatchNorm2d)
    assert FAMILY.fusions(model) == []
    kind = name.split("_")[0]
    theirs = getattr(detection, f"{kind}_resnet50_fpn")(weights=None, weights_backbone=None)
    wanted = {key: value.shape for key, value in theirs.state_dict().items() if "num_batches_tracked" not in key}
    assert {key: value.shape for key, value in model.state_dict().items()} == wanted
    assert (model.score_thresh, model.nms_thresh) == (theirs.score_thresh, theirs.nms_thresh)
    assert model.detections_per_img == theirs.detections_per_img == ROWS[kind]


@pytest.mark.slow
def test_torch_s_own_export_runs_and_finds_the_same(images, tmp_path):
    model = small("retinanet")
    path = tmp_path / "plain.onnx"
    FAMILY.plain(model, images[:1], path)
    assert type(model.transform).__name__ == "GeneralizedRCNNTransform"  # given back
    session = onnxruntime.InferenceSession(path)
    labels, boxes, scores = session.run(["labels", "boxes", "scores"], {"images": images[:1].numpy()})
    with torch.no_grad():
        expected = FAMILY.reference(model, images[:1], raw=False).outputs
    count = len(scores)
    assert count == int((expected["scores"] > 0).sum())
    np.testing.assert_allclose(scores, expected["scores"][0, :count], atol=SCORE)
    np.testing.assert_allclose(boxes, expected["boxes_xyxy"][0, :count], atol=BOX_PX)
    np.testing.assert_array_equal(labels, expected["labels"][0, :count])
