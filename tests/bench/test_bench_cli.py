import json

import numpy as np
import onnx
import pytest
from framed import write_framed_detector
from onnx import TensorProto, helper
from PIL import Image
from tiny_bench import WEIGHTS, write_tiny_artifact, write_tiny_onnx

from fine_edge import command
from fine_edge.bench import memory, prepare, session, suites
from fine_edge.bench.backends import BACKENDS, BenchOptions
from fine_edge.bench.record import read_record, write_record
from fine_edge.cli import bench as cli
from fine_edge.errors import ArtifactError, BackendError, ConfigError, FineEdgeError
from fine_edge.runners.ort import OrtRunner
from fine_edge.zoo.paper import ROWS

TABLE3 = ["rtdetr_r18", *(f"rtdetr_r18_fine{x}" for x in ("_vanilla", "_window", "_area", "_linear", ""))]

TABLE1 = [
    f"{name}{fine}"
    for name in ("rtdetr_r18", "rtdetr_r50", "yolov8s", "yolov10s", "yolov12s")
    for fine in ("", "_fine")
]


@pytest.fixture
def no_child(monkeypatch):
    """Memory is measured in fresh processes and the picture drawn in one test; the others need not."""
    monkeypatch.setattr(memory, "measure_peak_mib", lambda _path, _threads, _batch: 123.0)
    monkeypatch.setattr(cli, "write_picture", lambda _record, path: path.touch())


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
def test_graphs_that_take_frames_are_fed_photographs_of_their_size(tmp_path, monkeypatch, capsys):
    def export(request, folder):
        return write_framed_detector(folder, request.frame, name=request.model)

    monkeypatch.setattr(prepare, "exported", export)
    arguments = ["--suite", "table1", "--only", "yolov8s*", "--frame", "90x160", "--rounds", "2", "--json", "-"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in data["rows"]] == ["yolov8s", "yolov8s_fine"]
    assert data["input_hw"] == [90, 160]
    with pytest.raises(ConfigError, match="takes no frames"):
        cli.main(["--suite", "exporters", "--frame", "90x160", "--rounds", "2", "--out", str(tmp_path)])


