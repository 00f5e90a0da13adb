"""Checkpoints that say something else than their tensors, lie about their sizes, or are no weights at all."""

import argparse
import json
import os
import struct
import zipfile

import pytest
import torch
from faults import Fault, check, each
from safetensors.torch import save_file

pytestmark = pytest.mark.host

HEAD = "model.decoder.class_embed.0.weight"
NORM = "model.decoder.layers.0.final_layer_norm.weight"


def folder(config=None, processor=None, state=None):
    """Write a Hugging Face folder whose tensors are never looked at, or ``state``."""

    def write(path):
        tensors = {HEAD: torch.zeros(5, 8), NORM: torch.zeros(8)} if state is None else state
        save_file(tensors, path / "model.safetensors")
        (path / "config.json").write_text(json.dumps({"model_type": "rt_detr", **(config or {})}))
        (path / "preprocessor_config.json").write_text(json.dumps(processor or {}))
        return ["rtdetr_r18", "--weights", str(path), "--out", str(path / "out")]

    return write


def stated(where, name, value, *words):
    """Return the fault of a setting that would be computed otherwise: refused by its name and value."""
    at, _, key = name.rpartition(".")
    data = {at: {key: value}} if at else {key: value}
    arguments = folder(data) if where == "config" else folder(processor=data)
    file = "config.json" if where == "config" else "preprocessor_config.json"
    shown = json.dumps(value) if len(json.dumps(value)) < 100 else ""
    return Fault(f"{where}-{name}-{shown[:30]}", "export", arguments, (file, f"{name} = {shown}", *words))


def torch_file(data, model="rtdetr_r18", name="a.pth"):
    """Write an object by ``torch.save`` and export from it."""

    def write(path):
        torch.save(data() if callable(data) else data, path / name)
        return [model, "--weights", str(path / name), "--out", str(path / "out")]

    return write


def claims(tensor, model="rtdetr_r18", key=HEAD):
    return torch_file(lambda: {key: tensor(), "b": torch.zeros(1)}, model)


