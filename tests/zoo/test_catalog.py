"""The catalogue's figures against the paper's tables, and the models against both."""

import json
import re

import pytest

from fine_edge.errors import UnknownModelError
from fine_edge.zoo import __main__ as cli
from fine_edge.zoo.catalog import CATALOG, find
from fine_edge.zoo.coco import COCO_LABELS

# Tables 1 and 3: #Params (M), FLOPs (G), FPS, latency (ms), memory (MB), AP. Table 3 prints FINE's FLOPs and memory as
# differences from 61.74 G and 64.50 MB; the sums stand here. A dash in the paper is None.
PAPER = {
    "rtdetr_r18": (20.2, 61.74, 80, 12.81, 64.50, 38.7),
    "rtdetr_r18_fine": (21.2, 62.9, 78, 13.24, 64.50 + 1.17, 39.7),
    "rtdetr_r18_fine_vanilla": (21.2, 61.74 + 18.0, 57, 17.74, 64.50 + 1223.48, 39.5),
    "rtdetr_r18_fine_window": (21.2, 61.74 + 8.9, 68, 15.05, 64.50 + 65.11, 39.7),
    "rtdetr_r18_fine_area": (21.2, 61.74 + 10.0, 69, 14.71, 64.50 + 65.67, 39.2),
    "rtdetr_r18_fine_linear": (21.2, 61.74 + 7.0, 64, 16.05, 64.50 + 18.42, 39.0),
    "rtdetr_r50": (42.9, 138.0, 40, None, None, 52.8),
    "rtdetr_r50_fine": (44.0, 139.2, 40, None, None, 53.3),
}


def test_the_catalogue_holds_the_papers_figures():
    assert list(CATALOG) == list(PAPER)
    for name, entry in CATALOG.items():
        paper = entry.paper
        figures = (paper.params_m, paper.flops_g, paper.fps, paper.latency_ms, paper.mem_mb, paper.ap)
        assert figures == pytest.approx(PAPER[name], abs=0.005), name
        assert entry.name == name


def test_attention_is_what_the_name_says():
    for name, entry in CATALOG.items():
        variant, _, rest = name.removeprefix("rtdetr_").partition("_")
        assert entry.variant == variant
        assert entry.attention == ({"": None, "fine": "aats"}.get(rest) if rest in ("", "fine") else rest[5:])
        assert entry.fusion == ("H-Enc + FINE" if rest else "H-Enc")


def test_every_model_is_counted_within_a_tenth_of_the_paper_or_says_why(capsys):
    assert cli.main(["--json"]) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)
    assert [row["model"] for row in rows] == list(PAPER)
    for row in rows:
        assert set(row) >= {"model", "fusion", "params_m", "flops_g", "paper"}
        params_m, flops_g, *_ = PAPER[row["model"]]
        assert row["paper"]["params_m"] == params_m
        assert row["paper"]["flops_g"] == pytest.approx(flops_g)
        assert abs(row["params_m"] - params_m) <= 0.1, row
        assert abs(row["flops_g"] - flops_g) <= 0.1 or len(row["note"]) > 40, row
        assert abs(row["flops_g"] - flops_g) <= 0.5, "a note explains a rounding or an unknown, not another model"
    by_name = {row["model"]: row for row in rows}
    base = by_name["rtdetr_r18"]
    added = {
        name: by_name[f"rtdetr_r18_fine{name}"]["flops_g"] - base["flops_g"] for name in ("", "_vanilla", "_window")
    }
    assert added == pytest.approx({"": 1.177, "_vanilla": 18.005, "_window": 8.901}, abs=0.01)
    assert by_name["rtdetr_r18_fine"]["params_m"] - base["params_m"] == pytest.approx(1.055, abs=0.001)
    assert by_name["rtdetr_r50_fine"]["params_m"] - by_name["rtdetr_r50"]["params_m"] == pytest.approx(1.055, abs=0.002)


def test_the_table_shows_the_paper_beside_the_count_and_every_note():
    row = {
        "model": "rtdetr_r18",
        "fusion": "H-Enc",
        "attention": None,
        "params_m": 20.171,
        "flops_g": 61.641,
        "paper": {"table": "1", "params_m": 20.2, "flops_g": 61.74},
        "note": "",
        "convention": "2 x MACs",
    }
    view = cli.table([row, {**row, "model": "another", "paper": None, "note": "because"}])
    assert view.rows[0] == ["rtdetr_r18", "H-Enc", "-", "20.17", "61.64", "20.2", "61.74", "-0.03", "-0.10"]
    assert view.rows[1][-4:] == ["-"] * 4
    assert view.notes == ["FLOPs: 2 x MACs.", "another: because"]


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [("rtdetr_r81", "rtdetr_r18"), ("rtdetr-r50", "rtdetr_r50"), ("rtdetr_r18_fine_windw", "rtdetr_r18_fine_window")],
)
def test_an_unknown_model_names_the_nearest(typed, nearest):
    with pytest.raises(UnknownModelError) as caught:
        find(typed)
    assert re.search(rf"no model is called '{typed}' -> nearest: {nearest}\b", str(caught.value))


def test_a_name_like_nothing_lists_them_all():
    with pytest.raises(UnknownModelError, match=", ".join(CATALOG)):
        find("zzz")


def test_the_command_refuses_an_unknown_model_before_counting(capsys):
    with pytest.raises(UnknownModelError):
        cli.main(["rtdetr_r99"])
    assert capsys.readouterr().out == ""


def test_coco_has_80_classes_in_the_usual_order():
    assert len(COCO_LABELS) == len(set(COCO_LABELS)) == 80
    assert (COCO_LABELS[0], COCO_LABELS[2], COCO_LABELS[9], COCO_LABELS[79]) == (
        "person",
        "car",
        "traffic light",
        "toothbrush",
    )
    assert all(label == label.strip() and label for label in COCO_LABELS)
