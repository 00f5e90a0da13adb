"""The graph form of a YOLO computes what ultralytics does, and exports into a graph that keeps all rules."""

import collections

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from yolo_models import SIDE, loaded, pictures, yolo

from fine_edge.errors import ConfigError
from fine_edge.export.trace import trace
from fine_edge.graph.checks import check
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.parts import part_of
from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import GraphForm
from fine_edge.zoo.yolo.graph import YoloBoxDecoder
from fine_edge.zoo.yolo.library import tal
from fine_edge.zoo.yolo.postprocess import CONFIDENCE, BestPairs, one_to_one

pytestmark = [pytest.mark.host, pytest.mark.slow]
DETECTORS = ("yolov5s", "yolov6s", "yolov8s", "yolov10s", "yolov12s")
NAMES = tuple(f"{name}{fine}" for name in DETECTORS for fine in ("", "_fine"))
BOX_PX, SCORE = 0.02, 2e-4


def form(**options):
    return GraphForm(height=SIDE, width=SIDE, **options)


def run(name, images, **options):
    """Outputs of the graph form and of ultralytics itself, by name."""
    model, shape = loaded(name).model, form(batch=len(images), **options)
    with torch.no_grad():
        outputs = yolo.lowered(model, shape)(images)
        reference = yolo.reference(model, images, raw=shape.raw).outputs
    specs = yolo.outputs(model, shape)
    for spec, output in zip(specs, outputs, strict=True):
        assert (tuple(output.shape), str(output.dtype)) == (spec.shape, f"torch.{spec.dtype}")
    return dict(zip([spec.name for spec in specs], outputs, strict=True)), reference


def assert_same_detections(found, wanted):
    """Rows by what they say, not by their place: rounding swaps rows of nearly equal scores."""
    for image in range(len(wanted["scores"])):
        a, b = ({key: np.asarray(value[image]) for key, value in rows.items()} for rows in (found, wanted))
        np.testing.assert_allclose(a["scores"], b["scores"], atol=SCORE)
        present = b["scores"] > b["scores"].min() + 2 * SCORE  # the last rows may be others that score the same
        assert present.sum() > 200
        far = np.abs(a["boxes_xyxy"][None] - b["boxes_xyxy"][present][:, None]).max(-1) > BOX_PX
        other = (a["labels"][None] != b["labels"][present][:, None]) | far
        other |= np.abs(a["scores"][None] - b["scores"][present][:, None]) > SCORE
        assert not other.all(1).any()


@pytest.mark.parametrize("name", NAMES)
def test_dense_outputs_are_ultralytics_own(name):
    found, wanted = run(name, pictures(), raw=True)
    if name.startswith("yolov10s"):  # rows of detections already
        rows = [
            dict(zip(("boxes_xyxy", "scores", "labels"), torch.split(x["predictions"], [4, 1, 1], 2), strict=True))
            for x in (found, wanted)
        ]
        assert_same_detections(
            *({key: value if key == "boxes_xyxy" else value[..., 0] for key, value in x.items()} for x in rows)
        )
    else:
        assert found["predictions"].shape == (2, 84, 525)
        torch.testing.assert_close(found["predictions"][:, :4], wanted["predictions"][:, :4], rtol=0, atol=BOX_PX)
        torch.testing.assert_close(found["predictions"][:, 4:], wanted["predictions"][:, 4:], rtol=0, atol=SCORE)


@pytest.mark.parametrize("name", ["yolov6s_fine", "yolov8s", "yolov10s_fine"])
@pytest.mark.parametrize("batch", [1, 2])
def test_detections_are_ultralytics_own(name, batch):
    found, wanted = run(name, pictures()[:batch])
    assert_same_detections(found, wanted)


def test_a_wide_input_has_its_anchors_where_they_belong():
    images = torch.nn.functional.pad(pictures(), (32, 64, 0, 0))
    model = loaded("yolov8s").model
    shape = GraphForm(2, SIDE, SIDE + 96, raw=True)
    with torch.no_grad():
        (found,) = yolo.lowered(model, shape)(images)
        wanted = yolo.reference(model, images, raw=True).outputs["predictions"]
    torch.testing.assert_close(found[:, :4], wanted[:, :4], rtol=0, atol=BOX_PX)


def test_an_image_without_anything_has_no_rows():
    """Every row is absent where no score exceeds the lowest one."""
    model, images = loaded("yolov8s").model, pictures()[:1]
    with torch.no_grad():
        graph = yolo.lowered(model, form())
        for level in graph.detector.decoder.cls:
            level[-1].bias.fill_(-40.0)
        labels, boxes, scores = graph(images)
    assert (int(labels.abs().sum()), float(boxes.abs().sum()), float(scores.sum())) == (0, 0.0, 0.0)
    # And with a single one, that one.
    with torch.no_grad():
        graph.detector.decoder.cls[2][-1].weight[7] *= 0
        graph.detector.decoder.cls[2][-1].bias[7] = 3.0
        labels, boxes, scores = graph(images)
    assert set(labels[scores > 0].tolist()) == {7}
    assert 1 <= int((scores > 0).sum()) <= 25


