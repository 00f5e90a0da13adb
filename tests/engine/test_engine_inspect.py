"""Real compilations with TensorRT-RTX, of graphs small enough to take a fraction of a second."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys

import pytest
from small_graphs import attention, mismatched

from fine_edge.cli.engine import main
from fine_edge.engine import platform, supervise
from fine_edge.engine.inspect import inspect
from fine_edge.errors import ArtifactError, BackendError, MissingExtraError

pytestmark = pytest.mark.host


def test_head_dim_16_is_fused(tmp_path):
    found = inspect(attention(tmp_path / "m.onnx", 16))
    (fused,) = [kernel for kernel in found.compiled.kernels if kernel.is_fused_attention]
    assert "/fine/Softmax" in fused.onnx_nodes
    assert found.compiler.startswith("TensorRT-RTX 1.")
    assert found.compile_s > 0


def test_head_dim_8_is_not_fused_and_needs_more_memory(tmp_path):
    narrow, wide = (inspect(attention(tmp_path / f"{d}.onnx", d)).compiled for d in (8, 16))
    assert narrow.fused_attention == 0
    assert wide.fused_attention == 1
    assert narrow.activation_bytes > wide.activation_bytes


def test_json_names_target_compiler_and_file(tmp_path, capsys):
    path = attention(tmp_path / "m.onnx", 16)
    assert main(["inspect", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == [
        *(
            "target",
            "kernels",
            "fused_attention",
            "activation_mib",
            "weights_mib",
            "compile_s",
            "compiler",
            "onnx_sha256",
            "inputs",
        )
    ]
    assert report["target"] == "rtx-sm86"
    assert report["fused_attention"] == 1
    assert report["onnx_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_table_says_what_it_is_not(tmp_path, capsys):
    assert main(["inspect", str(attention(tmp_path / "m.onnx", 16))]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "fused attentions" in out
    assert "SM86 on this machine's CPU" in out
    assert "not an Orin figure" in out


def test_a_broken_graph_is_one_line_with_node_and_reason(tmp_path):
    command = [sys.executable, "-m", "fine_edge", "engine", "inspect", str(mismatched(tmp_path / "m.onnx"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "/head/MatMul (MatMul)" in done.stderr
    assert "last dimension of input0 = 4 and second to last dimension of input1 = 5" in done.stderr


def test_a_file_that_is_no_model_never_reaches_the_compiler(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError):
        inspect(tmp_path / "m.onnx")


def test_an_endless_build_is_stopped(tmp_path):
    with pytest.raises(BackendError, match=r"stopped after 0\.01 s"):
        inspect(attention(tmp_path / "m.onnx", 16), timeout_s=0.01)


@pytest.mark.parametrize("absent", ["tensorrt_rtx", "polygraphy", "polygraphy.backend.tensorrt_rtx"])
def test_without_the_extra_the_install_line_is_given(tmp_path, monkeypatch, absent):
    found = importlib.util.find_spec
    for module in (platform, supervise):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == absent else found(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'fine-edge\[rtx\]'"):
        inspect(attention(tmp_path / "m.onnx", 16))


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "soon"])
def test_a_time_limit_must_be_a_positive_number(limit, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["inspect", "m.onnx", "--timeout-s", limit])
    assert "--timeout-s" in capsys.readouterr().err
