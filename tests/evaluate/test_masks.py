"""Masks on their way from a detector's outputs through the journal to mask AP."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_pipeline import Brightness, contract

from fine_edge.detections import Detections
from fine_edge.evaluate.boxes import _entry, evaluate_boxes
from fine_edge.evaluate.journal import Entry, Journal, Outlines, found_of, read_journal
from fine_edge.evaluate.run import ImageResult
from fine_edge.evaluate.segment_data import read_boxes
from fine_edge.runners.opened import Opened

SIZE = (60, 80)


@pytest.fixture
def data(tmp_path):
    """One picture with a square whose mask is a triangle."""
    square = [10, 10, 40, 40]
    triangle = [10, 10, 50, 10, 10, 50]
    annotation = {"image_id": 1, "category_id": 5, "bbox": square, "area": 800, "segmentation": [triangle]}
    text = {
        "images": [{"id": 1, "file_name": "1.png", "height": SIZE[0], "width": SIZE[1]}],
        "annotations": [annotation],
        "categories": [{"id": 5, "name": "a"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(text))
    return read_boxes(tmp_path / "data.json")


def seen(mask):
    box = np.array([[10, 10, 50, 50], [0, 0, 8, 8]], np.float32)
    masks = np.stack([mask, np.ones((28, 28), np.float32)])
    found = Detections(np.array([0, 1]), box, np.array([0.9, 0.8], np.float32), masks)
    return ImageResult(1, found, size=SIZE)


def test_masks_of_counted_classes_go_into_the_journal(tmp_path):
    entry = _entry(seen(np.ones((28, 28), np.float32)), {0: 5})
    assert len(entry.rows) == len(entry.outlines.counts) == 1
    assert entry.outlines.size == SIZE
    path = tmp_path / "j.jsonl"
    with Journal(path, {}) as journal:
        journal.add(entry)
        journal.add(Entry(2, outlines=Outlines(SIZE, ())))
    masks = found_of(read_journal(path, (1, 2)), path).masks.tolist()
    assert masks == [{"size": list(SIZE), "counts": entry.outlines.counts[0]}]
    path.write_bytes(path.read_bytes().replace(b'"size":[', b'"size":[9', 1))
    with Journal(path, {}) as journal:
        assert list(journal.pictures) == [2], "masks of another size are none of this picture's"


class Masked(Brightness):
    """Finds the square in every picture, with a triangle or the whole of it for a mask."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def run(self, inputs):
        outputs = super().run(inputs)
        box = np.float32([[[10 / 80 * 8, 10 / 60 * 8, 50 / 80 * 8, 50 / 60 * 8]]])
        return {**outputs, "boxes_xyxy": box, "masks": self.mask[None, None], "scores": np.float32([[0.9]])}


@pytest.mark.parametrize(("is_triangle", "ap50"), [(True, 1.0), (False, 0.0)])
def test_mask_ap_is_of_the_masks_and_ap_of_the_boxes(data, tmp_path, is_triangle, ap50):
    from PIL import Image

    Image.new("RGB", (SIZE[1], SIZE[0]), (90, 90, 90)).save(tmp_path / "1.png")
    y, x = np.mgrid[:28, :28]
    mask = (x + y < 28).astype(np.float32) if is_triangle else np.ones((28, 28), np.float32)
    made = replace(contract(task="instance"), labels=("a",))
    opened = Opened(Masked(mask), made, "fp32", "sha", "sha")
    evaluation = evaluate_boxes(opened, data, tmp_path, tmp_path / "out")
    assert evaluation.boxes.ap50 == pytest.approx(1)
    assert evaluation.masks.ap50 == pytest.approx(ap50)
    assert evaluation.to_json()["mask"]["ap50"] == pytest.approx(ap50)
