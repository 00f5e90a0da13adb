"""ultralytics' own trainer trains an injected detector, and what it saves is loaded by both sides."""

import numpy as np
import pytest
import torch
from PIL import Image

from fine_edge.fusion.methods import MethodConfig
from fine_edge.zoo.catalog import find
from fine_edge.zoo.load import load
from fine_edge.zoo.yolo.fusion import fusions, inject
from fine_edge.zoo.yolo.library import DetectionModel, quiet

pytestmark = [pytest.mark.host, pytest.mark.filterwarnings("ignore")]  # of ultralytics' and torch's training code


@pytest.fixture
def dataset(tmp_path):
    """Four pictures, each with one box of one of two classes."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{index}.jpg")
        (tmp_path / "labels" / f"{index}.txt").write_text(f"{index % 2} 0.5 0.5 0.4 0.3\n")
    path = tmp_path / "data.yaml"
    path.write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [cat, dog]\n")
    return path


def test_its_trainer_trains_fine_and_both_sides_load_what_it_saves(dataset, tmp_path):
    from ultralytics.models.yolo.detect import DetectionTrainer

    model = inject(DetectionModel("yolov8s.yaml", nc=2, verbose=False), MethodConfig(ffn_ratio=4, identity=False))
    before = [method.query.weight.detach().clone() for method in fusions(model)]
    options = {
        **{"model": "yolov8s.yaml", "data": str(dataset), "epochs": 1, "imgsz": 64, "batch": 2, "device": "cpu"},
        **{"workers": 0, "plots": False, "project": str(tmp_path / "runs"), "name": "fine", "optimizer": "SGD"},
        **{"lr0": 0.1, "warmup_epochs": 0, "mosaic": 0.0},
    }
    with quiet():
        trainer = DetectionTrainer(overrides=options)
        trainer.model = model
        trainer.train()
    assert all(not torch.equal(old, m.query.weight) for old, m in zip(before, fusions(model), strict=True))

    found = load(find("yolov8s_fine"), trainer.last)
    assert (found.report.layout, found.report.fine, found.labels) == ("ultralytics", "loaded", ("cat", "dog"))
    from ultralytics import YOLO

    with quiet(), torch.no_grad():
        theirs = YOLO(trainer.last).model.eval()
        image = torch.rand(1, 3, 64, 64)
        assert len(fusions(theirs)) == 2
        torch.testing.assert_close(theirs(image)[0], found.model(image)[0])
