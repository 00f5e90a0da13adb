"""The libraries' losses as Trainer takes them."""

import pytest
import torch
from transformers import RTDetrForObjectDetection

from fine_edge.errors import ConfigError
from fine_edge.train.start import start, trainable
from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import Sample, family_of
from fine_edge.zoo.rtdetr.family import rtdetr_config

BOXES = torch.tensor([[16.0, 32.0, 80.0, 96.0], [128.0, 0.0, 256.0, 128.0]])
SAMPLES = [
    Sample(torch.rand(3, 128, 256), BOXES, torch.tensor([1, 0])),
    Sample(torch.rand(3, 128, 256), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
]


def test_torchvision_gets_its_inputs_as_they_are_and_labels_from_one():
    entry = find("fcos_mobilenetv3_fine")
    family = family_of(entry.family)
    model, _ = start(family, entry, ("__background__", "a", "b"), None, 0)
    subject = trainable(family, entry, model.train())
    batch = subject.collate(SAMPLES)
    assert [target["labels"].tolist() for target in batch["targets"]] == [[2, 1], []]
    found = subject.module(**batch)
    parts = {name: value for name, value in found.items() if name != "loss"}
    assert set(parts) == {"classification", "bbox_regression", "bbox_ctrness"}
    assert found["loss"].item() == pytest.approx(sum(value.item() for value in parts.values()), rel=1e-6)
    # torchvision's own pass, told to leave size and colours alone.
    model.transform.min_size, model.transform.max_size = (128,), 256
    model.transform.image_mean, model.transform.image_std = [0.0] * 3, [1.0] * 3
    theirs = model([sample.image for sample in SAMPLES], batch["targets"])
    assert {name: value.item() for name, value in theirs.items()} == pytest.approx(
        {name: value.item() for name, value in parts.items()}, rel=1e-5
    )


def test_rtdetr_gets_centres_and_sizes_in_parts_of_the_input():
    entry = find("rtdetr_r18")
    model = RTDetrForObjectDetection(rtdetr_config("r18", 2, decoder_layers=1))
    subject = trainable(family_of(entry.family), entry, model.train())
    batch = subject.collate(SAMPLES)
    assert batch["labels"][0]["boxes"].tolist() == [[0.1875, 0.5, 0.25, 0.5], [0.75, 0.5, 0.5, 1.0]]
    assert batch["labels"][0]["class_labels"].tolist() == [1, 0]
    assert subject.module(**batch)["loss"].item() > 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("yolov8s_fine", "trained by its own library"),
        ("maskrcnn_r50", "needs masks"),
        ("semantic_fpn_r50", "needs masks"),
    ],
)
def test_what_cannot_be_trained_here_says_so(name, reason):
    with pytest.raises(ConfigError, match=reason):
        trainable(family_of(find(name).family), find(name), torch.nn.Identity())
