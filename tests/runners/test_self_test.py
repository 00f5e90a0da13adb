"""The doctor's own engine: its network compiles for real, its way is walked on the fakes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from runners.engines import plan_bytes, write_engine
from runners.fixtures import device  # noqa: F401 - a fixture

from fine_edge.doctor import backends
from fine_edge.doctor import self_test as module
from fine_edge.doctor.self_test import SHAPE, main, self_test, write_mean
from fine_edge.engine.build import Engine, obtain_engine
from fine_edge.engine.cuda import GpuInfo
from fine_edge.engine.manifest import read_manifest
from fine_edge.engine.options import BuildOptions
from fine_edge.errors import BackendError, MissingExtraError
from fine_edge.runners.ort import OrtRunner

PORTS = [
    {"name": "images", "is_input": True, "shape": list(SHAPE), "dtype": "float32"},
    {"name": "mean", "is_input": False, "shape": [1], "dtype": "float32"},
]


@pytest.fixture
def built(monkeypatch, device):  # noqa: F811 - the fixture
    """Engines that the fake TensorRT runs; its networks give means."""

    def build(onnx_path, options, out, *, skip_preflight):
        assert onnx.load(onnx_path).graph.output[0].name == "mean"
        assert skip_preflight
        engine = write_engine(out, plan_bytes(ports=PORTS), model="self_test", options=options)
        return Engine(engine, read_manifest(engine))

    monkeypatch.setattr(module, "obtain_engine", build)
    return device


def test_the_network_gives_the_mean(tmp_path):
    write_mean(tmp_path / "m.onnx")
    images = np.random.default_rng(1).random(SHAPE, dtype=np.float32)
    found = OrtRunner(tmp_path / "m.onnx").run({"images": images})["mean"]
    assert found.shape == (1,)
    assert found[0] == pytest.approx(images.mean(), abs=1e-6)


@pytest.mark.host
def test_nvidias_compiler_takes_the_network(tmp_path):
    write_mean(tmp_path / "m.onnx")
    engine = obtain_engine(tmp_path / "m.onnx", BuildOptions("fp32", "rtx-sm86"), tmp_path)
    assert engine.manifest.kernels >= 1


def test_an_engine_is_built_run_and_freed(built, capsys):
    assert main([]) == 0
    assert capsys.readouterr().out == "built and ran an engine on Orin (TensorRT 10.7.0)\n"
    assert built.what()[-1] == "close"


def test_a_wrong_answer_is_said(built, monkeypatch):
    monkeypatch.setattr(module, "_TOLERANCE", -1.0)
    with pytest.raises(BackendError, match=r"returns 0\.\d{6} for a mean of 0\.\d{6}"):
        self_test()
    assert built.what()[-1] == "close"


def test_the_doctor_runs_it_where_a_device_answers_and_only_there(monkeypatch):
    ran = []
    monkeypatch.setattr(backends, "_python_output", lambda arguments: ran.append(arguments[-1]) or "10.7.0")
    monkeypatch.setattr(backends, "gpu_info", lambda: GpuInfo("Orin", 87, "12.6", 8 * 2**30))
    assert backends._run_tensorrt() == "10.7.0"
    assert ran == ["import tensorrt as m; print(m.__version__)", "fine_edge.doctor.self_test"]

    def absent():
        raise MissingExtraError("pycuda", "device")

    ran.clear()
    monkeypatch.setattr(backends, "gpu_info", absent)
    assert backends._run_tensorrt() == "10.7.0 loads"
    assert len(ran) == 1
