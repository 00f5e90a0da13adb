"""Two-stage detectors in fixed shapes against torchvision's own lists, on detectors small enough for a test."""

from __future__ import annotations

import copy
from collections import OrderedDict

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from fine_edge.engine.inspect import inspect
from fine_edge.errors import ConfigError
from fine_edge.export.trace import trace
from fine_edge.fusion import fapn
from fine_edge.fusion.methods import METHODS, MethodConfig
from fine_edge.graph.checks import check
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.lowering import nms
from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.random_weights import photographs
from fine_edge.zoo.torchvision import two_stage
from fine_edge.zoo.torchvision.fpn import inject

pytestmark = pytest.mark.host

CHANNELS, LABELS = 16, 7


class Body(nn.Module):
    """Maps of strides 4 to 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1)
        self.stages = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> OrderedDict[str, torch.Tensor]:
        x, maps = torch.relu(self.stem(x)), OrderedDict()
        for i, stage in enumerate(self.stages):
            x = maps[str(i)] = torch.relu(stage(x))
        return maps


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.out_channels = Body(), CHANNELS
        self.fpn = FeaturePyramidNetwork([CHANNELS] * 4, CHANNELS, extra_blocks=LastLevelMaxPool())

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.fpn(self.body(x))


def tiny(kind: str, method: str | None = None, **options) -> nn.Module:
    """A detector of torchvision's parts with few channels and trained-like weights."""
    torch.manual_seed(0)
    heads = {
        "rpn_anchor_generator": AnchorGenerator(((16,), (32,), (64,), (128,), (256,)), ((0.5, 1.0, 2.0),) * 5),
        "box_head": TwoMLPHead(CHANNELS * 49, 32),
        "box_predictor": FastRCNNPredictor(32, LABELS),
        **options,
    }
    if kind == "maskrcnn":
        heads |= {
            "mask_head": MaskRCNNHeads(CHANNELS, (16, 16), 1),
            "mask_predictor": MaskRCNNPredictor(16, 16, LABELS),
        }
        model = MaskRCNN(Backbone(), **heads)
    else:
        model = FasterRCNN(Backbone(), **heads)
    if method:
        inject(model, MethodConfig(method, identity=False))
    with torch.no_grad():
        two_stage.randomise(model)
        model.roi_heads.box_predictor.cls_score.bias[0] -= 5.0  # six classes share what ninety have in COCO
    return model.eval()


@pytest.fixture(scope="module")
def faster():
    return tiny("fasterrcnn")


@pytest.fixture(scope="module")
def mask():
    return tiny("maskrcnn")


