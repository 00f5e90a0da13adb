import json

import numpy as np
import onnx
import pytest
from PIL import Image
from tiny_bench import WEIGHTS, write_tiny_artifact, write_tiny_onnx

from fine_edge.bench import __main__ as cli
from fine_edge.bench import memory, prepare, session, suites
from fine_edge.bench.options import BenchOptions
from fine_edge.bench.record import read_record, write_record
from fine_edge.errors import ArtifactError, BackendError, ConfigError, FineEdgeError

TABLE3 = ["rtdetr_r18", *(f"rtdetr_r18_fine{x}" for x in ("_vanilla", "_window", "_area", "_linear", ""))]

TABLE1 = ["rtdetr_r18", "rtdetr_r18_fine", "rtdetr_r50", "rtdetr_r50_fine"]


@pytest.fixture
def no_child(monkeypatch):
    """Memory is measured in fresh processes; one test does so, the others need not."""
    monkeypatch.setattr(memory, "measure_peak_mib", lambda _path, _threads: 123.0)


@pytest.mark.usefixtures("tiny_exports")
def test_one_command_measures_table_3_and_writes_all_it_was_asked_for(tmp_path, capsys):
    files = {kind: tmp_path / f"t.{kind}" for kind in ("json", "csv", "markdown", "picture")}
    arguments = [part for kind, file in files.items() for part in (f"--{kind}", str(file))]
    assert (
        cli.main(["--rounds", "2", "--input-size", "64", "--threads", "1", "--out", str(tmp_path / "e"), *arguments])
        == 0
    )
    record = read_record(files["json"])
    assert [row.model for row in record.rows] == TABLE3
    assert record.images[0].startswith("skimage/")
    assert all(row.random_weights and row.mem_mib > 0 and row.params_m == 21.2 for row in record.rows)
    assert record.rows[0].paper["latency_ms"] == 12.81
    assert (record.rounds, record.threads, record.input_hw, record.quick) == (2, 1, (64, 64), False)
    printed = capsys.readouterr()
    assert "rtdetr_r18_fine_linear" in printed.out
    assert str(files["picture"]) in printed.err.replace("\n", "")
    assert files["markdown"].read_text(encoding="utf-8").count("\n| ") == 7
    assert len(files["csv"].read_text(encoding="utf-8").splitlines()) == 7
    assert files["picture"].stat().st_size > 10_000


@pytest.mark.usefixtures("tiny_exports", "no_child")
def test_json_on_standard_output_is_alone_there(tmp_path, capsys):
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    arguments = [
        "--quick",
        "--input-size",
        "64",
        "--images",
        str(tmp_path),
        "--out",
        str(tmp_path / "e"),
        "--json",
        "-",
    ]
    assert cli.main(arguments) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["quick"] is True
    assert data["rounds"] == 6
    assert data["images"] == ["grey.png"]
    assert data["harness"]["percent_of_baseline"] < 100
    assert all(len(row["samples_ms"]) == 6 for row in data["rows"])
    assert (tmp_path / "e" / "bench_table3.png").is_file()


@pytest.mark.usefixtures("tiny_exports", "no_child")
def test_the_exporters_suite_takes_a_plain_export_without_a_contract(tmp_path, monkeypatch, capsys):
    export_row = prepare.export_row

    def with_plain(row, folder, input_size, precision="fp32"):
        if row.exporter == "fine_edge":
            return export_row(row, folder, input_size, precision)
        write_tiny_onnx(folder / "plain.onnx", input_size)
        return folder / "plain.onnx"

    monkeypatch.setattr(prepare, "export_row", with_plain)
    assert (
        cli.main(["--suite", "exporters", "--rounds", "2", "--input-size", "64", "--out", str(tmp_path), "--json", "-"])
        == 0
    )
    plain, ours, fine = json.loads(capsys.readouterr().out)["rows"]
    assert plain["model"] == "rtdetr_r18 (plain torch.onnx)"
    assert plain["params_m"] is None
    assert plain["ratio"] == 1
    assert (ours["model"], fine["attention"]) == ("rtdetr_r18", "aats")
    assert (tmp_path / "raw" / "rtdetr_r18.onnx").is_file()


@pytest.mark.usefixtures("tiny_exports", "no_child")
def test_table_1_and_fp16_run_on_the_cpu_as_well(tmp_path, capsys):
    arguments = ["--suite", "table1", "--precision", "fp16", "--rounds", "2", "--input-size", "64", "--json", "-"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in data["rows"]] == TABLE1
    assert (data["precision"], data["backend"], data["platform"]) == ("fp16", "onnxruntime-cpu", None)
    assert [row["paper"]["fps"] for row in data["rows"]] == [80, 78, 40, 40]
    assert all(row["compute_ms"] is row["engine"] is row["state"] is None for row in data["rows"])


@pytest.mark.usefixtures("tiny_exports", "no_child")
def test_rtx_memory_is_added_where_the_compiler_works_and_missing_elsewhere(tmp_path, monkeypatch, capsys):
    def compiled(_arguments, where):
        if "vanilla" in where.name:
            raise BackendError("fine_edge.engine failed (this needs tensorrt-rtx)", where=where)
        return {"activation_mib": 32.06, "weights_mib": 37.2}

    monkeypatch.setattr(memory, "_child_json", compiled)
    assert cli.main(["--rounds", "2", "--input-size", "64", "--rtx", "--out", str(tmp_path), "--json", "-"]) == 0
    printed = capsys.readouterr()
    rows = {row["model"]: row["rtx"] for row in json.loads(printed.out)["rows"]}
    assert rows["rtdetr_r18"] == {"activation_mib": 32.06, "weights_mib": 37.2}
    assert rows["rtdetr_r18_fine_vanilla"] is None
    assert "this needs tensorrt-rtx" in printed.err


