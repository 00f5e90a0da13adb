"""The command as people and scripts use it."""

from __future__ import annotations

import json

import pytest
from onnx import TensorProto
from small_graphs import attention

from fine_edge.cli import engine as command
from fine_edge.cli.engine import main
from fine_edge.engine import adopt, build
from fine_edge.engine.manifest import manifest_path
from fine_edge.engine.platform import Platform
from fine_edge.errors import ArtifactError, BackendError, ConfigError, UnknownModelError
from fine_edge.export import artifacts

pytestmark = pytest.mark.host


def test_build_gives_the_agreed_json(tmp_path, capsys):
    path = attention(tmp_path / "m.fp16.onnx", 16)
    command = ["build", str(path), "--target", "rtx-sm86", "--out", str(tmp_path), "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["engine"] == str(tmp_path / "m.fp16.rtx-sm86.engine")
    assert found["manifest"] == f"{found['engine']}.json"
    assert (found["target"], found["precision"], found["fused_attention"]) == ("rtx-sm86", "fp16", 1)
    assert found["kernels"] >= 1
    assert found["activation_mib"] > 0
    assert found["weights_mib"] >= 0
    assert found["build_s"] > 0
    assert not found["reused"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == found | {"reused": True}


def test_people_are_told_what_was_built_and_what_it_is_not(tmp_path, capsys):
    path = attention(tmp_path / "m.fp16.onnx", 16)
    command = ["build", str(path), "--target", "rtx-sm86", "--out", str(tmp_path)]
    assert main(command) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert ": built" in told
    assert "not an Orin figure" in told
    assert main(command) == 0
    assert "already there, nothing to do" in " ".join(capsys.readouterr().out.split())


def test_verify_says_whether_file_and_manifest_belong_together(tmp_path, capsys):
    main(["build", str(attention(tmp_path / "m.fp16.onnx", 16)), "--target", "rtx-sm86", "--out", str(tmp_path)])
    engine = tmp_path / "m.fp16.rtx-sm86.engine"
    capsys.readouterr()
    assert main(["verify", str(engine)]) == 0
    told = capsys.readouterr().out
    assert "compile check for SM86" in told
    assert "not compared" not in told
    (tmp_path / "m.fp16.onnx").rename(tmp_path / "elsewhere.onnx")
    assert main(["verify", str(engine)]) == 0
    assert "not compared with m.fp16.onnx" in " ".join(capsys.readouterr().out.split())
    assert main(["verify", str(engine), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    with pytest.raises(BackendError, match="cannot run in TensorRT"):
        main(["verify", str(engine), "--for-this-machine"])
    engine.write_bytes(b"cut")
    with pytest.raises(ArtifactError, match="changed or cut"):
        main(["verify", str(engine)])


@pytest.mark.parametrize("source", ["rtdetr_r18", "FILE"])
def test_weak_typing_is_refused_on_tensorrt_11_before_anything_is_done(tmp_path, jetson, source):
    """Preflight is skipped, the checks of memory that is; the refusal is not."""
    path = attention(tmp_path / "m.onnx", 16, TensorProto.FLOAT)
    (tmp_path / "p.plan").write_bytes(b"a plan")
    platform = Platform(tensorrt="11.4.0.106", cuda="13.2", gpu="Orin", sm=87)
    for module in (command, build, adopt):
        jetson.setattr(module, "here", lambda: platform)
    given = str(path) if source == "FILE" else source
    for arguments in (["build", given, "--skip-preflight"], ["adopt", str(tmp_path / "p.plan"), "--onnx", str(path)]):
        with pytest.raises(BackendError, match="has no FP16 flag, which fp16-weak sets -> --precision fp16"):
            main([*arguments, "--precision", "fp16-weak", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("jetson")
def test_on_a_jetson_verify_and_adopt_work_on_its_own_engines(tmp_path, capsys):
    path, out = attention(tmp_path / "m.fp16.onnx", 16), tmp_path / "out"
    (tmp_path / "p.plan").write_bytes(b"a plan")
    assert main(["adopt", str(tmp_path / "p.plan"), "--onnx", str(path), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kernels"] == 2
    assert main(["verify", str(out / "m.fp16.engine"), "--for-this-machine"]) == 0
    assert "may run here" in capsys.readouterr().out


def test_an_engine_of_a_jetson_is_refused_here(tmp_path, jetson, capsys):
    path = attention(tmp_path / "m.fp16.onnx", 16)
    assert main(["build", str(path), "--out", str(tmp_path)]) == 0
    assert "Orin, SM87" in capsys.readouterr().out
    jetson.undo()
    import sys

    sys.modules.pop("tensorrt")
    with pytest.raises(BackendError, match=r"TensorRT 10\.7\.0, here none; GPU Orin, here none"):
        main(["verify", str(tmp_path / "m.fp16.engine")])


@pytest.mark.usefixtures("jetson")
def test_without_onnx_and_torch_the_line_says_how_to_get_the_onnx(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "can_export", lambda: False)
    with pytest.raises(ArtifactError) as caught:
        main(["build", "rtdetr_r18_fine", "--out", str(tmp_path)])
    line = str(caught.value)
    assert line.startswith(str(tmp_path / "rtdetr_r18_fine.fp16.onnx"))
    assert "there is no torch here to export it" in line
    assert "on a host with torch: make onnx MODEL=rtdetr_r18_fine, and copy" in line


def test_without_tensorrt_nothing_is_exported_first(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "ensure_exported", lambda *_: pytest.fail("exported for nothing"))
    with pytest.raises(BackendError, match="TensorRT is not on this machine"):
        main(["build", "rtdetr_r18_fine", "--out", str(tmp_path)])


def test_a_model_that_is_there_is_built_as_it_is(tmp_path, capsys):
    attention(tmp_path / "rtdetr_r18.fp16.onnx", 16)  # in the place of an export with somebody's own weights
    assert main(["build", "rtdetr_r18", "--target", "rtx-sm86", "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["engine"].endswith("rtdetr_r18.fp16.rtx-sm86.engine")


def test_the_command_line_wins_over_the_recipe(tmp_path, capsys):
    (tmp_path / "m.json").write_text('{"model": "m", "build": {"optimization_level": 1, "target": "rtx-sm86"}}')
    path = attention(tmp_path / "m.onnx", 16, TensorProto.FLOAT)
    command = ["build", str(path), "--recipes", str(tmp_path), "--out", str(tmp_path), "--json"]
    assert main([*command, "--optimization-level", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    manifest = json.loads(manifest_path(tmp_path / "m.fp32.rtx-sm86.engine").read_text())
    assert (found["target"], found["precision"]) == ("rtx-sm86", "fp32")
    assert manifest["options"]["optimization_level"] == 4


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["build", "rtdetr_r18_fin"], UnknownModelError, "nearest: rtdetr_r18_fine"),
        (["build", "none.onnx"], ArtifactError, "no such file"),
        (["build", "rtdetr_r18", "--optimization-level", "7"], ConfigError, "0 to 5"),
        (["build", "rtdetr_r18", "--precision", "fp16-weak", "--target", "rtx-sm86"], ConfigError, "no FP16 flag"),
        (["build", "rtdetr_r18", "--precision", "fp16-weak", "--keep-fp32", "none"], ConfigError, "keep-list"),
        (["verify", "none.engine"], ArtifactError, "no such engine file"),
        (["adopt", "none.plan", "--onnx", "none.onnx"], ArtifactError, "no such file"),
    ],
)
def test_bad_input_is_one_line(arguments, error, words):
    with pytest.raises(error) as caught:
        main(arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("jetson")
def test_a_plan_of_an_fp32_graph_is_taken_over_only_with_its_precision(tmp_path, capsys):
    path = attention(tmp_path / "m.onnx", 16, TensorProto.FLOAT)
    (tmp_path / "p.plan").write_bytes(b"a plan")
    command = ["adopt", str(tmp_path / "p.plan"), "--onnx", str(path), "--out", str(tmp_path / "out"), "--json"]
    with pytest.raises(ConfigError, match="--precision fp16-weak if trtexec was given --fp16"):
        main(command)
    assert main([*command, "--precision", "fp16-weak"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "fp16-weak"