def _zip_bomb(path):
    torch.save({HEAD: torch.zeros(5, 8)}, path / "whole.pth")
    with (
        zipfile.ZipFile(path / "whole.pth") as whole,
        zipfile.ZipFile(path / "a.pth", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for entry in whole.infolist():
            out.writestr(entry.filename, whole.read(entry.filename) + b"\0" * 100_000)
    return ["rtdetr_r18", "--weights", str(path / "a.pth"), "--out", str(path / "out")]


def _header_that_lies(path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 8]}}).encode()
    (path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    return ["fcos_r50", "--weights", str(path / "a.safetensors"), "--out", str(path / "out")]


def _pipe(path):
    os.mkfifo(path / "a.pth")
    return ["rtdetr_r18", "--weights", str(path / "a.pth"), "--out", str(path / "out")]


def shards(index, *, missing=False):
    def write(path):
        save_file({HEAD: torch.zeros(5, 8)}, path / "model-00001-of-00002.safetensors")
        if not missing:
            save_file({"b": torch.zeros(1)}, path / "model-00002-of-00002.safetensors")
        (path / "model.safetensors.index.json").write_text(json.dumps(index))
        return ["rtdetr_r18", "--weights", str(path), "--out", str(path / "out")]

    return write


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"

FAULTS = [
    # What config.json says.
    stated("config", "activation_function", "gelu", "supported: silu"),
    stated("config", "encoder_activation_function", "relu", "supported: gelu"),
    stated("config", "decoder_activation_function", "gelu", "supported: relu"),
    stated("config", "backbone_config.hidden_act", "silu", "supported: relu"),
    stated("config", "backbone_config.downsample_in_bottleneck", True, "supported: false"),
    stated("config", "backbone_config.out_indices", [1, 2, 3]),
    stated("config", "backbone_config.something_new", 1, "is an unknown setting"),
    stated("config", "feat_strides", [4, 8, 16], "[8, 16, 32]"),
    stated("config", "num_feature_levels", 4, "supported: 3"),
    stated("config", "normalize_before", True),
    stated("config", "learn_initial_query", True),
    stated("config", "with_box_refine", False),
    stated("config", "use_focal_loss", False),
    stated("config", "anchor_image_size", [640, 640]),
    stated("config", "eval_size", [640, 640]),
    stated("config", "use_timm_backbone", True),
    stated("config", "quantization_config", {"bits": 8}),
    stated("config", "something_new", 3, "is an unknown setting"),
    stated("config", "num_queries", 10**9, "from 1 to"),
    stated("config", "num_queries", "100"),
    stated("config", "encoder_layers", True),
    stated("config", "layer_norm_eps", -1.0),
    stated("config", "batch_norm_eps", 10**400),
    stated("config", "d_model", 128, "encoder_hidden_dim"),
    Fault("config-heads", "export", folder({"decoder_attention_heads": 7}), ("decoder_attention_heads = 7", "divide")),
    Fault("config-of-rtdetrv2", "export", folder({"model_type": "rt_detr_v2"}), ("RT-DETRv2 is another model",)),
    Fault("config-of-d-fine", "export", folder({"model_type": "d_fine"}), ("D-FINE is another model",)),
    Fault("config-of-anything", "export", folder({"model_type": ["x"]}), ("model_type",)),
    Fault("labels-with-a-gap", "export", folder({"id2label": {"0": "a", "2": "b"}}), ("id2label", "without gaps")),
    Fault("labels-too-few", "export", folder({"id2label": {"0": "a"}}), ("names 1 classes, its class head has 5",)),
    Fault("labels-are-lists", "export", folder({"id2label": {"0": ["a"]}}), ("class 0 is a list",)),
    Fault(
        "label-that-no-contract-takes",
        "export",
        folder({"id2label": {"0": "x" * 5000}}, state={HEAD: torch.zeros(1, 8), NORM: torch.zeros(8)}),
        ("class 0 has a name of 5000 characters", "at most 4096", "shorter"),
    ),
    Fault(
        "settings-for-tensors",
        "export",
        lambda path: ["rtdetr_r18", "--weights", folder()(path)[2] + "/config.json", "--out", str(path / "out")],
        ("config.json: holds settings", "give its folder"),
    ),
    Fault(
        "labels-of-another-count",
        "export",
        folder({"id2label": {"0": "a"}, "num_labels": 2}),
        ("num_labels = 2", "1 names"),
    ),
    # What preprocessor_config.json says.
    stated("processor", "resample", 3, "supported: 2"),
    stated("processor", "do_resize", False),
    stated("processor", "do_center_crop", True),
    stated("processor", "image_processor_type", "DetrImageProcessor", "RTDetrImageProcessor"),
    stated("processor", "size", {"shortest_edge": 800, "longest_edge": 1333}, "height and width"),
    stated("processor", "size", {"height": 10**9, "width": 640}),
    stated("processor", "something_new", 1, "is an unknown setting"),
    stated("processor", "rescale_factor", 10**400, "a number"),
    stated("processor", "do_rescale", "yes"),
    Fault(
        "processor-deviation-of-zero",
        "export",
        folder(processor={"do_normalize": True, "image_std": [0, 1, 1]}),
        ("image_std = [0, 1, 1]",),
    ),
    Fault(
        "processor-pads-further",
        "export",
        folder(processor={"do_pad": True, "pad_size": {"height": 800, "width": 800}}),
        ("pad_size",),
    ),
    Fault(
        "processor-of-odd-size",
        "export",
        folder(processor={"size": {"height": 500, "width": 500}}),
        ("500x500", "divide by 32", "--input-size"),
    ),
    # Tensors that lie about their sizes, or are none.
    Fault("expanded", "export", claims(lambda: torch.zeros(1).expand(2**31, 256)), ("claims 549755813888 values",)),
    Fault("expanded-yolo", "export", claims(lambda: torch.zeros(1).expand(2**20, 2**20), "yolov8s"), ("claims",)),
    Fault("meta", "export", claims(lambda: torch.zeros(10**9, 256, device="meta")), ("no values",)),
    Fault("sparse", "export", claims(lambda: torch.ones(2, 2).to_sparse()), ("sparse_coo",)),
    Fault("compressed", "export", claims(lambda: torch.ones(2, 2).to_sparse_csr(), "fcos_r50"), ("sparse_csr",)),
    Fault("complex", "export", claims(lambda: torch.ones(2, dtype=torch.complex64), "semantic_fpn_r50"), ("complex",)),
    Fault(
        "many-of-one",
        "export",
        torch_file(lambda: dict.fromkeys(map(str, range(99)), torch.zeros(9, dtype=torch.float16))),
        ("99 tensors claim",),
    ),
    Fault("zip-bomb", "export", _zip_bomb, ("packed or overlapping",)),
    Fault("header-that-lies", "export", _header_that_lies, ("not a safetensors file",)),
    Fault("pipe", "export", _pipe, ("not a regular file",)),
    Fault("classes-without-weights", "export", claims(lambda: torch.zeros(10**6, 1)), ("no class head",)),
    # Shards.
    Fault("shards-outside", "export", shards({"weight_map": {HEAD: "../x.safetensors"}}), ("no name of a file",)),
    Fault("shards-lacking", "export", shards({"weight_map": {"b": SECOND}}, missing=True), (SECOND, "no such file")),
    Fault(
        "shards-lack-a-tensor",
        "export",
        shards({"weight_map": {HEAD: FIRST, "c": FIRST}}),
        ("lack 1 tensors of the index, such as c",),
    ),
    Fault("shards-without-map", "export", shards([]), ("weight_map",)),
    # What is no state dict.
    Fault(
        "a-whole-model",
        "export",
        torch_file(lambda: torch.nn.Sequential(torch.nn.Softplus()), "fcos_r50"),
        ("a whole model instead of its weights", "weights_only=False).state_dict()"),
    ),
    Fault(
        "two-models",
        "export",
        torch_file({"state_dict": {f"student.{HEAD}": torch.zeros(1), f"teacher.{HEAD}": torch.zeros(1)}}),
        ("holds 2 models", "student."),
    ),
    Fault(
        "trained-as-another-kind",
        "export",
        torch_file(
            {"model": {"x": torch.zeros(1)}, "args": argparse.Namespace(rpn_score_thresh=0.3)}, "fasterrcnn_r50"
        ),
        ("rpn_score_thresh = 0.3",),
    ),
]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@each(FAULTS)
def test_a_fault_ends_as_the_table_says(fault, tmp_path, capsys):
    check(fault, tmp_path, capsys)
