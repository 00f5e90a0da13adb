"""YOLOs as the zoo builds, fills, counts and plainly exports them."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from yolo_models import SIDE, built, loaded, pictures, yolo

from fine_edge.errors import ConfigError
from fine_edge.zoo.catalog import find
from fine_edge.zoo.labels import COCO_LABELS
from fine_edge.zoo.load import load
from fine_edge.zoo.yolo.library import VARIANTS, DetectionModel, structure

pytestmark = pytest.mark.host


@pytest.mark.parametrize(
    ("name", "params_m", "flops_g"),
    [
        ("yolov8s", 11.157, 28.603),
        ("yolov8s_fine", 12.309, 29.606),
        ("yolov10s", 8.097, 24.779),
        ("yolov10s_fine", 8.921, 25.521),
        ("yolov12s", 9.142, 19.493),
        ("yolov12s_fine", 10.328, 20.448),
    ],
)
def test_counts_at_640(name, params_m, flops_g):
    cost = yolo.count(built(name), 640, 640)
    assert (round(cost.params_m, 3), round(cost.flops_g, 3)) == (params_m, flops_g)


@pytest.mark.parametrize(
    ("name", "flops_g"), [("yolov5s", 37.493), ("yolov5s_fine", 38.324), ("yolov6s", 69.342), ("yolov8s", 44.692)]
)
def test_counts_at_800(name, flops_g):
    model = built(name)
    keys = set(model.state_dict())
    assert round(yolo.count(model, 800, 800).flops_g, 3) == flops_g
    assert set(model.state_dict()) == keys  # counted on a copy


@pytest.mark.parametrize("variant", VARIANTS)
def test_structures_are_those_that_ultralytics_ships_but_for_the_turbo_groups(variant):
    model = DetectionModel(structure(variant), verbose=False)
    groups = {layer.i: layer.conv.groups for layer in model.model if hasattr(layer, "conv")}
    grouped = {index: count for index, count in groups.items() if count > 1}
    assert grouped == ({1: 2, 3: 4} if variant == "yolov12s" else {})


def test_an_unknown_variant_is_refused():
    with pytest.raises(ConfigError, match="no variant 'yolov9s' here -> known: yolov5s"):
        structure("yolov9s")


def test_a_built_model_says_its_classes():
    assert yolo.labels(find("yolov8s")) == COCO_LABELS
    assert tuple(built("yolov8s").names.values()) == COCO_LABELS
    assert built("yolov8s", 3).names == {0: "class_0", 1: "class_1", 2: "class_2"}


@pytest.mark.parametrize("name", ["yolov8s", "yolov10s"])
def test_random_weights_find_a_few_things_of_many_sizes(name):
    with torch.no_grad():
        found = yolo.reference(loaded(name).model, pictures(320), raw=False).outputs
    confident = (found["scores"] > 0.25).sum().item()
    assert 5 <= confident <= 150
    sides = (found["boxes_xyxy"][..., 2:] - found["boxes_xyxy"][..., :2]).flatten()
    assert float(sides.quantile(0.95) / sides.quantile(0.05)) > 2.5


def test_random_weights_are_the_same_for_a_seed_and_fill_both_heads():
    a, b = loaded("yolov10s").model.state_dict(), load(find("yolov10s")).model.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    for one, many in (("one2one_cv2", "cv2"), ("one2one_cv3", "cv3")):
        assert not torch.equal(a[f"model.23.{one}.0.2.weight"], a[f"model.23.{many}.0.2.weight"])
    assert torch.equal(a["model.23.dfl.conv.weight"].flatten(), torch.arange(16.0))


@pytest.mark.parametrize(("name", "shape"), [("yolov8s_fine", (1, 84, 525)), ("yolov10s", (1, 300, 6))])
def test_the_plain_export_is_ultralytics_own(name, shape, tmp_path):
    model, images = loaded(name).model, pictures()[:1]
    keys, threads = set(model.state_dict()), torch.get_num_threads()
    yolo.plain(model, torch.zeros(1, 3, SIDE, SIDE), tmp_path / "plain.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["plain.onnx"]
    assert (set(model.state_dict()), torch.get_num_threads()) == (keys, threads)
    graph = onnx.load(tmp_path / "plain.onnx")
    assert {entry.key: entry.value for entry in graph.metadata_props}["task"] == "detect"
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    assert found.shape == shape
    with torch.no_grad():
        wanted = yolo.reference(model, images, raw=True).outputs["predictions"].numpy()
    if name == "yolov8s_fine":
        np.testing.assert_allclose(found, wanted, atol=0.02)
    else:
        np.testing.assert_allclose(found[..., 4], wanted[..., 4], atol=2e-4)
