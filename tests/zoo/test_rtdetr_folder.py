"""A folder of transformers is more than its tensors: what is found is what transformers' own pipeline finds."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import RTDetrForObjectDetection, RTDetrImageProcessor
from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil

from fine_edge.errors import WeightsError
from fine_edge.export.request import ExportRequest
from fine_edge.images import sample_photographs
from fine_edge.preprocess import Preprocessing, preprocess
from fine_edge.runners.eager import EagerRunner
from fine_edge.zoo import checkpoints
from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import GraphForm, family_of
from fine_edge.zoo.load import load
from fine_edge.zoo.rtdetr.family import RTDetr, rtdetr_config
from fine_edge.zoo.weights_file import weights_sha256

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

NAMES = ("RBC", "WBC", "gr\u00f6n")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder in which nothing that may differ from the zoo's RT-DETR R18 is the same."""
    config = rtdetr_config("r18", len(NAMES))
    config.update(
        {
            "id2label": dict(enumerate(NAMES)),
            "label2id": {name: index for index, name in enumerate(NAMES)},
            "num_queries": 20,
            "d_model": 64,
            "encoder_hidden_dim": 64,
            "decoder_in_channels": [64] * 3,
            "encoder_ffn_dim": 96,
            "decoder_ffn_dim": 80,
            "hidden_expansion": 1.0,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 4,
            "decoder_n_points": 3,
            "layer_norm_eps": 1e-2,
            "batch_norm_eps": 1e-2,
            "positional_encoding_temperature": 100,
        }
    )
    folder = tmp_path_factory.mktemp("own")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = RTDetrForObjectDetection(config).eval()
        RTDetr().randomise(model)
    model.save_pretrained(folder)
    RTDetrImageProcessor(do_normalize=True, size={"height": 96, "width": 160}, rescale_factor=1 / 200).save_pretrained(
        folder
    )
    return folder


def test_a_folder_finds_what_transformers_finds(own):
    request = ExportRequest("rtdetr_r18", own)
    assert request.input_hw == (96, 160)
    assert ExportRequest("rtdetr_r18", own, height=64, width=128).input_hw == (64, 128)
    found = load(find("rtdetr_r18"), own)
    assert found.labels == NAMES
    picture = sample_photographs()[0].pixels
    images, placement = preprocess(picture, *request.input_hw, found.preprocessing)
    ours = EagerRunner(found.model, found.family, found.preprocessing, raw=False).run({"images": images})
    lowered = family_of("rtdetr").lowered(found.model, GraphForm(1, *request.input_hw))

    theirs = RTDetrForObjectDetection.from_pretrained(own).eval()
    processor = RTDetrImageProcessorPil.from_pretrained(own)  # torch's rounds pixels differently
    with torch.no_grad():
        inputs = processor(images=Image.fromarray(picture), return_tensors="pt")
        sizes = [picture.shape[:2]]
        (wanted,) = processor.post_process_object_detection(theirs(**inputs), threshold=0.0, target_sizes=sizes)
        graph = dict(zip(ours, lowered(torch.from_numpy(images)), strict=True))
    assert len(wanted["scores"]) == 20
    for outputs in (ours, {name: tensor.numpy() for name, tensor in graph.items()}):
        np.testing.assert_allclose(outputs["scores"][0], wanted["scores"], atol=2e-5)
        np.testing.assert_array_equal(outputs["labels"][0], wanted["labels"])
        boxes = np.clip(wanted["boxes"].numpy(), 0, [*sizes[0][::-1]] * 2)
        np.testing.assert_allclose(placement.to_picture(outputs["boxes_xyxy"][0]), boxes, atol=0.05)


def test_our_own_file_keeps_what_the_folder_said(own, tmp_path):
    found = load(find("rtdetr_r18"), own)
    path = tmp_path / "own.safetensors"
    checkpoints.save(
        found.model, path, name="rtdetr_r18", labels=found.labels, preprocessing=found.preprocessing, half=True
    )
    again = load(find("rtdetr_r18"), path)
    assert (again.preprocessing, again.labels) == (found.preprocessing, NAMES)
    assert again.model.config.num_queries == 20
    assert again.model.model.decoder.layers[0].final_layer_norm.eps == 1e-2


def test_fine_takes_the_width_of_the_folder(own):
    found = load(find("rtdetr_r18_fine"), own)
    assert found.report.fine == "identity"
    assert RTDetr().fusions(found.model)[0].project.weight.shape[0] == 64


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"decoder_layers": 3}, "decoder_layers = 3"),
        ({"decoder_n_points": 4}, "decoder_n_points = 4"),
        ({"encoder_layers": 1}, "encoder_layers = 1"),
        ({"encoder_ffn_dim": 1024}, "encoder_ffn_dim = 1024"),
        ({"hidden_expansion": 0.5}, "hidden_expansion = 0.5"),
        ({"backbone_config": {"depths": [3, 4, 6, 3]}}, "backbone_config.depths"),
    ],
)
def test_a_configuration_that_its_tensors_contradict_is_named(own, tmp_path, settings, words):
    shutil.copytree(own, tmp_path, dirs_exist_ok=True)
    config = json.loads((own / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(WeightsError, match=words):
        load(find("rtdetr_r18"), tmp_path)


def test_every_file_of_a_folder_is_part_of_its_identity(own, tmp_path):
    shutil.copytree(own, tmp_path, dirs_exist_ok=True)
    assert weights_sha256(tmp_path) == weights_sha256(own) == weights_sha256(own / "model.safetensors")
    assert load(find("rtdetr_r18"), own).provenance["sha256"] == weights_sha256(own)
    seen = {weights_sha256(own)}
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_text((own / name).read_text().replace("WBC", "white").replace("0.485", "0.5"))
        seen.add(weights_sha256(tmp_path))
    assert len(seen) == 3
    assert load(find("rtdetr_r18"), tmp_path).labels[1] == "white"


def test_shards_are_one_checkpoint(own, tmp_path):
    shutil.copytree(own, tmp_path, dirs_exist_ok=True)
    state = load_file(own / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = {key: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, key in enumerate(state)}
    for name in set(names.values()):
        save_file({key: tensor for key, tensor in state.items() if names[key] == name}, tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    whole, sharded = load(find("rtdetr_r18"), own).model, load(find("rtdetr_r18"), tmp_path).model
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), sharded.parameters(), strict=True))
    with pytest.raises(WeightsError, match="one shard of several -> give the folder"):
        load(find("rtdetr_r18"), tmp_path / "model-00001-of-00002.safetensors")


def test_a_processor_within_processor_config_counts(own, tmp_path):
    shutil.copytree(own, tmp_path, dirs_exist_ok=True)
    stated = {"image_processor": {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}}
    (tmp_path / "processor_config.json").write_text(json.dumps(stated))
    assert load(find("rtdetr_r18"), tmp_path).preprocessing == Preprocessing(mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    assert ExportRequest("rtdetr_r18", tmp_path).input_hw == (640, 640)
