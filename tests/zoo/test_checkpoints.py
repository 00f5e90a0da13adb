"""Weights of every origin end up where they belong, and what does not fit is refused in one line."""

import json
import os
import pickle
import random
import re
import resource

import numpy as np
import pytest
import torch
from official_names import official_state
from safetensors.torch import save_file

from fine_edge.errors import OutputError, WeightsError
from fine_edge.zoo import checkpoints
from fine_edge.zoo.catalog import find
from fine_edge.zoo.fit import refuse_misfit
from fine_edge.zoo.labels import COCO_LABELS
from fine_edge.zoo.load import load
from fine_edge.zoo.rtdetr import checkpoint
from fine_edge.zoo.rtdetr.family import RTDetr

# transformers calls torch.jit and its own progress bars while saving; neither is under test.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def outputs(model, image):
    with torch.no_grad():
        out = model(image)
    return out.logits, out.pred_boxes


def assert_same_detector(loaded, source, image):
    mine, theirs = loaded.state_dict(), source.state_dict()
    for key, tensor in checkpoints.learned_state(source).items():
        assert torch.equal(mine[key], tensor), key
    assert mine.keys() >= theirs.keys()
    assert not loaded.training
    for a, b in zip(outputs(loaded, image), outputs(source, image), strict=True):
        assert torch.equal(a, b)


def as_version_4(state):
    """Key names of transformers 4, which also saved the decoder's heads a second time at the top."""
    old = {}
    for key, tensor in state.items():
        name = key.replace("self_attn.o_proj", "self_attn.out_proj").replace("encoder.aifi.", "encoder.encoder.")
        old[re.sub(r"\.mlp\.(fc[12])\.", r".\1.", name)] = tensor
        if key.startswith(("model.decoder.class_embed.", "model.decoder.bbox_embed.")):
            old[key.removeprefix("model.decoder.")] = tensor.clone()
    return old


def test_a_directory_of_save_pretrained(r18, image, folder):
    r18.save_pretrained(folder)
    found = load(find("rtdetr_r18"), folder)
    assert_same_detector(found.model, r18, image)
    assert found.labels == COCO_LABELS
    assert (found.report.layout, found.report.missing, found.report.unexpected) == ("transformers", (), ())
    assert found.provenance["source"] == "transformers"
    assert re.fullmatch("[0-9a-f]{64}", found.provenance["sha256"])

    alone = load(find("rtdetr_r18"), folder / "model.safetensors")
    assert alone.provenance["sha256"] == found.provenance["sha256"]
    assert_same_detector(alone.model, r18, image)


@pytest.mark.parametrize("names", ["current", "version 4"])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_transformers_key_names_old_and_new(r18, image, folder, names, kind):
    state = {key: tensor.clone() for key, tensor in r18.state_dict().items()}
    if names == "version 4":
        state = as_version_4(state)
        assert not state.keys() <= r18.state_dict().keys()
    path = folder / f"model.{kind}"
    (save_file if kind == "safetensors" else torch.save)(state, path)
    found = load(find("rtdetr_r18"), path)
    assert_same_detector(found.model, r18, image)
    assert (found.report.missing, found.report.unexpected) == ((), ())


@pytest.mark.parametrize(
    ("wrap", "enc_output"),
    [
        (lambda state: {"model": state, "last_epoch": 71}, ("0", "1")),
        (lambda state: {"ema": {"module": state, "updates": 9}, "model": {"stale": torch.zeros(1)}}, ("proj", "norm")),
        (lambda state: {"model": {f"module.{key}": tensor for key, tensor in state.items()}}, ("0", "1")),
    ],
    ids=["model", "ema before model", "distributed"],
)
def test_the_official_repository_r18(r18, image, folder, wrap, enc_output):
    torch.save(wrap(official_state(r18, enc_output)), folder / "rtdetr_r18vd.pth")
    found = load(find("rtdetr_r18"), folder / "rtdetr_r18vd.pth")
    assert_same_detector(found.model, r18, image)
    assert (found.report.layout, found.report.missing, found.report.unexpected) == ("official", (), ())
    assert found.report.loaded == len(checkpoints.learned_state(r18))


