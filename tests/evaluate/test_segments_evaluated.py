"""Segmenters on made-up Cityscapes and COCO panoptic folders, through a runner that gives known maps."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_pipeline import Brightness, contract

from fine_edge.errors import DataError
from fine_edge.evaluate.evaluation import read_evaluation
from fine_edge.evaluate.segment_data import read_boxes, read_data
from fine_edge.evaluate.segments import evaluate_segments
from fine_edge.evaluate.tables import segment_table
from fine_edge.runners.opened import Opened
from fine_edge.zoo.labels import CITYSCAPES_LABELS

SIDE = 8


class Maps(Brightness):
    """Gives the same outputs for every picture."""

    def __init__(self, **outputs):
        super().__init__()
        self.outputs = outputs

    def run(self, _inputs):
        return self.outputs


def opened(runner, task, labels):
    return Opened(runner, replace(contract(task=task), labels=labels), "fp32", "sha", "sha")


@pytest.fixture
def cityscapes(tmp_path):
    """Two pictures: the left half road (7), the right half car (26), the last row unlabelled (0)."""
    truth = np.full((SIDE, SIDE), 7, np.uint8)
    truth[:, SIDE // 2 :] = 26
    truth[-1] = 0
    for name in ("bonn/bonn_1", "ulm/ulm_1"):
        for kind, suffix, pixels in (
            ("gtFine", "_gtFine_labelIds.png", truth),
            ("leftImg8bit", "_leftImg8bit.png", np.zeros((SIDE, SIDE, 3), np.uint8)),
        ):
            path = tmp_path / kind / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path


def test_cityscapes(cityscapes):
    data = read_data(cityscapes / "gtFine")
    assert list(data.images.values()) == ["bonn/bonn_1_leftImg8bit.png", "ulm/ulm_1_leftImg8bit.png"]
    classes = np.full((1, SIDE, SIDE), CITYSCAPES_LABELS.index("road"), np.int64)
    classes[:, :, 6:] = CITYSCAPES_LABELS.index("car")
    runner = Maps(classes=classes)
    evaluation = evaluate_segments(
        opened(runner, "semantic", CITYSCAPES_LABELS), data, cityscapes / "leftImg8bit", cityscapes / "out"
    )
    assert evaluation.figures.iou_by_category["road"] == pytest.approx(4 / 6)
    assert evaluation.figures.iou_by_category["car"] == pytest.approx(2 / 4)
    assert evaluation.figures.miou == pytest.approx((4 / 6 + 2 / 4) / 2)
    assert evaluation.figures.pixel_accuracy == pytest.approx(6 / 8)
    table = segment_table(evaluation)
    assert table.rows[0] == ["all", "58.3", "75.0"]
    (cityscapes / "e.json").write_text(json.dumps(evaluation.to_json()))
    assert read_evaluation(cityscapes / "e.json").figures == pytest.approx({"miou": 100 * (4 / 6 + 2 / 4) / 2})


def test_pictures_of_another_size_are_refused(cityscapes):
    Image.new("RGB", (9, 9)).save(cityscapes / "leftImg8bit" / "ulm" / "ulm_1_leftImg8bit.png")
    classes = np.zeros((1, SIDE, SIDE), np.int64)
    with pytest.raises(DataError, match=r"1 of 2 pictures are not .*: ulm/ulm_1_leftImg8bit.png is 9x9, not 8x8"):
        evaluate_segments(
            opened(Maps(classes=classes), "semantic", CITYSCAPES_LABELS),
            read_data(cityscapes / "gtFine"),
            cityscapes / "leftImg8bit",
            cityscapes / "out",
        )


LABELS = ("__background__", "cat", "sky", "things")


@pytest.fixture
def panoptic(tmp_path):
    """One picture: a cat (segment 300) in the upper left quarter, sky (segment 2) elsewhere."""
    numbers = np.full((SIDE, SIDE), 2)
    numbers[:4, :4] = 300
    colors = np.stack([numbers % 256, numbers // 256 % 256, numbers // 256**2], axis=2).astype(np.uint8)
    (tmp_path / "panoptic").mkdir()
    Image.fromarray(colors).save(tmp_path / "panoptic" / "1.png")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (SIDE, SIDE)).save(tmp_path / "images" / "1.jpg")
    data = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "categories": [{"id": 17, "name": "cat", "isthing": 1}, {"id": 187, "name": "sky", "isthing": 0}],
        "annotations": [
            {
                "image_id": 1,
                "file_name": "1.png",
                "segments_info": [{"id": 300, "category_id": 17}, {"id": 2, "category_id": 187, "iscrowd": 0}],
            }
        ],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(data))
    return tmp_path


def test_coco_panoptic(panoptic):
    """The cat's box is right and its mask full; the sky is everywhere else, but too little of it to be kept."""
    runner = Maps(
        labels=np.array([[1]]),
        boxes_xyxy=np.float32([[[0, 0, 4, 4]]]),
        scores=np.float32([[0.9]]),
        masks=np.ones((1, 1, 28, 28), np.float32),
        stuff=np.full((1, SIDE, SIDE), 2, np.int64),
    )
    evaluation = evaluate_segments(
        opened(runner, "panoptic", LABELS),
        read_data(panoptic / "panoptic.json"),
        panoptic / "images",
        panoptic / "out",
    )
    cat = evaluation.figures.pq_by_category["cat"]
    assert 0.5 < cat <= 1
    assert evaluation.figures.pq_by_category["sky"] == 0
    assert evaluation.figures.rq == pytest.approx(1 / 2)
    assert segment_table(evaluation).rows[1] == ["cat", f"{100 * cat:.1f}", "-", "-"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda d: d["annotations"][0].update(image_id=2),
            r"annotations\[0\] cannot .*the image 2 is not listed",
        ),
        (lambda d: d["annotations"][0].update(file_name="../1.png"), "lies outside of any folder"),
        (lambda d: d["annotations"][0].update(file_name="2.png"), "2.png: no such annotation"),
        (lambda d: d["annotations"][0]["segments_info"][0].update(category_id=3), "category 3 is not listed"),
        (lambda d: d.pop("categories"), "has no images, annotations and categories"),
    ],
)
def test_broken_panoptic_files_are_named(panoptic, change, says):
    data = json.loads((panoptic / "panoptic.json").read_text())
    change(data)
    (panoptic / "panoptic.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=says):
        read_data(panoptic / "panoptic.json")


def test_a_broken_png_is_named(panoptic):
    (panoptic / "panoptic" / "1.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1\.png: cannot be read as annotation"):
        read_data(panoptic / "panoptic.json").numbers(1)


def test_segments_are_no_boxes(panoptic):
    with pytest.raises(DataError, match="holds segments, not boxes"):
        read_boxes(panoptic / "panoptic.json")
