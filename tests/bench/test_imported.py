import csv
import io
import json
from dataclasses import replace

import pytest
import trtexec_logs as logs
from PIL import Image
from terminal import WIDTHS, assert_fits, shown

from fine_edge.bench.compare import compare_any
from fine_edge.bench.imported import ImportedRecord, import_logs, parse_imported
from fine_edge.bench.imported_table import imported_table
from fine_edge.bench.record import write_record
from fine_edge.bench.sources import read_logs, read_measurements
from fine_edge.cli import bench as cli
from fine_edge.errors import ConfigError, RecordError
from fine_edge.files import sha256_of

BASELINE = logs.run(
    [*logs.device(), *logs.summary(14.4854, 14.1737, 70.2959, 0.300781, 17.0707)],
    logs.FP16.replace("ours", "baseline"),
)


@pytest.fixture
def folder(tmp_path):
    texts = {
        "fine": logs.FINE,
        "fp32": logs.WAITING,
        "uncopied": logs.UNCOPIED,
        "build": logs.BUILDER,
        "base": BASELINE,
    }
    for name, text in texts.items():
        logs.write(tmp_path / f"{name}.log", text)
    return tmp_path


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_an_imported_record_holds_plain_figures_and_null_for_what_is_unknown(folder, capsys):
    paths = [folder / f"{name}.log" for name in ("fine", "fp32", "build")]
    assert run("import", *paths, "--json", folder / "r.json", "--explain") == 0
    data = json.loads((folder / "r.json").read_text(encoding="utf-8"))
    assert (data["backend"], data["imported"], data["platform"]) == ("trtexec", True, None)
    fine, fp32, build = data["rows"]
    names = ("model", "latency_ms", "compute_ms", "fps", "activation_mib", "weights_mib", "power_mode", "tensorrt")
    assert [fine[name] for name in names] == [
        "rtdetrv1_pr18_ours/model_fp16", 15.042, 14.6934, 67.8516, 66.1519, None, "25W", "10.7.0"
    ]  # fmt: skip
    assert (fp32["latency_ms"], fp32["latency"], fp32["compute_ms"], fp32["fps"]) == (None, None, 30.7285, 32.3939)
    assert (build["model"], build["compute_ms"], build["steps"], build["activation_mib"]) == (
        "build",
        None,
        178,
        66.15185546875,
    )
    assert fine["averages"] == {"of_queries": 50, "compute_ms": [14.7346, 14.6934], "latency_ms": [15.042, 15.042]}
    assert fine["latency"]["percentiles_ms"] == {"90": 15.042, "99": 15.042}
    assert (fine["artifact_sha256"], fine["log"], fine["run"]) == (sha256_of(paths[0]), "fine.log", 1)
    assert fine["platform"] == {"tensorrt": "10.7.0", "rtx": None, "cuda": None, "l4t": None, "gpu": "Orin", "sm": 87}
    assert not {"samples_ms", "ratio", "ratio_ci"} & fine.keys()
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "rtdetrv1_pr18_ours/model_fp32: no latency: H2D holds the wait",
        "the GPU's cap in the log, 0.918 GHz",
    ):
        assert words in out


def test_a_record_is_read_as_it_was_written_and_its_logs_give_the_same(folder):
    record = read_logs([folder / "fine.log"])
    (folder / "r.json").write_text(json.dumps(record.to_json()))
    assert read_measurements(folder / "r.json") == record == read_measurements(folder / "fine.log")
    assert isinstance(record, ImportedRecord)
    assert record.platform.tensorrt == "10.7.0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["rows"][0].update(latency_ms=10.0), "latency_ms says 10.0, the log's line 15.042"),
        (lambda d: d["rows"][0].update(latency=None), "latency_ms says 15.042"),
        (lambda d: d["rows"][0].update(compute_ms="fast"), "rows[0].compute_ms: expected float | null, got str"),
        (lambda d: d["rows"][0].update(fps=0), "rows[0].fps"),
        (lambda d: d["rows"][0].pop("h2d"), "missing required field `h2d`"),
        (lambda d: d["rows"].append(d["rows"][0]), "rows must be named once each"),
        (lambda d: d["rows"].clear(), "rows must be named once each"),
        (lambda d: d.update(format=3), "imported record format 3, this version reads 1"),
    ],
)
def test_an_edited_record_is_refused(folder, change, words):
    data = read_logs([folder / "fine.log"]).to_json()
    data = json.loads(json.dumps(data))
    change(data)
    with pytest.raises(RecordError) as caught:
        parse_imported(data, folder / "r.json")
    assert words.replace("`", "") in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (logs.FINE.partition("GPU Compute")[0], "was cut before the end of the performance summary"),
        (logs.FINE + logs.run(["[E] Set up failed"], passed="FAILED"), "run 2 of 2 is of a run that failed (Set up"),
        ("RAM 3308/7607MB\n", "is no JSON, as a record is, and no log of trtexec"),
        ('[{"name": "a\x1fb", "averageMs": 1}]', "is what trtexec --exportProfile writes"),
        ('[{"computeMs": 1, "latencyMs": 1}]', "layers ENGINE.layers.json --times FILE"),
        ('{"Layers": ["a"], "Bindings": []}', "is what trtexec --exportLayerInfo writes"),
    ],
)
def test_what_is_no_measurement_says_what_it_is(tmp_path, text, words):
    with pytest.raises(RecordError) as caught:
        read_measurements(logs.write(tmp_path / "a", text))
    assert words in str(caught.value)