@settings(max_examples=30)
@given(
    batch=st.integers(1, 3),
    classes=st.integers(1, 6),
    anchors=st.integers(1, 40),
    count=st.integers(1, 50),
    seed=st.integers(0, 99),
)
def test_best_pairs_are_those_of_all_pairs(batch, classes, anchors, count, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randperm(batch * classes * anchors, generator=generator).float().reshape(batch, classes, anchors)
    boxes = torch.rand(batch, 4, anchors, generator=generator)
    chosen, best, labels = BestPairs(count)(boxes, logits)
    rows = min(count, classes * min(count, anchors))
    assert (chosen.shape, best.shape, labels.dtype) == ((batch, rows, 4), (batch, rows), torch.int64)
    for image in range(batch):
        value, index = logits[image].flatten().sort(descending=True)
        assert torch.equal(best[image], value[:rows])
        assert torch.equal(labels[image], index[:rows] // anchors)
        assert torch.equal(chosen[image], boxes[image].T[index[:rows] % anchors])


@settings(max_examples=20)
@given(
    corners=st.booleans(),
    bins=st.sampled_from([1, 4, 16]),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 99),
)
def test_boxes_are_decoded_as_ultralytics_does(corners, bins, sizes, seed):
    rows, columns = sizes
    head = collections.namedtuple("Head", "reg_max stride")(bins, torch.tensor([8.0, 16.0]))
    logits = 3 * torch.randn(2, 4 * bins, 5 * rows * columns, generator=torch.Generator().manual_seed(seed))
    levels = [(2 * rows, 2 * columns), (rows, columns)]
    found = YoloBoxDecoder(head, levels, corners=corners)(logits)
    anchors, strides = tal.make_anchors([torch.zeros(1, 1, *level) for level in levels], head.stride)
    mean = (logits.reshape(2, 4, bins, -1).softmax(2) * torch.arange(bins).view(-1, 1)).sum(2)
    wanted = tal.dist2bbox(mean, anchors.T[None], xywh=not corners, dim=1) * strides.T
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


def export(name, shape):
    model = loaded(name).model
    names = [spec.name for spec in yolo.outputs(model, shape)]
    with torch.no_grad():
        lowered = yolo.lowered(model, shape)
    return trace(lowered, torch.zeros(shape.batch, 3, shape.height, shape.width), ["images"], names), names


def in_onnxruntime(graph, names, images):
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))


@pytest.fixture(scope="module", params=["yolov8s_fine", "yolov10s_fine"])
def exported(request):
    """One of each head. The layers of v5, v6 and v12 are held to ultralytics in torch above."""
    return request.param, *export(request.param, form())


def test_onnx_runtime_finds_what_ultralytics_finds(exported):
    name, graph, names = exported
    with torch.no_grad():
        wanted = yolo.reference(loaded(name).model, pictures()[:1], raw=False).outputs
    assert_same_detections(in_onnxruntime(graph, names, pictures()[:1]), wanted)


def test_the_graph_keeps_all_rules_in_both_precisions(exported):
    _, graph, _ = exported
    half = to_fp16(graph, keep_fp32=kept_by_exporter(graph))
    assert {finding.rule for finding in check(graph) if finding.severity != "info"} <= {"FE16"}  # FP32 attention
    assert [finding for finding in check(half) if finding.severity != "info"] == []


def test_half_precision_finds_nearly_the_same(exported):
    _, graph, names = exported
    half = to_fp16(graph, keep_fp32=kept_by_exporter(graph))
    found, wanted = (in_onnxruntime(g, names, pictures()[:1]) for g in (half, graph))
    np.testing.assert_allclose(found["scores"], wanted["scores"], atol=0.05)
    assert found["boxes_xyxy"].dtype == np.float32


def test_nodes_say_which_part_they_are_of(exported):
    name, graph, _ = exported
    parts = collections.Counter(part_of(node.name).module for node in graph.graph.node)
    wanted = {"backbone", "encoder", "decoder", "postprocess"} | ({"fine"} if name.endswith("_fine") else set())
    assert wanted <= set(parts) <= wanted | {"other"}
    assert parts["other"] <= 2


def test_the_standard_operator_of_suppression_finds_the_same_in_a_batch():
    graph, names = export("yolov8s", form(nms="onnx", batch=2))
    assert "NonMaxSuppression" in {node.op_type for node in graph.graph.node}
    with torch.no_grad():
        wanted = yolo.reference(loaded("yolov8s").model, pictures(), raw=False).outputs
    assert_same_detections(in_onnxruntime(graph, names, pictures()), wanted)


def test_sizes_that_do_not_fit_are_refused():
    model = loaded("yolov8s").model
    with pytest.raises(ConfigError, match="no multiple of 32 -> choose sides that are"):
        yolo.outputs(model, GraphForm(height=150))
    with pytest.raises(ConfigError, match="has 84 anchors for 300 detections -> use at least 128x128"):
        yolo.outputs(model, GraphForm(height=64, width=64))


def test_only_yolov10_needs_no_nms():
    assert [one_to_one(loaded(name).model) for name in DETECTORS] == [False, False, False, True, False]
    assert find("yolov10s").detector.preprocessing.align == "center"
    assert CONFIDENCE == 0.001