def test_the_official_repository_r50_and_its_refusal_by_r18(r50, image, folder):
    path = folder / "rtdetr_r50vd.pth"
    torch.save({"ema": {"module": official_state(r50)}}, path)
    found = load(find("rtdetr_r50"), path)
    assert_same_detector(found.model, r50, image)
    assert (found.report.layout, found.report.missing, found.report.unexpected) == ("official", (), ())
    with pytest.raises(
        WeightsError, match=r"rtdetr_r50vd\.pth: weights of another model: .* -> use rtdetr_r50"
    ) as caught:
        load(find("rtdetr_r18"), path)
    assert len(str(caught.value).splitlines()) == 1


def test_official_names_are_those_of_its_sources():
    """A sample by hand of the two backbones and of each part, so that the test's own mapping is anchored."""
    for name, block in (("rtdetr_r18", "branch2b"), ("rtdetr_r50", "branch2c")):
        state = official_state(RTDetr().build(find(name), 80))
        assert state["backbone.conv1.conv1_1.conv.weight"].shape == (32, 3, 3, 3)
        assert f"backbone.res_layers.3.blocks.1.{block}.norm.running_var" in state
        assert "backbone.res_layers.0.blocks.0.short.conv.weight" in state
        assert "backbone.res_layers.1.blocks.0.short.conv.norm.weight" in state
        assert state["encoder.encoder.0.layers.0.self_attn.in_proj_weight"].shape == (768, 256)
        assert state["decoder.decoder.layers.2.cross_attn.sampling_offsets.weight"].shape == (192, 256)
        assert state["decoder.decoder.layers.0.norm3.weight"].shape == (256,)
        assert state["encoder.encoder.0.layers.0.linear1.weight"].shape == (1024, 256)
        for name in ("encoder.input_proj.0.0.weight", "decoder.input_proj.2.norm.running_mean"):
            assert name in state
        for name in ("decoder.denoising_class_embed.weight", "encoder.pan_blocks.1.bottlenecks.2.conv2.norm.bias"):
            assert name in state
        for name in ("decoder.dec_bbox_head.2.layers.2.bias", "decoder.enc_score_head.weight"):
            assert name in state
        assert not [name for name in state if name.startswith("model.")]


def test_our_own_file_keeps_fine_and_its_name_and_labels(r18_fine, image, folder):
    path = folder / "own.safetensors"
    checkpoints.save(r18_fine, path, name="rtdetr_r18_fine", labels=COCO_LABELS)
    found = load(find("rtdetr_r18_fine"), path)
    assert_same_detector(found.model, r18_fine, image)
    assert (found.report.layout, found.report.fine, found.labels) == ("fine_edge", "loaded", COCO_LABELS)
    assert "FINE loaded" in str(found.report)
    with pytest.raises(
        WeightsError, match="holds weights of rtdetr_r18_fine, not of rtdetr_r18 -> use rtdetr_r18_fine"
    ):
        load(find("rtdetr_r18"), path)
    with pytest.raises(WeightsError, match="holds weights of rtdetr_r18_fine, not of rtdetr_r18_fine_window"):
        load(find("rtdetr_r18_fine_window"), path)


