"""Accuracy beside speed: only ever of the same file, and of one data set."""

import json
from dataclasses import replace

import pytest

from fine_edge.bench.record import read_record, write_record
from fine_edge.bench.row import EngineFigures
from fine_edge.bench.table import to_table
from fine_edge.cli.bench import main, with_accuracy
from fine_edge.errors import DataError
from fine_edge.evaluate.evaluation import PastEvaluation, read_evaluations


def known(sha256, ap, data="val.json", images=5000):
    return PastEvaluation(sha256, "onnxruntime-cpu", data, data + "sha", images, {"ap": ap, "ap50": ap + 10})


@pytest.fixture
def two(record):
    """The made-up record's rows, each with a sha256 of its own."""
    return replace(record, rows=tuple(replace(row, artifact_sha256=f"sha {n}") for n, row in enumerate(record.rows)))


def test_figures_go_to_the_row_of_the_same_sha256(two):
    found = with_accuracy(two, [known("sha 1", 39.7), known("of nothing", 50.0)])
    assert [row.accuracy for row in found.rows][:2] == [{}, {"ap": 39.7, "ap50": 49.7}]
    assert found.accuracy_data == "val.json (5000 images)"
    table = to_table(found)
    column = [c.title for c in table.columns].index("AP")
    assert [row[column] for row in table.rows][:2] == ["-", "39.7"]
    assert "Accuracy: on val.json (5000 images), of the same files by sha256." in table.notes


def test_nothing_evaluated_changes_nothing(two):
    assert with_accuracy(two, [known("of nothing", 50.0)]) == two
    assert with_accuracy(two, []) == two


def test_one_column_is_of_one_data_set(two):
    some = [known("sha 0", 1.0, "small.json", 38), known("sha 0", 46.5), known("sha 1", 47.3)]
    assert [row.accuracy.get("ap") for row in with_accuracy(two, some).rows][:2] == [46.5, 47.3]
    # As many rows on both: the one with more images.
    assert with_accuracy(two, some[:2]).rows[0].accuracy["ap"] == 46.5
    assert with_accuracy(two, some[1::-1]).rows[0].accuracy["ap"] == 46.5


def test_one_column_is_of_the_same_pictures(two):
    """Other pictures under the names of one annotation file are another data set."""
    some = [replace(known(f"sha {n}", 40.0 + n), pictures_sha256=name) for n, name in enumerate(("dark", "full"))]
    assert [row.accuracy.get("ap") for row in with_accuracy(two, some).rows][:2] == [None, 41.0]


def test_an_engine_has_its_own_accuracy(two):
    engine = EngineFigures("sha of the plan", 40.0, 41.0, 29.6, None, None, 168, 6)
    first = replace(two.rows[0], engine=engine)
    found = with_accuracy(replace(two, rows=(first, *two.rows[1:])), [known("sha 0", 46.5)])
    assert found.rows[0].accuracy == {}
    found = with_accuracy(replace(two, rows=(first, *two.rows[1:])), [known("sha of the plan", 46.4)])
    assert found.rows[0].accuracy["ap"] == 46.4


def test_the_record_keeps_what_it_is_of(two, tmp_path):
    write_record(with_accuracy(two, [known("sha 1", 39.7)]), tmp_path / "record.json")
    read = read_record(tmp_path / "record.json")
    assert (read.accuracy_data, read.rows[1].accuracy["ap"]) == ("val.json (5000 images)", 39.7)


def written(folder, **changes):
    data = {"format": 1, "artifact_sha256": "sha 1", "data": "val.json", "data_sha256": "x", "images": 9}
    data["task"] = "instance"
    data |= {
        "ap": 0.397,
        "ap50": 0.5,
        "ap75": 0.4,
        "ap_s": -1,
        "ap_m": 0.25,
        "ap_l": 0.5,
        "mask": {"ap": 0.3},
    } | changes
    folder.mkdir(exist_ok=True)
    (folder / "a.json").write_text(json.dumps(data))
    return folder


def test_show_fills_the_columns_from_a_folder(two, tmp_path, capsys):
    write_record(two, tmp_path / "record.json")
    assert main(["show", str(tmp_path / "record.json"), "--evaluations", str(written(tmp_path / "e"))]) == 0
    assert "39.7" in capsys.readouterr().out
    assert read_evaluations(tmp_path / "e")[0].figures == pytest.approx(
        {"ap": 39.7, "ap50": 50.0, "ap75": 40.0, "ap_m": 25.0, "ap_l": 50.0, "mask_ap": 30.0}
    )
    assert read_evaluations(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "evaluation format 2, this version reads 1"),
        ({"ap": 39.7}, "the evaluation is broken .ap: expected float <= 1"),
        ({"ap": "good"}, "ap: expected float, got str"),
        ({"ap50": -0.5}, "ap50: expected -1 or a share"),
        ({"images": None}, "images: expected int, got null"),
        ({"task": "other"}, "task: invalid enum value"),
        ({"task": "panoptic"}, "missing required field pq"),
    ],
)
def test_what_is_no_evaluation_is_refused(tmp_path, changes, says):
    with pytest.raises(DataError, match=says):
        read_evaluations(written(tmp_path / "e", **changes))
