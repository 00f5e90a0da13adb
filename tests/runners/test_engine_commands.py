"""``predict`` and ``parity`` on an engine, with the fake TensorRT."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from runners.engines import JETSON, plan_bytes, write_engine
from tiny_detector import SIZE, open_batch, write_detector

from fine_edge.cli import predict
from fine_edge.cli.parity import main as parity
from fine_edge.contract import contract_path, read_contract
from fine_edge.engine.options import BuildOptions
from fine_edge.errors import ArtifactError, BackendError
from fine_edge.files import sha256_of


@pytest.fixture
def engine(tmp_path, device):
    """An engine of the tiny detector, with ONNX and contract beside it, which answers 0.5 to everything."""
    assert device.what() == []
    path = write_detector(tmp_path)
    contract = read_contract(contract_path(path))
    ports = [
        {"name": spec.name, "is_input": spec in contract.inputs, "shape": spec.shape, "dtype": spec.dtype}
        for spec in (*contract.inputs, *contract.outputs)
    ]
    sha256 = contract.artifacts[0].sha256
    return write_engine(tmp_path, plan_bytes(ports=ports), onnx_sha256=sha256, onnx_file=path.name)


def test_predict_gives_an_engine_its_smallest_batch(tmp_path, device, capsys):
    path = open_batch(write_detector(tmp_path), (2, 4, 8))
    contract = read_contract(contract_path(path))
    ports = [
        {"name": spec.name, "is_input": spec in contract.inputs, "shape": [-1, *spec.shape[1:]], "dtype": spec.dtype}
        | {"profile": [[batch, *spec.shape[1:]] for batch in (2, 4, 8)]}
        for spec in (*contract.inputs, *contract.outputs)
    ]
    engine = write_engine(
        tmp_path,
        plan_bytes(ports=ports),
        onnx_sha256=contract.artifacts[0].sha256,
        onnx_file=path.name,
        options=BuildOptions(batches=(2, 4, 8)),
    )
    arguments = [str(grey(tmp_path)), "--engine", str(engine), "--out", str(tmp_path / "out"), "--json"]
    assert predict.main([*arguments, "--threshold", "0.4"]) == 0
    assert len(json.loads(capsys.readouterr().out)["detections"]) == 3
    assert [entry[2][0] for entry in device.journal if entry[0] == "shape"] == [8, 2]


def grey(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((SIZE, SIZE, 3), 128, np.uint8)).save(path)
    return path


def test_predict_runs_an_engine(tmp_path, engine, device, capsys):
    arguments = [str(grey(tmp_path)), "--engine", str(engine), "--out", str(tmp_path / "out"), "--json"]
    assert predict.main([*arguments, "--threshold", "0.4"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["backend"], answer["model"]) == ("tensorrt", "tiny")
    assert answer["artifact_sha256"] == sha256_of(tmp_path / "tiny.onnx")
    assert [found["score"] for found in answer["detections"]] == [pytest.approx(128 / 255, abs=1e-4)] * 3
    assert device.what()[-1] == "close"


def golden(tmp_path, engine):
    """Golden outputs as the fake engine gives them: the mean of the input everywhere."""
    images = np.full((1, 3, SIZE, SIZE), 0.5, np.float32)
    contract = read_contract(contract_path(tmp_path / "tiny.onnx"))
    arrays = {spec.name: np.full(spec.shape, 0.5, spec.dtype) for spec in contract.outputs}
    path = tmp_path / "tiny.golden.npz"
    np.savez(path, **{f"noise/{name}": array for name, array in (arrays | {"images": images}).items()})
    bound = replace(contract, golden={"file": path.name, "sha256": sha256_of(path)})
    contract_path(tmp_path / "tiny.onnx").write_text(bound.to_text(), encoding="utf-8")
    return engine


def test_parity_holds_an_engine_against_the_golden_outputs_of_its_onnx(tmp_path, engine, device, capsys):
    assert parity([str(golden(tmp_path, engine)), "--golden", "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report["ok"] is True
    assert report["candidate"] == "tensorrt"
    assert report["precision"] == "fp16", "a weakly typed engine of an FP32 graph computes in FP16"
    assert device.what()[-1] == "close"


def test_parity_refuses_an_engine_of_another_onnx(tmp_path, engine, device):
    other = write_engine(tmp_path, engine.read_bytes(), onnx_sha256="1" * 64, onnx_file="tiny.onnx")
    with pytest.raises(ArtifactError, match="built from another ONNX"):
        parity([str(other), "--golden"])
    assert device.what() == []


def test_a_foreign_engine_is_refused_by_both(tmp_path, engine, device, monkeypatch):
    monkeypatch.setattr("fine_edge.runners.trt.here", lambda: replace(JETSON, tensorrt="10.3.0"))
    with pytest.raises(BackendError, match=r"TensorRT 10\.7\.0, here 10\.3\.0"):
        predict.main([str(grey(tmp_path)), "--engine", str(engine)])
    with pytest.raises(BackendError, match=r"TensorRT 10\.7\.0, here 10\.3\.0"):
        parity([str(golden(tmp_path, engine)), "--golden"])
    assert device.what() == []
