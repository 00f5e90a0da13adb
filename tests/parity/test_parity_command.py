"""``python -m fine_edge parity`` on the tiny detector's golden file, and end to end on a small export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_detector import KNOWN, SIZE, write_detector

from fine_edge.cli.parity import main
from fine_edge.contract import contract_path, read_contract
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.export.request import ExportRequest
from fine_edge.files import sha256_of
from fine_edge.runners.ort import OrtRunner


def tiny(folder: Path, **changed) -> Path:
    """The tiny detector with a golden file of its known answers, some of them changed."""
    path = write_detector(folder)
    images = np.random.default_rng(0).random((1, 3, SIZE, SIZE), dtype=np.float32)
    arrays = {"images": images} | KNOWN | changed
    golden = folder / "tiny.golden.npz"
    np.savez(golden, **{f"noise/{name}": array for name, array in arrays.items() if array is not None})
    contract = read_contract(contract_path(path))
    bound = replace(contract, golden={"file": golden.name, "sha256": sha256_of(golden)})
    contract_path(path).write_text(bound.to_text(), encoding="utf-8")
    return path


def test_golden_outputs_that_agree(tmp_path, capsys):
    assert main([str(tiny(tmp_path)), "--golden", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True
    assert found["reference"] == "golden (pytorch-cpu)"
    assert found["detections"]["matched"] == 3
    assert main([str(tmp_path / "tiny.onnx"), "--golden"]) == 0
    shown = capsys.readouterr().out
    assert "boxes_xyxy" in shown
    assert "random weights" in shown


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--golden", "--images", "."], "--images: is not used: the golden file"),
        (["--golden", "--weights", "a.pth"], "--weights: is not used"),
        (["--seed", "4"], "--seed: is for a model, and tiny.onnx is a file"),
    ],
)
def test_options_that_would_not_be_heeded_are_refused(tmp_path, given, says):
    with pytest.raises(ConfigError, match=says):
        main([str(write_detector(tmp_path)), *given])


def test_golden_outputs_that_differ_fail_and_name_the_worst(tmp_path, capsys):
    boxes = KNOWN["boxes_xyxy"].copy()
    boxes[0, 1, 3] -= 2
    assert main([str(tiny(tmp_path, boxes_xyxy=boxes)), "--golden", "--json"]) == 1
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["ok"] is False
    assert (found["worst"]["output"], found["worst"]["max_abs"]) == ("boxes_xyxy", 2.0)
    assert "worst is boxes_xyxy" in shown.err


@pytest.mark.parametrize("damage", ["missing", "changed", "unnamed", "lacks an output", "no golden"])
def test_golden_files_that_cannot_be_used_are_one_line(tmp_path, damage):
    path = tiny(tmp_path, scores=None) if damage == "lacks an output" else tiny(tmp_path)
    golden = tmp_path / "tiny.golden.npz"
    if damage == "missing":
        golden.unlink()
    elif damage == "changed":
        golden.write_bytes(golden.read_bytes()[:-1])
    elif damage == "unnamed":
        contract = replace(read_contract(contract_path(path)), golden={})
        contract_path(path).write_text(contract.to_text(), encoding="utf-8")
    elif damage == "no golden":
        golden.write_bytes(b"not a zip")
        contract = read_contract(contract_path(path))
        bound = replace(contract, golden={"file": golden.name, "sha256": sha256_of(golden)})
        contract_path(path).write_text(bound.to_text(), encoding="utf-8")
    with pytest.raises(ArtifactError, match="golden") as caught:
        main([str(path), "--golden"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "feed",
    [
        {"pictures": np.zeros((1, 3, SIZE, SIZE), np.float32)},
        {},
        {"images": np.zeros((1, 3, SIZE, SIZE + 1), np.float32)},
        {"images": np.zeros((1, 3, SIZE, SIZE), np.float64)},
        {"images": np.zeros((3, SIZE, SIZE), np.float32)},
    ],
    ids=["name", "nothing", "shape", "type", "rank"],
)
def test_a_runner_says_in_one_line_what_it_cannot_run(tmp_path, feed):
    path = write_detector(tmp_path)
    with pytest.raises(ArtifactError, match="ONNX Runtime cannot run the model") as caught:
        OrtRunner(path).run(feed)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_golden_inputs_of_another_shape_are_one_line(tmp_path):
    path = tiny(tmp_path, images=np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(ArtifactError, match=r"golden file holds .* bytes for 'noise/images\.npy'"):
        main([str(path), "--golden"])


@pytest.mark.host
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_model_from_export_to_report(export_store, precision, capsys):
    """The command finds both files exported already; tests/bench/test_exports.py holds that it exports missing ones."""
    out = str(export_store.folder_of(ExportRequest("rtdetr_r18_fine", precision="fp16", height=160, width=160)))
    arguments = ["rtdetr_r18_fine", "--input-size", "160", "--precision", precision, "--out", out, "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["precision"], found["random_weights"]) == (precision, True)
    assert len(found["inputs"]) == 4
    assert found["detections"]["matched"] > 1000
    assert found["worst"]["max_abs"] > 0
