"""One small export, looked at from all sides: its files, its contract, its graph, and when it is made again."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers
from onnx import numpy_helper
from transformers import RTDetrForObjectDetection

import fine_edge
from fine_edge import machine
from fine_edge.contract import bound_contract, contract_path, read_contract
from fine_edge.errors import ArtifactError
from fine_edge.export import exporter
from fine_edge.export.artifacts import ensure_exported, existing
from fine_edge.export.request import ExportRequest
from fine_edge.files import sha256_of
from fine_edge.graph.checks import check
from fine_edge.graph.rules_attention import module_path
from fine_edge.parity.references import against_golden
from fine_edge.runners.ort import OrtRunner
from fine_edge.zoo.catalog import find
from fine_edge.zoo.family import family_of
from fine_edge.zoo.load import load
from fine_edge.zoo.rtdetr.family import rtdetr_config

MODEL, SIZE = "rtdetr_r18_fine", 160
FP16 = ExportRequest(MODEL, precision="fp16", height=SIZE, width=SIZE)
FP32 = replace(FP16, precision="fp32")
FORBIDDEN = {"Shape", "Gather", "Cast", "ScatterND", "If", "Loop"}


@pytest.fixture(scope="module")
def scratch():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def folder(scratch, export_store):
    """FP16, which writes FP32 too, through the command."""
    return export_store.linked(FP16, scratch / "fp16")


@pytest.fixture(scope="module")
def contract(folder):
    return read_contract(folder / f"{MODEL}.contract.json")


@pytest.fixture(scope="module")
def graph(folder):
    return onnx.load(folder / f"{MODEL}.onnx")


def linked(folder, out):
    """The same files elsewhere, at no cost."""
    shutil.copytree(folder, out, copy_function=os.link)
    return out


@pytest.fixture
def copied(folder, scratch, request):
    out = scratch / re.sub(r"\W", "_", request.node.name)
    yield linked(folder, out)
    shutil.rmtree(out)


@pytest.fixture
def exports(monkeypatch):
    """Requests for which an export would have been made."""
    seen = []

    def export(request, folder):
        seen.append(request)
        return folder / request.onnx_name()

    monkeypatch.setattr(exporter, "export", export)
    return seen


def test_files(folder):
    assert {file.name for file in folder.iterdir()} == {
        f"{MODEL}.onnx",
        f"{MODEL}.fp16.onnx",
        f"{MODEL}.contract.json",
        f"{MODEL}.golden.npz",
    }


def test_contract(folder, contract):
    assert contract.model == MODEL
    assert (contract.batch, contract.input_hw, contract.opset) == (1, (SIZE, SIZE), 18)
    assert [(a.file, a.precision, a.sha256) for a in contract.artifacts] == [
        (f"{MODEL}.onnx", "fp32", sha256_of(folder / f"{MODEL}.onnx")),
        (f"{MODEL}.fp16.onnx", "fp16", sha256_of(folder / f"{MODEL}.fp16.onnx")),
    ]
    assert [(s.name, s.dtype, s.shape) for s in (*contract.inputs, *contract.outputs)] == [
        ("images", "float32", (1, 3, SIZE, SIZE)),
        ("labels", "int64", (1, 300)),
        ("boxes_xyxy", "float32", (1, 300, 4)),
        ("scores", "float32", (1, 300)),
    ]
    assert contract.postprocessed
    assert contract.random_weights
    assert contract.made_by["weights"] == {"source": "random", "seed": 0}
    form = {"height": SIZE, "width": SIZE, "batch": 1, "raw": False, "sampling": "rows"}
    assert contract.made_by["options"] == form
    assert len(contract.labels) == 80
    assert contract.golden == {"file": f"{MODEL}.golden.npz", "sha256": sha256_of(folder / f"{MODEL}.golden.npz")}
    assert contract.cost["params"] == pytest.approx(21.2e6, rel=5e-3)


def test_the_sha256_at_the_top_is_that_of_the_first_file(folder, contract):
    data = json.loads((folder / f"{MODEL}.contract.json").read_text())
    assert data["sha256"] == contract.artifacts[0].sha256


def test_both_files_speak_the_contracts_names_and_shapes(folder, contract):
    for artifact in contract.artifacts:
        model = onnx.load(folder / artifact.file, load_external_data=False)
        values = [*model.graph.input, *model.graph.output]
        found = [(v.name, [d.dim_value for d in v.type.tensor_type.shape.dim]) for v in values]
        assert found == [(s.name, list(s.shape)) for s in (*contract.inputs, *contract.outputs)]
        assert bound_contract(folder / artifact.file)[1] == artifact


def test_golden_outputs_are_those_of_photographs_and_noise(folder, contract):
    with np.load(folder / contract.golden["file"], allow_pickle=False) as golden:
        arrays = dict(golden)
    wanted = {f"{case}/{s.name}" for case in ("photographs", "noise") for s in (*contract.inputs, *contract.outputs)}
    assert set(arrays) == wanted | {"photographs/selection_margin", "noise/selection_margin"}
    for spec in (*contract.inputs, *contract.outputs):
        for case in ("photographs", "noise"):
            array = arrays[f"{case}/{spec.name}"]
            assert (array.shape, str(array.dtype)) == (spec.shape, spec.dtype)
    assert arrays["photographs/images"].std() > 0.1
    assert np.ptp(arrays["photographs/scores"]) > 0.01
    assert not np.array_equal(arrays["photographs/boxes_xyxy"], arrays["noise/boxes_xyxy"])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_files_give_the_golden_outputs(folder, precision):
    path = folder / replace(FP32, precision=precision).onnx_name()
    report = against_golden(path, OrtRunner(path))
    assert report.ok, report.to_json()
    assert (report.precision, report.random_weights) == (precision, True)
    assert report.detections.matched > 500


def test_no_rule_of_the_graph_is_broken(folder, contract):
    for artifact in contract.artifacts:
        assert [f for f in check(onnx.load(folder / artifact.file)) if f.severity == "error"] == []


def test_opset_and_shapes_are_fixed(graph):
    assert [(o.domain, o.version) for o in graph.opset_import if o.domain in ("", "ai.onnx")] == [("", 18)]
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    assert len(values) > 200
    assert [v.name for v in values if not all(d.HasField("dim_value") for d in v.type.tensor_type.shape.dim)] == []


def test_fine_holds_only_what_compiles_into_few_kernels(graph):
    inside = [node.op_type for node in graph.graph.node if "fine" in module_path(node)]
    assert {"MatMul", "Softmax", "LayerNormalization", "AveragePool", "Erf"} <= set(inside)
    assert inside.count("Softmax") == 2
    assert not FORBIDDEN & set(inside)


def test_no_batch_norm_and_no_branch_of_repvgg_is_left(graph):
    kinds = [node.op_type for node in graph.graph.node]
    assert "BatchNormalization" not in kinds
    convolutions = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    assert len(convolutions) < 55, "each RepVGG block that is not merged has one more, and there are twelve"


def test_every_node_is_named_after_its_module(graph):
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    scopes = ("/detector/backbone/", "/detector/encoder/", "/detector/selection/", "/detector/decoder", "/postprocess/")
    assert all(any(name.startswith(scope) for name in names) for scope in scopes)
    assert all(name.startswith(("/detector/", "/postprocess/")) for name in names)


def test_nothing_of_the_machine_is_in_the_file(graph, folder):
    stripped = onnx.ModelProto()
    stripped.CopyFrom(graph)
    for tensor in stripped.graph.initializer:
        tensor.ClearField("raw_data")  # numbers, in which any three letters turn up by chance
    text = stripped.SerializeToString() + (folder / f"{MODEL}.contract.json").read_bytes()
    places = {str(Path(module.__file__).parent) for module in (fine_edge, onnx, transformers)}
    for trace in (*places, str(Path.home()) + "/", "site-packages", ".py", 'File "', "Traceback", "pkg.torch"):
        assert trace.encode() not in text


def test_weights_are_inside_the_file(graph):
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    assert sum(numpy_helper.to_array(tensor).size for tensor in graph.graph.initializer) > 15e6


@pytest.mark.parametrize("request_", [FP16, FP32], ids=["fp16", "fp32"])
def test_the_same_request_is_reused(folder, exports, request_):
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert ensure_exported(request_, folder) == folder / request_.onnx_name()
    assert exports == []
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before


@pytest.mark.parametrize(
    "other",
    [
        replace(FP32, seed=1),
        replace(FP32, batch=2),
        replace(FP32, raw=True),
        replace(FP32, width=192),
        replace(FP32, model="rtdetr_r18"),
    ],
    ids=["seed", "batch", "raw", "width", "model"],
)
def test_another_request_is_exported(folder, exports, other):
    ensure_exported(other, folder)
    assert exports == [other]


def test_other_weights_are_exported(folder, exports, tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"other")
    ensure_exported(replace(FP32, weights=weights), folder)
    assert len(exports) == 1


def rewrite(path, data):
    """Another file under this name; the one it was linked to stays."""
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("file", [f"{MODEL}.onnx", f"{MODEL}.golden.npz", f"{MODEL}.contract.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damaged_or_missing_files_are_exported_again(copied, exports, file, damage):
    path = copied / file
    data = path.read_bytes()
    assert existing(FP32, copied)
    if damage == "missing":
        path.unlink()
    else:
        rewrite(path, data[:1000] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    ensure_exported(FP32, copied)
    assert exports == [FP32]


@pytest.mark.parametrize("weights", [{"source": "random"}, {}], ids=str)
def test_a_contract_that_does_not_say_which_weights_counts_as_others(copied, exports, weights):
    path = copied / f"{MODEL}.contract.json"
    data = json.loads(path.read_text())
    data["made_by"]["weights"] = weights
    rewrite(path, json.dumps(data).encode())
    ensure_exported(FP32, copied)
    assert exports == [FP32]


def test_trained_weights_are_replaced_by_random_ones_only_where_that_was_asked_for(copied, exports, tmp_path):
    path = copied / f"{MODEL}.contract.json"
    data = json.loads(path.read_text())
    data["made_by"]["weights"] = {"source": "hugging-face", "file": "best.pth", "sha256": "ab" * 32}
    rewrite(path, json.dumps(data).encode())
    for request in (FP32, FP16, replace(FP32, width=192)):
        with pytest.raises(ArtifactError, match=r"trained weights \(best\.pth\).*give --weights"):
            ensure_exported(request, copied)
    assert exports == []
    ensure_exported(FP32, copied, replace_trained=True)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"better")
    ensure_exported(replace(FP32, weights=weights), copied)
    assert len(exports) == 2


def test_another_seed_of_what_a_checkpoint_leaves_open_is_another_export(copied, exports, tmp_path, capsys):
    weights = tmp_path / "baseline.safetensors"
    weights.write_bytes(b"without FINE")
    path = copied / f"{MODEL}.contract.json"
    data = json.loads(path.read_text())
    data["made_by"]["weights"] = {"source": "ours", "file": weights.name, "sha256": sha256_of(weights), "seed": 0}
    rewrite(path, json.dumps(data).encode())
    ensure_exported(replace(FP32, weights=weights), copied)
    assert exports == []
    ensure_exported(replace(FP32, weights=weights, seed=3), copied)
    assert exports == [replace(FP32, weights=weights, seed=3)]
    assert "seed 0 of what the checkpoint does not fill, now 3" in " ".join(capsys.readouterr().err.split())


def test_what_is_exported_again_is_said_and_a_file_of_somebodys_stays(copied, exports, tmp_path, capsys):
    ensure_exported(replace(FP32, width=192, seed=3), copied)
    assert "exporting again (size 160x160, now 160x192)" in " ".join(capsys.readouterr().err.split())
    ensure_exported(replace(FP32, seed=3), copied)
    assert "random weights (seed 0), now random ones (seed 3)" in " ".join(capsys.readouterr().err.split())
    foreign = tmp_path / f"{MODEL}.onnx"
    foreign.write_bytes(b"of ultralytics")
    for request in (FP32, FP16):
        with pytest.raises(ArtifactError, match=r"this file of somebody's -> name the file itself \(.*\.onnx\)"):
            ensure_exported(request, tmp_path)
    assert foreign.read_bytes() == b"of ultralytics"
    assert len(exports) == 2


def test_code_that_changed_means_another_export(folder, exports, monkeypatch):
    monkeypatch.setattr(machine, "source_sha256", lambda: "other")
    ensure_exported(FP32, folder)
    assert exports == [FP32]


def test_a_changed_lowering_is_changed_code(tmp_path, monkeypatch):
    """Also in a folder below one of the sources."""
    package = tmp_path / "fine_edge"
    shutil.copytree(Path(fine_edge.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(machine.fine_edge, "__file__", str(package / "__init__.py"))
    before = machine.source_sha256()
    with (package / "zoo" / "rtdetr" / "decoder.py").open("a") as file:
        file.write("# changed\n")
    assert machine.source_sha256() != before


def test_exporting_is_deterministic_and_the_other_precision_stays_in_the_contract(copied, contract):
    """FP32 alone again, next to an FP16 file of the very same export."""
    (copied / f"{MODEL}.golden.npz").unlink()
    ensure_exported(FP32, copied)
    assert set(read_contract(copied / f"{MODEL}.contract.json").artifacts) == set(contract.artifacts)
    assert sha256_of(copied / f"{MODEL}.onnx") == contract.artifacts[0].sha256
    assert sha256_of(copied / f"{MODEL}.golden.npz") == contract.golden["sha256"]
    assert existing(FP16, copied)
    assert existing(FP32, copied)


@pytest.mark.slow
def test_a_batch_of_a_baseline_checkpoint_with_fine_at_identity_gives_the_baselines_raw_outputs(scratch):
    """The graph gives the golden outputs, and those are, to the bit, what the baseline itself finds in PyTorch.

    A baseline of one decoder layer, since each takes seconds to trace.
    """
    weights = scratch / "hugging-face"
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        baseline = RTDetrForObjectDetection(rtdetr_config("r18", decoder_layers=1))
        family_of("rtdetr").randomise(baseline)
    baseline.save_pretrained(weights)
    request = ExportRequest(MODEL, weights, height=128, width=160, batch=2, raw=True)
    path = ensure_exported(request, scratch / "weights")
    contract = read_contract(contract_path(path))
    assert not contract.postprocessed
    assert [(s.name, s.shape) for s in contract.outputs] == [("logits", (2, 300, 80)), ("boxes", (2, 300, 4))]
    assert contract.inputs[0].shape == (2, 3, 128, 160)
    assert not contract.random_weights
    assert str(scratch) not in contract_path(path).read_text()
    assert existing(request, scratch / "weights") == path
    report = against_golden(path, OrtRunner(path))
    assert report.ok, report.to_json()

    baseline = load(find("rtdetr_r18"), weights)
    with np.load(path.parent / contract.golden["file"], allow_pickle=False) as golden:
        for case in ("photographs", "noise"):
            images = torch.from_numpy(golden[f"{case}/images"])
            with torch.inference_mode():
                expected = family_of("rtdetr").reference(baseline.model, images, raw=True).outputs
            assert set(expected) == {"logits", "boxes"}
            for name, values in expected.items():
                np.testing.assert_array_equal(golden[f"{case}/{name}"], values.numpy())