def test_names_come_from_engines_and_tell_runs_apart(folder):
    fine, twice = folder / "fine.log", logs.write(folder / "twice.log", logs.FINE + logs.FINE)
    names = [row.model for row in import_logs([fine, twice]).rows]
    name = "rtdetrv1_pr18_ours/model_fp16"
    assert names == [f"{name}, fine", f"{name}, twice, run 1", f"{name}, twice, run 2"]
    windows = logs.write(folder / "w.log", logs.FINE.replace(logs.ENGINE, r"C:\engines\yolov5s_FINE.plan"))
    assert [row.model for row in import_logs([windows]).rows] == ["yolov5s_FINE"]
    assert [row.model for row in import_logs([fine], ["mine"]).rows] == ["mine"]
    for given, words in ((["a"], "1 names for 2 runs"), (["a", "a"], "more than one a")):
        with pytest.raises(ConfigError, match=words):
            import_logs([twice], given)
    with pytest.raises(ConfigError, match="each log once"):
        import_logs([fine, fine])


def test_streams_and_batches_are_warned_of(tmp_path):
    lines = [*logs.device(), *logs.summary(), "Inference Streams: 4"]
    text = logs.run(lines).replace("1x3x640x640", "8x3x640x640")
    (row,) = import_logs([logs.write(tmp_path / "a.log", text)]).rows
    assert (row.streams, row.batch) == (4, 8)
    assert row.warnings[0].startswith("4 streams: FPS is of all of them")
    assert row.warnings[1] == "batch 8: a query is 8 pictures"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_tables_fit(folder, width):
    paths = [folder / f"{name}.log" for name in ("fine", "fp32", "uncopied", "build")]
    assert len(shown(imported_table(read_logs(paths[:1])), 100).splitlines()) <= 10
    table = imported_table(read_logs(paths))
    assert_fits(table, width)
    assert len(table.brief) == 5
    for words in ("H2D holds the wait for the query before", "nothing was copied"):
        assert f"1 of 4 rows: no latency: {words}." in table.brief
    assert_fits(compare_any(read_logs([paths[0]]), read_logs([folder / "base.log"])).table, width)


def test_two_logs_are_compared_by_their_medians_without_an_interval(folder, capsys):
    assert run("compare", folder / "base.log", folder / "fine.log") == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in ("14.49", "15.04", "1.038", "14.17", "14.69", "1.037", "70.3", "67.9", "0.965", "no interval follows"):
        assert words in out
    assert ".." not in out
    assert run("compare", folder / "base.log", folder / "fine.log", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (
        row["latency_ratio"]
        == pytest.approx(row["b_latency_ms"] / row["a_latency_ms"])
        == pytest.approx(1.038, abs=5e-4)
    )


def test_a_wait_and_an_unknown_precision_are_said_not_guessed(folder):
    table = compare_any(read_logs([folder / "fp32.log"]), read_logs([folder / "fp32.log"])).table
    assert table.rows[0][1:4] == ["-", "-", "-"]
    assert table.rows[0][6] == "1.000"
    assert "Not known of every row, so not checked: precision." in table.notes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (logs.FINE.replace("0.918", "0.612"), "power mode: 25W / 15W"),
        (logs.FINE.replace("v100700", "v100300"), "TensorRT: 10.7.0 / 10.3.0"),
        (logs.UNCOPIED.replace("--fp16", "--int8"), "precision: fp16 / int8"),
        (logs.BUILDER, "holds builds of engines and no times"),
    ],
)
def test_unlike_runs_are_not_compared(folder, text, words):
    with pytest.raises(RecordError, match=words):
        compare_any(read_logs([folder / "fine.log"]), read_logs([logs.write(folder / "o.log", text)]))


def test_figures_of_others_are_compared_with_ours_where_the_conditions_are_the_same(folder, device_record):
    row = replace(device_record.rows[0], model="rtdetrv1_pr18_ours/model_fp16")
    ours = replace(device_record, cuda_graph=True, rows=(replace(row, baseline=row.model),))
    write_record(ours, folder / "ours.json")
    record, log = read_measurements(folder / "ours.json"), read_measurements(folder / "fine.log")
    known = {"TensorRT": "10.7.0", "GPU": "Orin"}
    assert {name: record.platform[name.lower()] for name in known} == known
    table = compare_any(record, log).table
    assert table.rows[0][2] == "15.04"
    assert any(note.startswith("Imported from logs of trtexec: B.") for note in table.notes)


def test_show_draws_writes_and_prints_json(folder, capsys):
    files = {kind: folder / f"t.{kind}" for kind in ("csv", "markdown", "picture")}
    assert (
        run("show", folder / "fine.log", *(part for kind, file in files.items() for part in (f"--{kind}", file))) == 0
    )
    (row,) = csv.DictReader(io.StringIO(files["csv"].read_text(encoding="utf-8")))
    assert (row["Latency (ms)"], row["Compute (ms)"], row["FPS"]) == ("15.04", "14.69", "67.9")
    with Image.open(files["picture"]) as picture:
        assert picture.width > 1000
    capsys.readouterr()
    assert run("show", folder / "fp32.log", "--json") == 0
    done = capsys.readouterr()
    assert json.loads(done.out)["rows"][0]["latency_ms"] is None
    assert "measured by others" in done.err
