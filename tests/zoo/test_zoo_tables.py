"""The command of the zoo: which rows there are, what they say, and what happens without a library."""

import json
import weakref
from dataclasses import replace
from typing import ClassVar

import pytest

from fine_edge.cli import zoo as cli
from fine_edge.errors import MissingExtraError, UnknownModelError
from fine_edge.zoo import family
from fine_edge.zoo.catalog import CATALOG
from fine_edge.zoo.count import Cost
from fine_edge.zoo.paper import DOWN_ROWS, NOTES, ROWS
from fine_edge.zoo.tables import CountedRow, count_rows


class Model:
    """Knows whether another one is alive."""

    alive: ClassVar[weakref.WeakSet] = weakref.WeakSet()

    def __init__(self):
        assert not self.alive, "two models at a time"
        self.alive.add(self)


class Library:
    """A family whose models cost nothing to build, and remember that they were."""

    def __init__(self):
        self.built, self.counted = [], []

    def labels(self, _entry):
        return ("thing",)

    def build(self, entry, num_labels):
        assert num_labels == 1
        self.built.append(entry.name)
        return Model()

    def count(self, _model, height, width):
        self.counted.append((self.built[-1], height, width))
        return Cost(20_200_000, height * width * 150, "by hand")

    def count_as_logged(self, _model, height, width):
        return Cost(21_100_000, height * width * 160, "as in the log; with more")


@pytest.fixture
def library(monkeypatch):
    fake = Library()
    monkeypatch.setattr(family, "family_of", lambda _name: fake)
    return fake


@pytest.fixture
def without_ultralytics(monkeypatch):
    def family_of(name):
        if name == "yolo":
            raise MissingExtraError("ultralytics", "yolo")
        return Library()

    monkeypatch.setattr(family, "family_of", family_of)


@pytest.mark.usefixtures("library")
def test_all_rows_of_the_tables_in_the_papers_order():
    rows = count_rows()
    expected = sorted([*ROWS, *DOWN_ROWS], key=lambda row: row.table)
    printed, others = rows[: len(expected)], rows[len(expected) :]
    assert [(row.table, row.model) for row in printed] == [(row.table, row.model) for row in expected]
    assert [row.paper for row in printed] == expected
    assert [(row.model, row.paper) for row in others] == [("fcos_mobilenetv3", None), ("fcos_mobilenetv3_fine", None)]


def test_each_model_is_built_once_alone_and_counted_once_at_each_size(library):
    count_rows()
    assert sorted(library.built) == sorted(CATALOG)
    assert len(library.counted) == len(set(library.counted)) == len(CATALOG) + 2
    assert [size for name, *size in library.counted if name == "yolov8s"] == [[640, 640], [800, 800]]


@pytest.mark.usefixtures("library")
def test_a_named_model_has_its_rows_alone_and_a_name_twice_is_one():
    rows = count_rows(["yolov8s", "rtdetr_r18_fine", "yolov8s"])
    assert [(row.table, row.model) for row in rows] == [
        ("1", "yolov8s"),
        ("1", "rtdetr_r18_fine"),
        ("2", "rtdetr_r18_fine"),
        ("3", "rtdetr_r18_fine"),
        ("8", "yolov8s"),
    ]


def test_a_model_that_the_paper_has_not_is_counted_at_its_own_size_and_comes_last(library):
    rows = count_rows(["fasterrcnn_r50_fine_window", "fcos_r50"])
    assert [row.table for row in rows] == ["1", ""]
    row = rows[-1].to_json()
    assert (row["table"], row["paper"], row["difference"], row["reproduced"]) == (None,) * 4
    assert (row["model"], row["attention"], row["input_hw"]) == ("fasterrcnn_r50_fine_window", "window", [800, 800])
    assert library.counted[0] == ("fasterrcnn_r50_fine_window", 800, 800)