def test_a_record_is_shown_again_and_compared(record, tmp_path, capsys):
    path = tmp_path / "r.json"
    write_record(record, path)
    assert cli.main(["show", str(path), "--markdown", str(tmp_path / "r.md")]) == 0
    assert "rtdetr_r18_fine" in (tmp_path / "r.md").read_text(encoding="utf-8")
    assert cli.main(["compare", str(path), str(path)]) == 0
    assert "1.000" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "table9"], "table3"),
        (["--backend", "cuda"], "ort"),
        (["--rounds", "1"], "too few"),
        (["--threads", "0"], "at least 1"),
        (["--precision", "int8"], "known: fp32, fp16"),
        (["--precision", "fp16-weak"], "ort has no precision 'fp16-weak'"),
        (["--suite", "exporters", "--precision", "fp16"], "no FP16 form"),
        (["--cuda-graph"], "--cuda-graph: means nothing to the backend ort"),
        (["--profile", "{tmp}"], "--profile: means nothing"),
        (["--backend", "trt", "--threads", "2"], "--threads: means nothing to the backend trt"),
        (["--backend", "trt"], "TensorRT is not on this machine"),
        (["--input-size", "650"], "multiple of 32"),
        (["--images", "{tmp}/none"], "no such image"),
        (["--images", "{tmp}/empty"], "no image"),
        (["--images", "{tmp}/bad"], "cannot be decoded"),
        (["--json", "{tmp}/empty"], "is a folder"),
        (["--csv", "{tmp}/bad/x.png/y.csv"], "cannot be written"),
        (["show", "{tmp}/none.json"], "cannot be read"),
        (["compare", "{tmp}/bad/x.png", "{tmp}/bad/x.png"], "broken"),
    ],
)
def test_bad_input_is_one_line_with_a_mend(tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"not a picture")
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    monkeypatch.setattr("sys.argv", ["bench", *filled])
    with pytest.raises(SystemExit) as left:
        cli.command.run(cli.main)
    assert left.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert words in line


@pytest.mark.usefixtures("tiny_exports")
def test_a_file_that_its_contract_does_not_vouch_for_is_refused(tmp_path):
    path = write_tiny_artifact(tmp_path, "rtdetr_r18", 64)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="sha256"):
        prepare.prepare(suites.SuiteRow("rtdetr_r18"), tmp_path, 64)


def test_only_a_static_single_image_can_be_fed(tmp_path):
    path = tmp_path / "m.onnx"
    write_tiny_onnx(path, 64)
    assert prepare.image_spec(path).shape == (1, 3, 64, 64)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match="static"):
        prepare.image_spec(path)
    path.write_bytes(b"\x07garbage" * 40)
    with pytest.raises(ArtifactError, match="cannot be read as ONNX"):
        prepare.image_spec(path)
    with pytest.raises(ArtifactError, match="no such ONNX"):
        prepare.image_spec(tmp_path / "none.onnx")


def test_weights_are_the_initialisers_bytes(tmp_path):
    write_tiny_onnx(tmp_path / "m.onnx", 64)
    assert prepare.weights_mib(tmp_path / "m.onnx") == WEIGHTS * 4 / 2**20


def test_peak_memory_grows_with_the_size_of_the_activations(tmp_path):
    for size in (64, 1024):
        write_tiny_onnx(tmp_path / f"{size}.onnx", size)
    small, large = (memory.measure_peak_mib(tmp_path / f"{size}.onnx", threads=1) for size in (64, 1024))
    activation_mib = 4 * 1024 * 1024 * 4 / 2**20
    # The output lives at least once, and the input of three quarters its size beside it.
    assert large - small > 1.5 * activation_mib
    assert large < 12 * activation_mib + 64


def test_a_file_that_cannot_be_loaded_fails_in_one_line(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"nothing")
    with pytest.raises(BackendError, match="refuses the model"):
        memory.measure_peak_mib(tmp_path / "m.onnx")


def test_suites_are_sound():
    for name, suite in suites.SUITES.items():
        labels = [row.label for row in suite.rows]
        assert suite.name == name
        assert len(set(labels)) == len(labels) >= 2
    assert [row.model for row in suites.SUITES["table3"].rows] == TABLE3
    assert [row.model for row in suites.SUITES["table1"].rows] == TABLE1
    with pytest.raises(ConfigError):
        suites.find("nope")


def test_options_default_to_enough_rounds_for_a_ratio():
    length = session.BACKENDS["ort"].length
    assert length(BenchOptions()).rounds == 30
    assert length(BenchOptions(quick=True)).rounds == 6
    assert length(BenchOptions(quick=True, rounds=9)).rounds == 9
    assert (length(BenchOptions()).slices, length(BenchOptions()).latency_s) == (6, 0.0)
    assert issubclass(ConfigError, FineEdgeError)


def test_a_busy_machine_is_warned_of(capsys):
    session._warn_of_load(0.0)
    assert capsys.readouterr().err == ""
    session._warn_of_load(1000.0)
    assert "load 1000.0 on" in capsys.readouterr().err