def test_a_baseline_checkpoint_starts_fine_at_identity(r18, image, folder):
    checkpoints.save(r18, folder / "own.safetensors", name="rtdetr_r18", labels=COCO_LABELS)
    found = load(find("rtdetr_r18_fine"), folder / "own.safetensors")
    assert (found.report.fine, found.provenance["fine"]) == ("identity", "identity")
    assert all(".fine." in key for key in found.report.missing)
    assert "FINE starts at identity" in str(found.report)
    for a, b in zip(outputs(found.model, image), outputs(r18, image), strict=True):
        assert torch.equal(a, b)
    again = load(find("rtdetr_r18_fine"), folder / "own.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(found.model.parameters(), again.model.parameters(), strict=True))


def test_fine_weights_without_our_header_are_not_dropped_silently(r18_fine, folder):
    save_file(dict(r18_fine.state_dict()), folder / "plain.safetensors")
    with pytest.raises(WeightsError, match="holds trained FINE weights that this model would drop -> use its _fine"):
        load(find("rtdetr_r18"), folder / "plain.safetensors")


def test_other_numbers_of_classes_are_taken_over(r18, folder, image):
    state = {key: tensor.clone() for key, tensor in r18.state_dict().items()}
    for key in state:
        if "class_embed" in key or "enc_score_head" in key:
            state[key] = state[key][: 6 if "denoising" in key else 5].clone()
    save_file(state, folder / "five.safetensors")
    found = load(find("rtdetr_r18"), folder / "five.safetensors")
    assert found.labels == tuple(f"class_{index}" for index in range(5))
    assert outputs(found.model, image)[0].shape == (1, 300, 5)


def test_missing_tensors_are_refused_and_unexpected_ones_reported(r18, r18_fine, folder):
    state = dict(r18.state_dict())
    save_file({**state, "something.extra": torch.zeros(2)}, folder / "more.safetensors")
    report = load(find("rtdetr_r18"), folder / "more.safetensors").report
    assert report.unexpected == ("something.extra",)
    assert "1 unexpected (something.extra" in str(report)

    cut = {key: tensor for key, tensor in state.items() if "decoder.layers.2.self_attn" not in key}
    save_file(cut, folder / "less.safetensors")
    with pytest.raises(WeightsError, match=r"10 tensors are missing, such as model\.decoder\.layers\.2\.self_attn"):
        load(find("rtdetr_r18"), folder / "less.safetensors")

    half_fine = {key: t for key, t in r18_fine.state_dict().items() if "fpn_blocks.1.fine.query" not in key}
    save_file(half_fine, folder / "half.safetensors")
    with pytest.raises(WeightsError, match=r"tensors are missing, such as .*fine\.query"):
        load(find("rtdetr_r18_fine"), folder / "half.safetensors")


@pytest.mark.parametrize(("rival", "title"), [("fapn", "FaPN"), ("adafpn", "AdaFPN"), ("mgc", "A²-FPN MGC")])
def test_a_rival_in_the_place_of_layers_does_not_start_from_the_detectors_weights(r18, folder, rival, title):
    entry = find(f"rtdetr_r18_{rival}")
    with torch.device("meta"):
        wanted = checkpoints.learned_state(RTDetr().build(entry, 80))
    state = checkpoints.Checkpoint(checkpoints.learned_state(r18), "by hand")
    with pytest.raises(WeightsError, match=f"holds no weights of {title}, which takes the place of layers"):
        refuse_misfit(wanted, state, entry, folder)


def test_a_deeper_model_whose_tensors_include_ours_is_refused(r18, folder):
    """RT-DETR R34 has every tensor of R18, in the same shapes, and would otherwise load as a broken R18."""
    state = dict(r18.state_dict())
    deeper = {
        key.replace("layers.1.", "layers.2."): t.clone() for key, t in state.items() if ".stages.0.layers.1." in key
    }
    save_file({**state, **deeper}, folder / "r34.safetensors")
    with pytest.raises(WeightsError, match="weights of a deeper model"):
        load(find("rtdetr_r18"), folder / "r34.safetensors")


def test_denoising_embeddings_may_be_missing(r18, folder, image):
    state = {key: tensor for key, tensor in r18.state_dict().items() if "denoising" not in key}
    save_file(state, folder / "inference.safetensors")
    found = load(find("rtdetr_r18"), folder / "inference.safetensors")
    assert found.report.loaded == len(checkpoints.learned_state(r18)) - 1
    for a, b in zip(outputs(found.model, image), outputs(r18, image), strict=True):
        assert torch.equal(a, b)


class Payload:
    """What a hostile pickle does: it calls something when it is read."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("wrap", [lambda bad: {"model": {"w": bad}}, lambda bad: bad, lambda bad: {"ema": bad}])
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, wrap, zipped):
    trap = tmp_path / "executed"
    torch.save(wrap(Payload(trap)), tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"evil\.pth: cannot be loaded without running code \(posix\.mkdir\) -> "):
        checkpoint.read(tmp_path / "evil.pth")
    assert not trap.exists()


def test_a_bare_pickle_is_not_run_either(tmp_path):
    trap = tmp_path / "executed"
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(WeightsError):
        checkpoint.read(tmp_path / "evil.pth")
    assert not trap.exists()


@pytest.mark.parametrize("suffix", ["pth", "bin", "safetensors", "none"])
@pytest.mark.parametrize(
    "content", [b"", b"x", b"PK\x03\x04 cut", np.random.default_rng(0).bytes(3000), b"version https://git-lfs\n"]
)
def test_what_is_no_checkpoint_is_refused(tmp_path, suffix, content):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a") as caught:
        checkpoint.read(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_hundreds_of_damaged_checkpoints_give_tensors_or_our_error(tmp_path, kind):
    state = {"model.a.weight": torch.arange(6.0).reshape(2, 3), "backbone.res_layers.0.x": torch.ones(4)}
    path = tmp_path / f"a.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file(state, path, metadata={"fine_edge.model": "rtdetr_r18", "fine_edge.labels": '["a"]'})
    else:
        torch.save({"model": state}, path, _use_new_zipfile_serialization=kind == "zip")
    whole, rng, messages = path.read_bytes(), random.Random(kind), []
    for _ in range(250):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 5)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.randrange(len(damaged))] if rng.random() < 0.2 else damaged)
        try:
            checkpoint.read(path)
        except WeightsError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(len(message.splitlines()) == 1 for message in messages)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ([torch.zeros(1)], "holds a list, not a state dict"),
        (torch.zeros(3), "holds a Tensor, not a state dict"),
        ({}, "holds no tensor"),
        ({"model": {"epoch": 3}}, "holds no tensor"),
        ({"some": torch.zeros(1)}, r"these are not weights of rtdetr_r18 \(no class head\)"),
        ({"model.decoder.class_embed.0.weight": torch.zeros(())}, "no class head"),
        ({"model.decoder.class_embed.0.weight": torch.zeros(0, 256)}, "no class head"),
        (
            {"backbone.res_layers.0.x": torch.zeros(1), "decoder.decoder.layers.0.norm9.w": torch.zeros(1)},
            "no class head",
        ),
        (
            {
                "backbone.res_layers.0.x": torch.zeros(1),
                "encoder.encoder.0.layers.0.self_attn.in_proj_bias": torch.zeros(4),
            },
            r"of shape \(4,\) does not hold query, key and value",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_state_dicts_of_something_else(tmp_path, data, reason):
    torch.save(data, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=rf"a\.pth: .*{reason}"):
        load(find("rtdetr_r18"), tmp_path / "a.pth")


def test_folders_without_what_they_should_hold(tmp_path):
    with pytest.raises(WeightsError, match="the folder holds no model"):
        checkpoint.read(tmp_path)
    with pytest.raises(WeightsError, match="no such checkpoint"):
        checkpoint.read(tmp_path / "none.pth")


@pytest.mark.parametrize(
    "config", ["", "{", "[]", '"x"', '{"id2label": 5}', '{"id2label": {"a": "b"}}', '{"id2label": ["a"]}', "[" * 99999]
)
def test_a_broken_config_is_refused(tmp_path, config):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(WeightsError, match=r"config\.json(: is no JSON| is broken)"):
        checkpoint.read(tmp_path)


@pytest.mark.parametrize("config", [None, {}, {"id2label": None}, {"id2label": {}}])
def test_a_config_without_labels_is_fine(tmp_path, config):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    assert checkpoint.read(tmp_path).labels is None


def test_labels_of_a_config_are_in_order_of_their_numbers(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {str(i): f"n{i}" for i in range(11)[::-1]}}))
    assert checkpoint.read(tmp_path).labels == tuple(f"n{i}" for i in range(11))


@pytest.mark.parametrize("labels", [None, "{", "5"])
def test_a_broken_header_of_our_own_is_refused(tmp_path, labels):
    metadata = {"fine_edge.model": "rtdetr_r18", **({"fine_edge.labels": labels} if labels else {})}
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", metadata=metadata)
    with pytest.raises(WeightsError, match="its class names are broken"):
        checkpoint.read(tmp_path / "a.safetensors")


def test_a_full_disk_while_saving_leaves_nothing(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            checkpoints.save(torch.nn.Linear(100, 100), tmp_path / "a.safetensors", name="x", labels=())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
