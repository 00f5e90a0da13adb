"""The commands, on what can be had without torch and without NVIDIA's compiler."""

import json

import pytest
import works

from fine_edge.bench.record import read_record
from fine_edge.cli import bench as bench_command
from fine_edge.cli import estimate as command
from fine_edge.cli.bench import main as bench
from fine_edge.errors import ArtifactError, ConfigError, OutputError, RecordError, UnknownModelError
from fine_edge.estimate import validate
from fine_edge.estimate.variants import variants


@pytest.fixture
def compiled(monkeypatch, tmp_path):
    """Recorded engines in the place of exports and compilations."""
    engines = works.recorded()
    one = engines["rtdetr_r18_fine"]
    monkeypatch.setattr(command, "engine_work", lambda *_: one)
    monkeypatch.setattr(command, "export_row", lambda *_, **__: tmp_path)
    monkeypatch.setattr(validate, "compile_rows", lambda rows, *_: [engines[row.model] for row in rows])
    monkeypatch.setattr(command, "compile_tables", lambda *_: list(engines.values()))


@pytest.mark.usefixtures("compiled")
def test_an_estimate_as_table_json_and_picture(tmp_path, capsys):
    assert command.main(["rtdetr_r18_fine", "--out", str(tmp_path), "--picture", str(tmp_path / "p.png")]) == 0
    shown = capsys.readouterr().out
    assert "ESTIMATE" in shown
    assert "FINE: attention" in shown
    assert command.main(["rtdetr_r18_fine", "--out", str(tmp_path), "--mode", "15W", "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["estimate"], data["mode"]) == (True, "15W")


def test_what_is_wrong_is_said_before_anything_is_compiled(tmp_path):
    with pytest.raises(UnknownModelError):
        command.main(["rtdetr_r81"])
    with pytest.raises(ConfigError, match="no device is called"):
        command.main(["rtdetr_r18", "--device", "nano"])
    with pytest.raises(ArtifactError, match="no such file"):
        command.main([str(tmp_path / "missing.onnx")])
    with pytest.raises(ConfigError, match="say which mode"):
        command.main(["calibrate", str(tmp_path / "r.json")])
    with pytest.raises(ConfigError, match="only published latencies are drawn"):
        command.main(["calibrate", str(tmp_path / "r.json"), "--mode", "15W", "--picture", str(tmp_path / "p.png")])


@pytest.mark.usefixtures("compiled")
def test_validation_by_either_command(capsys):
    assert command.main(["validate", "--json", "-"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert bench(["--suite", "validate-predictor", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert len(first["rows"]) == 14
    assert set(first["median_abs_error_by_mode"]) >= {"15W", "25W", "MAXN_SUPER"}


@pytest.mark.usefixtures("compiled")
def test_a_suite_by_the_bench_and_that_it_is_no_record(tmp_path, capsys):
    path = tmp_path / "estimates.json"
    files = {kind: tmp_path / f"estimates.{kind}" for kind in ("csv", "markdown", "picture")}
    options = [word for kind, file in files.items() for word in (f"--{kind}", str(file))]
    assert bench(["--backend", "predict", "--suite", "table3", "--json", str(path), *options]) == 0
    shown = capsys.readouterr().out
    assert "ESTIMATE" in shown
    assert "(Orin" in shown
    assert "17.74" in shown, "vanilla attention in the paper"
    data = json.loads(path.read_text())
    assert data["estimate"] is True
    assert len(data["rows"]) == 6
    assert files["csv"].read_text().count("rtdetr_r18") == 6
    assert "| rtdetr_r18_fine_vanilla |" in files["markdown"].read_text()
    assert files["picture"].read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RecordError, match="never shown or compared as measurements"):
        read_record(path)
    with pytest.raises(RecordError, match="never shown or compared as measurements"):
        bench(["compare", str(path), str(path)])


def test_calibration_again_on_what_others_published(tmp_path, capsys):
    assert command.main(["calibrate", "--out", str(tmp_path / "c.json"), "--csv", str(tmp_path / "c.csv")]) == 0
    assert "kernel_clocks" in capsys.readouterr().out
    assert "FP16, orin-nx-16gb" in (tmp_path / "c.csv").read_text()
    assert json.loads((tmp_path / "c.json").read_text())["origin"].startswith("latencies that others published")


def test_a_record_without_gpu_times_cannot_calibrate():
    record = "bench/results/table3_onnxruntime_x86.json"
    with pytest.raises(RecordError, match="holds no GPU times"):
        command.main(["calibrate", record, "--mode", "15W"])


@pytest.mark.usefixtures("compiled")
def test_a_sweep(tmp_path, capsys):
    assert command.sweep(["--over", "r", "--out", str(tmp_path)], lambda _, folder: folder) == 0
    shown = capsys.readouterr().out
    assert "without FINE" in shown
    assert "r 2 (paper)" in shown
    assert (tmp_path / "sweep_r.png").is_file()
    path = tmp_path / "sweep.json"
    assert command.sweep(["--over", "k", "--out", str(tmp_path), "--json", str(path)], lambda _, f: f) == 0
    assert [row["model"] for row in json.loads(path.read_text())["rows"]] == ["rtdetr_r18_fine"] * 5


def test_a_result_that_could_not_be_written_is_refused_first(tmp_path):
    folder = tmp_path / "folder.json"
    folder.mkdir()
    for argv in (["rtdetr_r18"], ["sweep", "--over", "r"], ["validate"]):
        with pytest.raises(OutputError, match="a file name is needed"):
            command.main([*argv, "--json", str(folder)])
    with pytest.raises(OutputError, match="a file name is needed"):
        command.main(["calibrate", "--out", str(tmp_path)])
    with pytest.raises(OutputError, match="a file name is needed"):
        bench(["--backend", "predict", "--picture", str(tmp_path)])


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("depth", None),
        ("r", "x"),
        ("attention", "full"),
        ("input-size", "600"),
        ("k", "1,,2"),
        ("k", "1:2:4"),
        ("r", "0"),
    ],
)
def test_sweeps_that_cannot_be(axis, values):
    with pytest.raises(ConfigError):
        variants(axis, values)


def test_each_input_size_has_a_detector_without_fine_to_compare_with():
    sizes = variants("input-size", "480,640")
    assert [point.without_fine.label for point in sizes] == ["without FINE, 480", "without FINE, 640"]
    assert len({point.without_fine for point in variants("k", None)}) == 1


def test_the_bench_knows_when_it_is_asked_for_estimates():
    assert bench_command._wants_estimates(["--backend", "predict"])
    assert bench_command._wants_estimates(["--backend=predict"])
    assert bench_command._wants_estimates(["--suite", "validate-predictor"])
    assert not bench_command._wants_estimates(["--backend", "ort", "--suite", "table3"])
    with pytest.raises(ConfigError, match="known: ort, trt, predict"):
        bench(["--backend", "onnx"])
