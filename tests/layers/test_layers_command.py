import json

import engine_files as files
import pytest
from PIL import Image

from fine_edge.cli import layers as command
from fine_edge.cli import target
from fine_edge.cli.layers import main
from fine_edge.errors import ConfigError


@pytest.fixture
def paths(tmp_path):
    return {
        "layers": files.write_layers_json(tmp_path / "fine.layers.json", files.FINE),
        "profile": files.write_profile_json(tmp_path / "fine.profile.json", files.FINE, files.FINE_MS),
        "times": files.write_times_json(tmp_path / "times.json", [7.1, 7.2, 7.3]),
        "baseline": files.write_layers_json(tmp_path / "base.layers.json", files.BASELINE),
        "baseline-profile": files.write_profile_json(tmp_path / "base.profile.json", files.BASELINE, files.BASELINE_MS),
    }


def arguments(paths):
    return [str(paths["layers"]), *(part for key in list(paths)[1:] for part in (f"--{key}", str(paths[key])))]


def test_tables_picture_and_json_say_the_same(paths, tmp_path, capsys):
    assert main([*arguments(paths), "--picture", str(tmp_path / "p.png")]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "fine.layers.json, timed in fine.profile.json" in out
    assert "compute 7.200 ms, latency (H2D + compute + D2H) 7.500 ms" in out
    assert "What FINE costs" in out
    with Image.open(tmp_path / "p.png") as image:
        assert image.width > 800
    assert main([*arguments(paths), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["compute_ms"] == 7.2
    assert {part["part"]: part["kernels"] for part in data["parts"]}["FINE"] == 2
    assert data["cost"]["summary"] in out


def test_options_that_do_not_fit_are_refused(paths, tmp_path):
    with pytest.raises(ConfigError, match="needs --baseline"):
        main([str(paths["layers"]), "--baseline-profile", str(paths["profile"])])
    with pytest.raises(ConfigError, match="it has no times"):
        main([str(tmp_path / "m.onnx"), "--profile", str(paths["profile"])])


def test_a_model_is_exported_in_fp16_and_compiled(paths, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(target, "ensure_exported", lambda request, folder: asked.append(request) or folder / "m.onnx")
    monkeypatch.setattr(command, "from_onnx", lambda _path, _size: command.from_trtexec(paths["layers"], None, None))
    monkeypatch.setattr(command, "input_size_of", lambda _given, _path: None)
    assert main(["rtdetr_r18_fine", "--baseline", "rtdetr_r18", "--artifacts", str(tmp_path)]) == 0
    assert [(request.model, request.precision) for request in asked] == [
        ("rtdetr_r18_fine", "fp16"),
        ("rtdetr_r18", "fp16"),
    ]
    assert "What FINE costs" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="it has no times"):
        main(["rtdetr_r18", "--profile", str(paths["profile"])])
    assert len(asked) == 2