def images(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return photographs(height, width, find("fasterrcnn_r50").detector.preprocessing, batch)


@torch.no_grad()
def both(model: nn.Module, x: torch.Tensor):
    """Torchvision's detections and the graph's, by name; in double, so that no near-tie is decided by rounding."""
    model, x = copy.deepcopy(model).double(), x.double()
    form = GraphForm(*x.shape[:1], *x.shape[2:])
    expected = two_stage.reference(model, x).outputs
    names = [spec.name for spec in two_stage.outputs(model, form)]
    module = two_stage.graph(copy.deepcopy(model), form).double()
    with pytest.MonkeyPatch.context() as patch:
        # Boxes of so small a random detector hang on each other in longer chains than those of a trained one.
        patch.setattr(nms, "ROUNDS", 40)
        found = dict(zip(names, module(x), strict=True))
    assert list(expected) == names
    return expected, found


def assert_equal(expected: dict, found: dict) -> None:
    for name, tensor in expected.items():
        other = torch.as_tensor(found[name])
        assert other.is_floating_point() == tensor.is_floating_point(), name
        torch.testing.assert_close(other.to(tensor), tensor, atol=5e-3 if name == "boxes_xyxy" else 2e-4, rtol=0)


@pytest.mark.parametrize(("height", "width", "batch"), [(128, 160, 1), (131, 97, 2), (64, 320, 1)])
def test_finds_what_torchvision_finds(faster, height, width, batch):
    expected, found = both(faster, images(height, width, batch))
    assert (expected["scores"] > 0.5).sum() >= batch
    assert_equal(expected, found)


@pytest.mark.parametrize("batch", [1, 2])
def test_masks(mask, batch):
    expected, found = both(mask, images(128, 160, batch))
    assert found["masks"].shape == (batch, 100, 28, 28)
    assert expected["masks"].std() > 0.1
    assert_equal(expected, found)


@pytest.mark.parametrize("wanted", [0, 1, 2, 37])
def test_any_number_of_detections(mask, wanted):
    model, x = copy.deepcopy(mask), images(128, 160)
    scores = both(model, x)[0]["scores"][0]
    # Halfway between the last score that is wanted and the first one that is not.
    model.roi_heads.score_thresh = float(scores[wanted - 1] + scores[wanted]) / 2 if wanted else 1.0
    expected, found = both(model, x)
    assert (found["scores"] > 0).sum() == wanted
    assert_equal(expected, found)
    for name in ("labels", "boxes_xyxy", "masks"):
        assert not found[name][0, wanted:].any(), f"absent rows of {name} are zero"


def test_one_image_finds_something_and_the_other_nothing(faster):
    model, x = copy.deepcopy(faster), images(128, 160, 2)
    first, second = both(model, x)[0]["scores"][:, 0].tolist()
    model.roi_heads.score_thresh = (first + second) / 2
    expected, found = both(model, x)
    assert sorted((found["scores"] > 0).any(1).tolist()) == [False, True]
    assert_equal(expected, found)


@pytest.mark.parametrize("options", [{}, {"rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 40}])
def test_proposals_are_torchvisions(options):
    """Boxes, scores and their order: all that the second stage hangs on."""
    model, x = tiny("fasterrcnn", **options).double(), images(131, 160).double()
    form = GraphForm(1, 131, 160)
    with torch.no_grad():
        features = model.backbone(x)
        (expected,), _ = model.rpn(ImageList(x, [(131, 160)]), features)
        detector = two_stage.graph(copy.deepcopy(model), form).double().detector
        boxes, scores, *_ = detector.proposals(detector.decoder.rpn(list(features.values())))
    assert boxes.shape[1] == options.get("rpn_post_nms_top_n_test", 1000)
    count = len(expected)
    assert 20 < count <= boxes.shape[1]
    assert (scores[0, :count] > 0).all()
    assert not scores[0, count:].any()
    torch.testing.assert_close(boxes[0, :count], expected, atol=1e-3, rtol=0)


def test_proposals_without_area_are_none(faster):
    """Boxes that end up outside of the image are no proposals, as in torchvision."""
    model, x = copy.deepcopy(faster), images(96, 96)
    with torch.no_grad():
        model.rpn.head.bbox_pred.bias[0::4] -= 3.0  # far to the left
    expected, found = both(model, x)
    assert_equal(expected, found)


def test_more_candidates_than_rows(faster, monkeypatch):
    """Where fewer pairs go into suppression than pass the threshold, what comes out of the best of them is the same."""
    model, x = copy.deepcopy(faster), images(128, 160)
    model.roi_heads.score_thresh = 0.001
    expected, found = both(model, x)
    monkeypatch.setattr(two_stage, "CANDIDATES", 120)
    _, fewer = both(model, x)
    assert_equal(expected, found)
    kept = int((fewer["scores"] > 0).sum())
    assert 10 < kept < 100
    assert_equal({name: t[:, :kept] for name, t in expected.items()}, {name: t[:, :kept] for name, t in fewer.items()})


@pytest.mark.parametrize("method", sorted(METHODS))
def test_any_method_in_the_pyramid(method, monkeypatch):
    monkeypatch.setattr(fapn, "NORM_GROUPS", 8)  # of the few channels here
    expected, found = both(tiny("fasterrcnn", method), images(96, 128))
    assert_equal(expected, found)


@pytest.fixture(scope="module")
def exported():
    """Whole way of a small Mask R-CNN: input, torchvision's outputs, FP32 and FP16 graph."""
    mask, x = tiny("maskrcnn", rpn_pre_nms_top_n_test=300, rpn_post_nms_top_n_test=100), images(96, 128)
    form = GraphForm(1, 96, 128)
    with torch.no_grad():
        expected = {name: t.numpy() for name, t in two_stage.reference(mask, x).outputs.items()}
    model = trace(two_stage.graph(copy.deepcopy(mask), form), x, ["images"], list(expected))
    return x.numpy(), expected, model, to_fp16(model, keep_fp32=kept_by_exporter(model))


def run(model, x) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, {"images": x}), strict=True))


@pytest.mark.slow
def test_onnx_equals_torchvision(exported):
    x, expected, model, _ = exported
    assert_equal({name: torch.from_numpy(a) for name, a in expected.items()}, run(model, x))


@pytest.mark.slow
def test_onnx_has_what_every_compiler_has(exported):
    _, _, model, half = exported
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {"NonZero", "NonMaxSuppression", "RoiAlign", "ScatterND", "GatherND", "If", "Loop"}
    assert [str(finding) for graph in (model, half) for finding in check(graph)] == []


@pytest.mark.slow
def test_scopes_tell_the_parts(exported):
    _, _, model, _ = exported
    scopes = {"/".join(node.name.split("/")[1:3]) for node in model.graph.node}
    parts = ("backbone", "encoder", "decoder", "proposals", "boxes")
    assert {f"detector/{part}" for part in parts} | {"postprocess/nms"} <= scopes
    assert {scope.split("/")[0] for scope in scopes} == {"detector", "postprocess"}


@pytest.mark.slow
def test_half_precision_finds_the_same_objects(exported):
    x, expected, _, half = exported
    found = run(half, x)
    sure = expected["scores"][0] > 0.3
    assert sure.sum() >= 3
    for label, box in zip(expected["labels"][0][sure], expected["boxes_xyxy"][0][sure], strict=True):
        candidates = found["boxes_xyxy"][0][(found["labels"][0] == label) & (found["scores"][0] > 0.2)]
        assert len(candidates), f"label {label} at {box} is gone"
        assert np.abs(candidates - box).max(1).min() < 2.0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fp32", "fp16"])
def test_compiles_end_to_end(exported, tmp_path, how):
    """From images to detections, which neither RoiAlign nor NonMaxSuppression would without a GPU."""
    _, _, model, half = exported
    path = tmp_path / "model.onnx"
    path.write_bytes((half if how == "fp16" else model).SerializeToString())
    assert len(inspect(path).compiled.kernels) > 20


def test_no_raw_form(faster):
    form = GraphForm(1, 96, 96, raw=True)
    with pytest.raises(ConfigError, match="no raw form"):
        two_stage.outputs(faster, form)
    with pytest.raises(ConfigError, match="no raw form"):
        two_stage.graph(faster, form)


def test_names_are_torchvisions():
    """Published weights load: the keys are those of torchvision's own builders."""
    model = two_stage.build("maskrcnn", 91)
    keys = model.state_dict()
    assert keys["roi_heads.box_predictor.cls_score.weight"].shape == (91, 1024)
    assert "rpn.head.conv.0.0.weight" in keys
    assert [spec.name for spec in two_stage.outputs(model, GraphForm())] == ["labels", "boxes_xyxy", "scores", "masks"]
    assert not two_stage.build("fasterrcnn", 5).roi_heads.has_mask()
