"""A detector before its training."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from fine_edge.errors import DataError, WeightsError
from fine_edge.preprocess import Preprocessing
from fine_edge.train.start import labels_of, start
from fine_edge.zoo.catalog import find
from fine_edge.zoo.checkpoints import save
from fine_edge.zoo.family import family_of

ENTRY, FINE = find("fcos_mobilenetv3"), find("fcos_mobilenetv3_fine")
FAMILY, RTDETR = family_of("torchvision"), family_of("rtdetr")
LABELS = labels_of(FAMILY, ("a", "b"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of three classes, trained by nobody."""
    path = tmp_path_factory.mktemp("weights") / "three.safetensors"
    model, _ = start(FAMILY, ENTRY, labels_of(FAMILY, ("x", "y", "z")), None, 7)
    save(model, path, name=ENTRY.name, labels=labels_of(FAMILY, ("x", "y", "z")))
    return path


def test_labels_are_as_the_library_counts_them():
    assert LABELS == ("__background__", "a", "b")
    assert labels_of(RTDETR, ("a", "b")) == ("a", "b")


def test_two_classes_of_one_name_are_refused():
    for names, twice in ((("dog", "cat", "Dog"), "dog"), (("__Background__", "cat"), "background")):
        with pytest.raises(DataError, match=f"more than one class is called '{twice}'"):
            labels_of(FAMILY, names)


def test_a_seed_decides_and_both_detectors_start_as_the_same_function():
    image = torch.rand(1, 3, 96, 128)
    first, again, other = (start(FAMILY, ENTRY, LABELS, None, seed)[0].eval() for seed in (0, 0, 1))
    maps = [list(model.backbone(image).values()) for model in (first, again, other)]
    assert all(torch.equal(a, b) for a, b in zip(maps[0], maps[1], strict=True))
    assert not torch.equal(maps[0][0], maps[2][0])
    refined = start(FAMILY, FINE, LABELS, None, 0)[0].eval()
    assert all(torch.equal(a, b) for a, b in zip(maps[0], refined.backbone(image).values(), strict=True))


def test_weights_of_other_classes_keep_all_but_the_class_head(checkpoint):
    model, taken = start(FAMILY, FINE, LABELS, checkpoint, 0)
    donor = start(FAMILY, ENTRY, labels_of(FAMILY, ("x", "y", "z")), None, 7)[0].state_dict()
    changed = [key for key, value in model.state_dict().items() if key in donor and not torch.equal(value, donor[key])]
    assert (
        changed
        == ["head.classification_head.cls_logits.weight", "head.classification_head.cls_logits.bias"][: len(changed)]
    )
    assert changed[:1] == ["head.classification_head.cls_logits.weight"]
    assert taken > 200


def test_weights_of_another_detector_are_refused(checkpoint):
    with pytest.raises(WeightsError, match="weights of another model"):
        start(FAMILY, find("retinanet_r50"), LABELS, checkpoint, 0)


def test_what_a_checkpoint_says_besides_is_not_lost_in_silence(checkpoint, tmp_path):
    model, _ = start(FAMILY, ENTRY, LABELS, None, 0)
    path = tmp_path / "other.safetensors"
    save(model, path, name=ENTRY.name, labels=LABELS, preprocessing=Preprocessing(mean=(0.5, 0.5, 0.5)))
    with pytest.raises(WeightsError, match="its pictures are preprocessed as "):
        start(FAMILY, ENTRY, LABELS, path, 0)
    state = load_file(checkpoint)
    state["backbone.fpn.inner_blocks.0.0.weight"][0] = torch.nan
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"inner_blocks\.0\.0\.weight.*not finite"):
        start(FAMILY, ENTRY, LABELS, path, 0)


def test_settings_that_a_training_would_drop_are_refused(tmp_path):
    entry, path = find("rtdetr_r18"), tmp_path / "queries.safetensors"
    model, _ = start(RTDETR, entry, ("a", "b"), None, 0)
    model.config.num_queries = 100
    save(model, path, name=entry.name, labels=("a", "b"))
    with pytest.raises(WeightsError, match=r"num_queries = 100 .* supported: 300"):
        start(RTDETR, entry, ("a", "b"), path, 0)
