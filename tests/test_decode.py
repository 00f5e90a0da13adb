"""What an artifact of each task finds in a picture, in pixels of the picture, and how it is drawn."""

from __future__ import annotations

import numpy as np
import pytest

from fine_edge.contract import Artifact, Contract, TensorSpec
from fine_edge.decode import find, rows, summary
from fine_edge.detections import Detections, from_outputs
from fine_edge.drawing import draw
from fine_edge.errors import ArtifactError
from fine_edge.images import NamedImage
from fine_edge.preprocess import Preprocessing
from fine_edge.segments import Panoptic

SIDE = 64
LABELS = ("__background__", "cat", "dog", "grass", "sky", "things")
# A picture twice as wide as the network's input, as high.
PICTURE = NamedImage("scene.png", np.full((SIDE, 2 * SIDE, 3), 100, np.uint8))
FOUND = {
    "labels": np.array([[1, 2, 0]]),
    "boxes_xyxy": np.array([[[0, 0, 32, 64], [32, 32, 64, 64], [0, 0, 0, 0]]], np.float32),
    "scores": np.array([[0.9, 0.6, 0]], np.float32),
}
MASKS = np.zeros((1, 3, 28, 28), np.float32)
MASKS[0, 0, :14] = 1  # the upper half of the first box
MASKS[0, 1, 14:] = 1  # the lower half of the second


class Answers:
    """A runner that always gives the same."""

    name = "fake"

    def __init__(self, **outputs):
        self.outputs = outputs

    def run(self, inputs):
        assert inputs["images"].shape == (1, 3, SIDE, SIDE)
        return self.outputs

    def close(self):
        pass


def contract(task, *, postprocessed=True):
    return Contract(
        model="tiny",
        artifacts=(Artifact("tiny.onnx", "fp32", "0"),),
        inputs=(TensorSpec("images", "float32", (1, 3, SIDE, SIDE), "pictures"),),
        outputs=(),
        preprocessing=Preprocessing(),
        postprocessed=postprocessed,
        labels=LABELS,
        opset=18,
        cost={},
        golden={},
        made_by={"weights": {"source": "random", "seed": 0}},
        task=task,
    )


def of(task, **outputs):
    return find(PICTURE, contract(task), Answers(**outputs), 0.5)


def test_rows_without_a_score_are_no_detections():
    found = from_outputs(FOUND)
    assert len(found) == 2
    assert found.masks is None
    assert len(from_outputs({**FOUND, "scores": FOUND["scores"] * np.nan})) == 3, "NaN must be found, not dropped"


def test_masks_follow_their_detections():
    shuffled = {name: array[:, [2, 1, 0]] for name, array in {**FOUND, "masks": MASKS}.items()}
    found = from_outputs(shuffled)
    assert found.labels.tolist() == [1, 2]
    np.testing.assert_array_equal(found.masks, MASKS[0, :2])
    assert found.above(0.7).masks.shape == (1, 28, 28)


def test_instances_come_with_masks_and_boxes_of_the_picture():
    found = of("instance", **FOUND, masks=MASKS)
    assert isinstance(found, Detections)
    assert found.boxes_xyxy_px.tolist() == [[0, 0, 64, 64], [64, 32, 128, 64]]
    assert summary(found, 0.5) == "2 detections at 0.5 or more"
    pixels = np.asarray(draw(PICTURE.pixels, found, LABELS, "x"))[:SIDE]
    changed = (pixels != 100).any(axis=2)
    assert changed[24, 32], "inside the mask"
    assert not changed[50, 32], "in the box, but outside of the mask"
    assert changed[50, 110], "inside the second"


def test_names_of_any_kind_are_drawn():
    names = ("a\nb", "\x1b[31m", "\udcff", "猫\0", "", "$\\frac$")
    classes = np.full((1, SIDE, SIDE), 4)
    classes[0, 48:] = 2
    for found in (of("instance", **FOUND, masks=MASKS), of("semantic", classes=classes)):
        assert draw(PICTURE.pixels, found, names, "\udcff\x1b\n").size[0] == 2 * SIDE


def test_a_map_of_classes_is_cut_into_one_segment_a_class():
    classes = np.full((1, SIDE, SIDE), 4)
    classes[0, 48:] = 3
    found = of("semantic", classes=classes)
    assert isinstance(found, Panoptic)
    assert found.numbers.shape == PICTURE.pixels.shape[:2]
    listed = rows(found, "scene.png", LABELS)
    assert [(row["label"], row["share"], row["score"]) for row in listed] == [
        ("sky", 0.75, None),
        ("grass", 0.25, None),
    ]
    assert listed[0]["area_px"] == 48 * 2 * SIDE
    assert summary(found, 0.5) == "2 segments"
    picture = draw(PICTURE.pixels, found, LABELS, "made by a test")
    pixels = np.asarray(picture)
    assert (pixels[2, 2] != pixels[60, 2]).any(), "two classes have two colours"
    assert picture.size[1] > SIDE, "the caption stands below"


def test_things_lie_on_stuff():
    stuff = np.full((1, SIDE, SIDE), 4)
    found = of("panoptic", **FOUND, masks=MASKS, stuff=stuff)
    assert isinstance(found, Panoptic)
    listed = rows(found, "scene.png", LABELS)
    assert [row["label"] for row in listed] == ["cat", "dog", "sky"]
    assert listed[0]["score"] == pytest.approx(0.9)
    assert listed[2]["score"] is None
    assert sum(row["area_px"] for row in listed) == PICTURE.pixels[..., 0].size
    assert found.numbers[10, 10] == 1
    assert found.numbers[50, 100] == 2
    assert found.numbers[60, 10] == 3
    colours = np.asarray(draw(PICTURE.pixels, found, LABELS, "x"))
    assert len({tuple(colours[y, x]) for y, x in ((4, 4), (60, 120), (60, 4))}) == 3


@pytest.mark.parametrize(
    ("task", "missing"),
    [
        ("detection", "labels, boxes_xyxy, scores"),
        ("instance", "labels, boxes_xyxy, scores, masks"),
        ("semantic", "classes"),
        ("panoptic", "labels, boxes_xyxy, scores, masks, stuff"),
    ],
)
def test_an_artifact_that_gives_something_else_is_refused(task, missing):
    with pytest.raises(ArtifactError, match=f"the model gives no {missing}, so its outputs cannot be decoded"):
        of(task, predictions=np.zeros((1, 5, 7)))


def test_dense_outputs_say_how_to_get_others():
    with pytest.raises(ArtifactError, match="-> export it without --raw"):
        find(PICTURE, contract("detection", postprocessed=False), Answers(predictions=np.zeros((1, 5, 7))), 0.5)


def test_a_class_without_a_name_keeps_its_number():
    found = Detections(np.array([77]), np.zeros((1, 4), np.float32), np.array([0.9], np.float32))
    assert rows(found, "a", LABELS)[0]["label"] == "class 77"