@pytest.mark.usefixtures("tiny_exports", "no_child")
def test_the_exporters_suite_takes_plain_exports_without_a_contract(tmp_path, capsys):
    arguments = ["--suite", "exporters", "--rounds", "2", "--input-size", "64", "--out", str(tmp_path), "--json", "-"]
    assert cli.main(arguments) == 0
    rows = {row["model"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert len(rows) == 3 + 5 * 2
    plain = "rtdetr_r18 (plain torch.onnx)"
    assert rows[plain]["params_m"] is None
    assert [rows[name]["baseline"] for name in ("rtdetr_r18", "rtdetr_r18_fine")] == [plain] * 2
    assert rows["yolov10s"]["baseline"] == "yolov10s (ultralytics export)"
    assert rows["retinanet_r50"]["baseline"] == "retinanet_r50 (plain torch.onnx)"
    assert {name for name, row in rows.items() if row["ratio"] == 1} >= {row["baseline"] for row in rows.values()}
    assert (tmp_path / "raw" / "yolov8s.onnx").is_file()
    assert (tmp_path / "retinanet_r50.onnx").is_file()
    assert (tmp_path / "fasterrcnn_r50.plain.onnx").is_file()


@pytest.mark.usefixtures("tiny_exports", "no_child")
def test_table_1_is_measured_in_pairs_and_fp16_runs_on_the_cpu_as_well(tmp_path, capsys):
    arguments = ["--suite", "table1", "--precision", "fp16", "--rounds", "2", "--input-size", "64", "--json", "-"]
    assert cli.main([*arguments, "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    data = json.loads(printed.out)
    assert [row["model"] for row in data["rows"]] == TABLE1
    assert [row["baseline"] for row in data["rows"]] == [TABLE1[index - index % 2] for index in range(10)]
    assert [group["baseline"] for group in data["groups"]] == TABLE1[::2]
    assert all(10 < group["process_peak_mib"] < 6144 for group in data["groups"])
    assert (data["precision"], data["backend"], data["platform"]) == ("fp16", "onnxruntime-cpu", None)
    assert [row["paper"]["fps"] for row in data["rows"]] == [80, 78, 40, 40, 189, 177, 173, 153, 112, 106]
    assert data["rows"][1]["paper"]["ap50"] == 64.4
    assert all(row["compute_ms"] is row["engine"] is row["state"] is None for row in data["rows"])
    assert "group 2 of 5, rtdetr_r50: rtdetr_r50, rtdetr_r50_fine" in printed.err


@pytest.mark.usefixtures("tiny_exports", "no_child")
def test_table_7_is_measured_at_each_detectors_own_size(tmp_path, capsys):
    arguments = ["--suite", "table7", "--rounds", "2", "--threads", "1", "--out", str(tmp_path)]
    assert cli.main([*arguments, "--json", str(tmp_path / "r.json")]) == 0
    record = read_record(tmp_path / "r.json")
    assert record.input_hw is None
    assert [row.input_hw for row in record.rows[::2]] == [(800, 800), (512, 1024), (640, 640)]
    assert record.rows[2].paper["miou"] == 74.5
    printed = " ".join(capsys.readouterr().out.split())
    assert "Definitions and details: --explain." in printed
    assert cli.main(["show", str(tmp_path / "r.json"), "--explain"]) == 0
    assert "FPS: back-to-back queries / wall time" in " ".join(capsys.readouterr().out.split())
    for words in ("1024x512", "input sizes as listed", "mIoU", "Mask AP", "PQ"):
        assert words in printed


@pytest.mark.usefixtures("tiny_exports", "no_child")
def test_only_some_groups_are_measured_where_they_are_named(tmp_path, capsys):
    arguments = ["--suite", "table1", "--only", "yolov1*", "--only", "rtdetr_r18", "--rounds", "2"]
    assert cli.main([*arguments, "--input-size", "32x64", "--out", str(tmp_path), "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [group["baseline"] for group in data["groups"]] == ["rtdetr_r18", "yolov10s", "yolov12s"]
    assert data["title"].endswith(", rtdetr_r18, yolov10s, yolov12s only")
    assert data["input_hw"] == [32, 64]


@pytest.mark.usefixtures("no_child")
def test_only_one_group_is_loaded_at_a_time(tmp_path, monkeypatch, tiny_exports):
    assert tiny_exports is None
    loaded, most = [], []

    class Spied(OrtRunner):
        def __init__(self, path, *arguments):
            super().__init__(path, *arguments)
            loaded.append(path.name)
            most.append(list(loaded))

        def close(self):
            loaded.remove(self._path.name)
            super().close()

    monkeypatch.setattr("fine_edge.bench.setup.OrtRunner", Spied)
    arguments = ["--suite", "table1", "--rounds", "2", "--input-size", "64", "--out", str(tmp_path), "--json", "-"]
    assert cli.main(arguments) == 0
    assert [names for names in most if len(names) == 2] == [
        [f"{a}.onnx", f"{b}.onnx"] for a, b in zip(TABLE1[::2], TABLE1[1::2], strict=True)
    ]
    assert max(map(len, most)) == 2
    assert loaded == []


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
    assert cli.main(["compare", str(path), str(path), "--json"]) == 0
    (first, *_), rows = json.loads(capsys.readouterr().out)["rows"], record.rows
    assert (first["model"], first["a_latency_ms"]) == (rows[0].model, rows[0].latency_ms)
    assert first["latency_ratio"]["value"] == 1
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--suite", "table9"], "table3"),
        (
            ["--suite", "table1", "--only", "yolov9*"],
            "--only: no group of table1 matches 'yolov9*' -> known: rtdetr_r18",
        ),
        (["--backend", "cuda"], "ort"),
        (["--rounds", "1"], "too few"),
        (["--threads", "0"], "at least 1"),
        (["--precision", "fp8"], "known: fp32, fp16, int8"),
        (["--precision", "int8", "--only", "rtdetr_r18"], "no INT8 file of this model"),
        (["--suite", "exporters", "--precision", "int8"], "no INT8 form"),
        (["--precision", "fp16-weak"], "ort has no precision 'fp16-weak'"),
        (["--suite", "exporters", "--precision", "fp16"], "no FP16 form"),
        (["--cuda-graph"], "--cuda-graph: has no effect on the backend ort"),
        (["--profile", "{tmp}"], "--profile: has no effect"),
        (["--backend", "trt", "--threads", "2"], "--threads: has no effect on the backend trt"),
        (["--backend", "trt"], "TensorRT is not on this machine"),
        (["--input-size", "650"], "multiple of 32"),
        (["--input-size", "big"], "not understood"),
        (["--images", "{tmp}/none"], "no such image"),
        (["--images", "{tmp}/empty"], "no image"),
        (["--images", "{tmp}/bad"], "cannot be decoded"),
        (["--json={tmp}/empty"], "is a folder"),
        (["--csv", "{tmp}/bad/x.png/y.csv"], "cannot be written"),
        (["show", "{tmp}/none.json"], "no such file"),
        (["compare", "{tmp}/bad/x.png", "{tmp}/bad/x.png"], "is no JSON"),
    ],
)
def test_bad_input_is_one_line_with_a_hint(tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_bytes(b"not a picture")
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    monkeypatch.setattr("sys.argv", ["bench", *filled])
    with pytest.raises(SystemExit) as left:
        command.run(cli.main)
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
        prepare.prepare(suites.SuiteRow("rtdetr_r18"), tmp_path, (64, 64))


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
    with pytest.raises(ArtifactError, match="ONNX"):
        prepare.image_spec(path)
    with pytest.raises(ArtifactError, match="no such file"):
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
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 32, 32)) for name in "xy")
    graph = helper.make_graph([helper.make_node("NoOperator", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    with pytest.raises(BackendError, match="refuses the model"):
        memory.measure_peak_mib(tmp_path / "m.onnx")


def test_suites_are_sound():
    for name, suite in suites.SUITES.items():
        labels = [row.label for row in suite.rows]
        assert suite.name == name
        assert len(set(labels)) == len(labels) >= 2
        assert all(len(group.rows) >= 2 for group in suite.groups)
        if suite.paper_table:
            rows = {(row.table, row.model) for row in ROWS}
            others = [row.model for group in suite.groups for row in group.rows[1:]]
            assert all((suite.paper_table, model) in rows for model in others)
    assert [row.model for row in suites.SUITES["table3"].rows] == TABLE3
    assert [row.model for row in suites.SUITES["table1"].rows] == TABLE1
    # Six of Faster R-CNN would not fit into the memory that the process may take.
    assert [len(group.rows) for group in suites.SUITES["table2"].groups] == [2, 2, 2, 2, 2, 6]
    labels = [row.label for row in suites.SUITES["table2"].rows[:2]]
    assert labels == ["fasterrcnn_r50 (beside sni)", "fasterrcnn_r50_sni"]
    assert (
        suites.SUITES["table2"].only(["faster*"]).title == "Table 2: FINE and other fusion methods, fasterrcnn_r50 only"
    )
    with pytest.raises(ConfigError):
        suites.find("nope")


def test_options_default_to_enough_rounds_for_a_ratio():
    length = BACKENDS["ort"].length
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