@pytest.mark.usefixtures("library")
def test_json_has_what_is_counted_the_papers_figures_and_the_difference(capsys):
    assert cli.main(["rtdetr_r18", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert {key: first[key] for key in first if key not in ("paper", "difference")} == {
        "table": "1",
        "model": "rtdetr_r18",
        "fusion": "H-Enc",
        "attention": None,
        "input_hw": [640, 640],
        "params_m": 20.2,
        "flops_g": 0.061,
        "own": None,
        "reproduced": False,
        "note": "differs from the paper by more than a rounding; the reason is not known.",
        "convention": "by hand",
    }
    assert first["difference"] == {"params_m": 0.0, "flops_g": -61.639}
    assert {key: first["paper"][key] for key in ("table", "params_m", "flops_g", "fps")} == {
        "table": "1",
        "params_m": 20.2,
        "flops_g": 61.7,
        "fps": 80,
    }


@pytest.mark.usefixtures("library")
def test_a_rival_is_counted_as_its_log_and_as_the_other_rows(capsys):
    assert cli.main(["rtdetr_r18_mgc", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["params_m"], row["flops_g"], row["convention"]) == (21.1, 0.066, "as in the log; with more")
    assert row["own"] == {"params_m": 20.2, "flops_g": 0.061, "convention": "by hand"}
    assert cli.main(["rtdetr_r18_mgc"]) == 0
    assert "by the convention of the other rows" not in capsys.readouterr().out
    assert cli.main(["rtdetr_r18_mgc", "--explain"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "rtdetr_r18_mgc by the convention of the other rows: 20.20 M and 0.06 G." in printed


@pytest.mark.usefixtures("without_ultralytics")
def test_without_ultralytics_its_rows_stay_and_say_so(capsys):
    assert cli.main([]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(row.model in printed for row in ROWS)
    # Tables 1 and 8 hold the models of YOLO.
    assert printed.count("not counted: this needs ultralytics -> pip install 'fine-edge[yolo]'") == 2


@pytest.mark.usefixtures("without_ultralytics")
def test_without_ultralytics_a_yolo_asked_for_by_name_is_an_error(capsys):
    with pytest.raises(MissingExtraError, match=r"this needs ultralytics"):
        cli.main(["fcos_r50", "yolov8s"])
    assert capsys.readouterr().out == ""


def test_an_unknown_model_is_refused_before_anything_is_counted(library, capsys):
    with pytest.raises(UnknownModelError):
        cli.main(["rtdetr_r18", "rtdetr_r99"])
    assert library.built == []
    assert capsys.readouterr().out == ""


BASELINE = CountedRow("1", "rtdetr_r50", "H-Enc", None, (640, 640), 42.9, 138.0, "2 x MACs", ROWS[1])


@pytest.mark.parametrize(
    ("params_m", "flops_g", "fusion", "reproduced"),
    [
        (42.99, 138.0, "H-Enc", True),
        (43.01, 138.0, "H-Enc", False),
        (42.9, 138.68, "H-Enc", True),
        (42.9, 138.70, "H-Enc", False),
        (42.9, 138.09, "H-Enc + FINE", True),
        (42.9, 138.11, "H-Enc + FINE", False),
        (None, None, "H-Enc", None),
    ],
)
def test_what_counts_as_reproduced(params_m, flops_g, fusion, reproduced):
    row = replace(BASELINE, params_m=params_m, flops_g=flops_g, fusion=fusion)
    assert row.reproduced is reproduced
    assert bool(row.note) == (reproduced is False)


def test_the_table_shows_the_paper_beside_the_count_and_every_note():
    missing = replace(BASELINE, model="another", params_m=None, flops_g=None, convention=None, missing="no library")
    view = cli.table("1", [BASELINE, missing, replace(BASELINE, model="third", flops_g=140.0)])
    assert view.title.endswith("batch 1, 640x640")
    assert view.rows[0] == ["rtdetr_r50", "H-Enc", "42.90", "138.00", "42.9", "138.0", "+0.00", "+0.00", ""]
    assert view.rows[1][2:] == ["-", "-", "42.9", "138.0", "-", "-", "[1]"]
    assert view.rows[2][-3:] == ["+0.00", "+2.00", "[2]"]
    assert view.notes == [
        "FLOPs: 2 x MACs.",
        "[1] not counted: no library",
        "[2] differs from the paper by more than a rounding; the reason is not known.",
    ]
    assert view.brief == ["[1] not counted: no library", "[2] differs from the paper by more than a rounding"]


def test_columns_that_are_the_same_in_all_rows_stand_in_the_title_and_ways_of_counting_are_marked():
    other = replace(BASELINE, model="b", attention="area", input_hw=(800, 800), convention="MACs")
    view = cli.table("1", [BASELINE, replace(other, model="c", attention="linear"), other])
    assert [column.title for column in view.columns][:4] == ["model", "fusion", "attention", "input"]
    assert view.rows[1][2:4] == ["linear", "800x800"]
    assert [row[-1] for row in view.rows] == ["[1]", "[2]", "[2]"]
    assert view.notes == ["[1] FLOPs: 2 x MACs.", "[2] FLOPs: MACs."]


def test_every_note_is_a_sentence_about_a_row_of_the_paper():
    assert set(NOTES) <= {(row.table, row.model) for row in ROWS}
    assert all(len(note) > 40 and note.endswith(".") for note in NOTES.values())
