"""Annotations that teach nothing, and folders that cannot be trained into."""

import json

import pytest
from faults import Fault, check, each
from PIL import Image

pytestmark = pytest.mark.host

BOX = {"image_id": 1, "category_id": 1, "bbox": [8, 8, 20, 20]}


def _training(*annotations, out="out", size=(64, 48)):
    """Arguments of a training on one picture with these annotations."""

    def arguments(folder):
        Image.new("RGB", (64, 48), (90, 90, 90)).save(folder / "1.png")
        document = {
            "images": [{"id": 1, "file_name": "1.png", "width": size[0], "height": size[1]}],
            "annotations": list(annotations),
            "categories": [{"id": 1, "name": "cell"}],
        }
        (folder / "data.json").write_text(json.dumps(document))
        (folder / "a-file").write_text("")
        given = ["--data", str(folder / "data.json"), "--images", str(folder), "--out", str(folder / out)]
        return ["fcos_mobilenetv3", *given, "--input-size", "128", "--epochs", "1", "--batch", "1"]

    return arguments


FAULTS = [
    Fault("no-annotation", "train", _training(), ("data.json", "nothing")),
    Fault("all-crowd", "train", _training({**BOX, "iscrowd": 1}), ("data.json", "nothing")),
    Fault("no-area", "train", _training({**BOX, "bbox": [8, 8, 0, 20]}), ("data.json", "nothing to learn")),
    Fault("next-to-no-area", "train", _training({**BOX, "bbox": [8, 8, 1e-9, 20]}), ("nothing to learn",)),
    Fault("outside", "train", _training({**BOX, "bbox": [64, 8, 20, 20]}), ("data.json", "nothing to learn")),
    Fault("above", "train", _training({**BOX, "bbox": [8, -30, 20, 20]}), ("data.json", "nothing to learn")),
    Fault("into-a-file", "train", _training(BOX, out="a-file"), ("a-file", "cannot be written")),
    Fault("into-nowhere", "train", _training(BOX, out="/proc/none"), ("/proc/none", "cannot be written")),
]


@each(FAULTS)
def test_a_fault_ends_as_the_table_says(fault, tmp_path, capsys):
    check(fault, tmp_path, capsys)
    assert not (tmp_path / "out").exists()
