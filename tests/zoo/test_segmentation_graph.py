"""The graphs of Semantic and Panoptic FPN: equal to the models, in torch and in ONNX Runtime, by the rules, in FP16.

Semantic FPN on a ResNet-18, which costs half; test_segmentation.py holds what the models are made of.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.roi_heads import paste_masks_in_image

from fine_edge.detections import from_outputs
from fine_edge.errors import ConfigError
from fine_edge.export.trace import trace
from fine_edge.graph.checks import check
from fine_edge.graph.convert import EXPORTER_SCOPES, to_fp16
from fine_edge.graph.parts import part_of
from fine_edge.segments import merge, paste_masks
from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import GraphForm, family_of
from fine_edge.zoo.labels import COCO_PANOPTIC_LABELS, THINGS
from fine_edge.zoo.load import load
from fine_edge.zoo.random_weights import photographs
from fine_edge.zoo.segmentation import semantic as semantic_model
from fine_edge.zoo.segmentation.family import FpnSegmenter

pytestmark = [pytest.mark.host, pytest.mark.slow]

FAMILY = FpnSegmenter()
SEMANTIC, PANOPTIC = "semantic_fpn_r50_fine", "panoptic_fpn_r50_fine"
# Two of nearly equal classes may change places by rounding.
TIES = 1e-3


class Whole:
    """One detector from model to graph, with what its own library finds on photographs."""

    def __init__(self, name, form):
        entry = find(name)
        self.form = form
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(semantic_model, "resnet_fpn_backbone", _on_resnet_18)
            self.model = load(entry).model
        if hasattr(self.model, "rpn"):
            _look_at_less(self.model)
        self.images = photographs(form.height, form.width, entry.detector.preprocessing, form.batch)
        with torch.no_grad():
            reference = FAMILY.reference(self.model, self.images, raw=form.raw).outputs
            self.graph = family_of("segmentation").lowered(self.model, form)
            found = self.graph(self.images)
        self.specs = FAMILY.outputs(self.model, form)
        self.expected = {name: tensor.numpy() for name, tensor in reference.items()}
        self.found = {spec.name: tensor.numpy() for spec, tensor in zip(self.specs, found, strict=True)}

    def trace(self):
        return trace(self.graph, self.images, ["images"], [spec.name for spec in self.specs])

    def run(self, model):
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        outputs = session.run(None, {"images": self.images.numpy()})
        return {spec.name: output for spec, output in zip(self.specs, outputs, strict=True)}


def _on_resnet_18(backbone_name, **options):
    assert backbone_name == "resnet50"
    return resnet_fpn_backbone(backbone_name="resnet18", **options)


def _look_at_less(model):
    """Fewer proposals and detections, each of which goes through heads that cost more than the rest of the model."""
    model.rpn._pre_nms_top_n["testing"], model.rpn._post_nms_top_n["testing"] = 300, 100
    model.roi_heads.detections_per_img = 30


@pytest.fixture(scope="module")
def semantic():
    return Whole(SEMANTIC, GraphForm(2, 64, 128))


@pytest.fixture(scope="module")
def panoptic():
    return Whole(PANOPTIC, GraphForm(1, 96, 128))


def errors(model):
    return [finding for finding in check(model) if finding.severity == "error"]


def in_fp16(model):
    kept = [node.name for node in model.graph.node if node.name.startswith(EXPORTER_SCOPES)]
    return to_fp16(model, keep_fp32=kept)


def check_specs(whole, outputs):
    for spec in whole.specs:
        assert outputs[spec.name].shape == spec.shape
        assert outputs[spec.name].dtype == spec.dtype


def test_the_semantic_graph_gives_the_models_classes(semantic):
    check_specs(semantic, semantic.found)
    assert (semantic.found["classes"] != semantic.expected["classes"]).mean() < TIES


def test_the_raw_form_gives_the_logits(semantic):
    form = GraphForm(2, 64, 128, raw=True)
    (spec,) = FAMILY.outputs(semantic.model, form)
    with torch.no_grad():
        (logits,) = family_of("segmentation").lowered(semantic.model, form)(semantic.images)
        expected = FAMILY.reference(semantic.model, semantic.images, raw=True).outputs["logits"]
    assert spec.shape == logits.shape == (2, 19, 16, 32)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-3)


def test_the_semantic_export_runs_in_both_precisions(semantic):
    model = semantic.trace()
    assert errors(model) == []
    fp32 = semantic.run(model)
    check_specs(semantic, fp32)
    assert (fp32["classes"] != semantic.expected["classes"]).mean() < TIES
    half = in_fp16(model)
    assert check(half) == []
    assert (semantic.run(half)["classes"] != semantic.expected["classes"]).mean() < 0.02
    parts = {part_of(node.name).module for node in model.graph.node}
    assert parts == {"backbone", "encoder", "fine", "decoder", "postprocess"}
    operators = {node.op_type for node in model.graph.node if node.name.startswith("/postprocess/")}
    assert operators == {"ArgMax"}  # the large map is FP16


def detections(outputs):
    return from_outputs({name: outputs[name] for name in ("labels", "boxes_xyxy", "scores")})


def check_panoptic(whole, outputs):
    expected, found = detections(whole.expected), detections(outputs)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    assert (outputs["stuff"] != whole.expected["stuff"]).mean() < TIES


def test_the_panoptic_graph_gives_instances_and_stuff(panoptic):
    check_specs(panoptic, panoptic.found)
    check_panoptic(panoptic, panoptic.found)
    stuff = panoptic.found["stuff"]
    assert stuff.min() >= 81
    assert stuff.max() <= 134
    assert len(np.unique(stuff)) > 20


def test_the_panoptic_export_runs_in_both_precisions(panoptic):
    model = panoptic.trace()
    assert errors(model) == []
    fp32 = panoptic.run(model)
    check_specs(panoptic, fp32)
    check_panoptic(panoptic, fp32)
    half = in_fp16(model)
    assert errors(half) == []
    assert (panoptic.run(half)["stuff"] != panoptic.expected["stuff"]).mean() < 0.03
    parts = {part_of(node.name).module for node in model.graph.node}
    assert parts >= {"backbone", "encoder", "fine", "decoder", "postprocess"}


def test_a_panoptic_model_has_no_raw_form(panoptic):
    for ask in (FAMILY.outputs, FAMILY.graph):
        with pytest.raises(ConfigError, match="no raw form"):
            ask(panoptic.model, GraphForm(raw=True))
    with pytest.raises(ConfigError, match="no raw form"):
        FAMILY.reference(panoptic.model, panoptic.images, raw=True)


def test_its_outputs_merge_into_segments_that_do_not_overlap(panoptic):
    outputs = panoptic.found
    found = detections(outputs)
    masks = outputs["masks"][0][: len(found)]
    merged = merge(found, masks, outputs["stuff"][0], COCO_PANOPTIC_LABELS.index(THINGS))
    things = [segment for segment in merged.segments if segment.score is not None]
    assert things
    assert all(1 <= segment.label <= 80 for segment in things)
    assert sum(segment.area_px for segment in merged.segments) == (merged.numbers > 0).sum()


def test_masks_are_pasted_as_torchvision_pastes_them():
    random = np.random.default_rng(0)
    masks = random.random((40, 28, 28), dtype=np.float32)
    corners = random.uniform(-30, 250, (40, 2))
    boxes = np.concatenate([corners, corners + random.uniform(0, 1, (40, 2)) ** 2 * 200], axis=1).astype(np.float32)
    boxes = boxes.clip(0, np.array([210, 150, 210, 150], np.float32))
    theirs = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), (150, 210))[:, 0].numpy()
    differ = paste_masks(masks, boxes, 150, 210) != (theirs > 0.5)
    assert not (differ & (np.abs(theirs - 0.5) > 1e-5)).any()
    assert (theirs > 0.5).any(axis=(1, 2)).sum() > 20


@pytest.mark.parametrize("name", ["semantic", "panoptic"])
def test_a_plain_export_gives_the_same(name, request, tmp_path):
    whole = request.getfixturevalue(name)
    FAMILY.plain(whole.model, whole.images, tmp_path / "plain.onnx")
    session = ort.InferenceSession(tmp_path / "plain.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == [spec.name for spec in whole.specs]
    outputs = session.run(None, {"images": whole.images.numpy()})
    assert (outputs[-1] != whole.expected[whole.specs[-1].name]).mean() < TIES
