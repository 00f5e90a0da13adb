"""Every row of the paper's tables counted on the whole models, held to the paper or pinned with its reason."""

import re

import pytest
from torch import nn

from fine_edge.zoo.catalog import CATALOG
from fine_edge.zoo.paper import NOTES
from fine_edge.zoo.tables import count_rows

pytestmark = pytest.mark.slow

# Millions of parameters and 10^9 operations by table and model, as counted.
COUNTED = """
1 rtdetr_r18              20.175  61.641
1 rtdetr_r50              42.891 138.030
1 yolov8s                 11.157  28.603
1 yolov10s                 8.097  24.779
1 yolov12s                 9.142  19.493
1 rtdetr_r18_fine         21.230  62.822
1 rtdetr_r50_fine         43.947 139.211
1 yolov8s_fine            12.309  29.606
1 yolov10s_fine            8.921  25.521
1 yolov12s_fine           10.328  20.448
1 fasterrcnn_r50          41.755 134.393
1 retinanet_r50           34.015 151.540
1 fcos_r50                32.270 128.207
1 fasterrcnn_r50_fine     42.811 135.457
1 retinanet_r50_fine      35.070 152.983
1 fcos_r50_fine           33.325 129.694
2 fasterrcnn_r50_sni      41.755 134.393
2 fasterrcnn_r50_fapn     48.517 143.529
2 fasterrcnn_r50_adafpn   45.578 159.421
2 fasterrcnn_r50_mgc      44.372 161.735
2 fasterrcnn_r50_fine     42.811 135.457
2 rtdetr_r18_sni          20.175  61.646
2 rtdetr_r18_fapn         21.936  71.832
2 rtdetr_r18_adafpn       22.914  82.871
2 rtdetr_r18_mgc          21.135  68.726
2 rtdetr_r18_fine         21.230  62.822
3 rtdetr_r18              20.175  61.641
3 rtdetr_r18_fine_vanilla 21.230  79.649
3 rtdetr_r18_fine_window  21.230  70.542
3 rtdetr_r18_fine_area    21.230  71.293
3 rtdetr_r18_fine_linear  21.230  68.589
3 rtdetr_r18_fine         21.230  62.822
7 maskrcnn_r50            44.401 134.393
7 maskrcnn_r50_fine       45.457 135.457
7 semantic_fpn_r50        28.498  90.874
7 semantic_fpn_r50_fine   30.078  91.686
7 panoptic_fpn_r50        46.031 156.717
7 panoptic_fpn_r50_fine   47.612 157.352
8 yolov5s                  9.142  37.493
8 yolov5s_fine             9.803  38.324
8 yolov6s                 16.444  69.342
8 yolov6s_fine            17.145  70.255
8 yolov8s                 11.157  44.692
8 yolov8s_fine            12.309  46.260
"""
# What the paper's figures cannot be reached for. Of Table 3, which prints what each strategy adds, these are off as
# sums alone: what they add is held to the paper below.
OFF_AS_SUMS = {("3", "rtdetr_r18_fine"), ("3", "rtdetr_r18_fine_linear")}
UNREACHED = {
    ("1", "yolov10s_fine"),
    ("1", "yolov12s_fine"),
    ("3", "rtdetr_r18_fine_area"),
    ("8", "yolov5s_fine"),
    ("8", "yolov6s"),
    ("8", "yolov6s_fine"),
    ("8", "yolov8s_fine"),
}


@pytest.fixture(scope="module")
def rows():
    """By table and model, of what the paper has. Initial weights, which nothing is counted by, are left out."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "xavier_uniform_"):
            patch.setattr(nn.init, name, lambda tensor, *_arguments, **_options: tensor)
        return {(row.table, row.model): row for row in count_rows() if row.table}


# The figures of the authors' logs, with more digits than the paper prints; RT-DETR's are doubled, as it does.
LOGS = {
    "fasterrcnn_r50_fapn": (48.52, 143.57),
    "fasterrcnn_r50_adafpn": (45.58, 159.42),
    "fasterrcnn_r50_mgc": (44.37, 161.80),
    "rtdetr_r18_fapn": (21.936, 2 * 35.895),
    "rtdetr_r18_adafpn": (22.914, 2 * 41.421),
    "rtdetr_r18_mgc": (21.135, 2 * 34.351),
}
# The same models by the convention of all other rows, which an artifact's contract states.
OWN = {
    "fasterrcnn_r50_fapn": (48.739, 142.274),
    "fasterrcnn_r50_adafpn": (45.801, 159.110),
    "fasterrcnn_r50_mgc": (44.595, 161.382),
    "rtdetr_r18_fapn": (21.926, 71.718),
    "rtdetr_r18_adafpn": (22.904, 82.757),
    "rtdetr_r18_mgc": (21.125, 67.983),
}


def added(rows, key):
    """What a method adds to its detector, millions and 10^9, at the size of its row."""
    row, detector = rows[key], CATALOG[key[1]].detector.name
    base = next(r for r in rows.values() if (r.model, r.input_hw) == (detector, row.input_hw))
    return row.params_m - base.params_m, row.flops_g - base.flops_g


def test_every_row_is_what_it_was(rows):
    pinned = {(t, m): (float(p), float(f)) for t, m, p, f in map(str.split, COUNTED.strip().split("\n"))}
    assert set(pinned) == {key for key in rows if key[0] != "6"}
    for key, figures in pinned.items():
        assert (rows[key].params_m, rows[key].flops_g) == pytest.approx(figures, abs=0.0015), key


def test_all_but_the_listed_rows_are_the_papers(rows):
    assert {key for key, row in rows.items() if not row.reproduced} == UNREACHED | OFF_AS_SUMS


def test_every_row_that_is_not_the_papers_has_a_sentence_of_its_own(rows):
    assert set(NOTES) >= UNREACHED | OFF_AS_SUMS
    assert all("not known" not in row.note and row.convention for row in rows.values())


def test_rivals_are_their_logs_and_the_paper_within_its_digits(rows):
    for model, (log_m, log_g) in LOGS.items():
        row = rows["2", model]
        assert row.params_m == pytest.approx(log_m, abs=0.005), model
        assert row.flops_g == pytest.approx(log_g, abs=0.075), model
        assert abs(row.difference_m) <= 0.05, model
        assert abs(row.difference_g) <= 0.1, model
        assert "log" in row.convention


def test_rivals_are_counted_as_the_other_rows_too(rows):
    assert {key[1] for key, row in rows.items() if row.own and key[0] == "2"} == set(OWN) == set(LOGS)
    for model, figures in OWN.items():
        own = rows["2", model].own
        assert (own.params_m, own.flops_g) == pytest.approx(figures, abs=0.0015), model
        assert own.convention in {row.convention for row in rows.values()}


def test_every_row_of_table_2_is_the_papers(rows):
    table = [row for key, row in rows.items() if key[0] == "2"]
    assert len(table) == 10
    assert all(abs(row.difference_m) <= 0.05 and abs(row.difference_g) <= 0.1 for row in table)


def test_baselines_are_within_half_a_per_cent(rows):
    for key, row in rows.items():
        if row.is_baseline and key not in UNREACHED:
            assert abs(row.difference_g) <= 0.005 * row.paper.flops_g, key
            assert row.difference_m is None or abs(row.difference_m) <= 0.1, key


@pytest.mark.parametrize(("strategy", "paper_g"), [("", 1.2), ("_vanilla", 18.0), ("_window", 8.9), ("_linear", 7.0)])
def test_table_3_by_what_a_strategy_adds(rows, strategy, paper_g):
    more_m, more_g = added(rows, ("3", f"rtdetr_r18_fine{strategy}"))
    assert more_m == pytest.approx(1.055232, abs=1e-6)
    assert abs(more_g - paper_g) <= 0.1


def test_figures_in_the_sentences_are_the_counted_ones(rows):
    found = 0
    for key, note in NOTES.items():
        said = re.search(r"adds (?:(\d+\.\d+) M and )?(\d+\.\d+) G", note)
        if said:
            more_m, more_g = added(rows, key)
            assert more_g == pytest.approx(float(said[2]), abs=0.0051), key
            assert said[1] is None or more_m == pytest.approx(float(said[1]), abs=0.0051), key
            found += 1
    assert found == 9


def test_fine_in_a_one_stage_detector_adds_what_it_adds_in_faster_rcnn(rows):
    """The rest of the paper's +1.4 G: the row without FINE is counted by another tool."""
    _, in_faster = added(rows, ("1", "fasterrcnn_r50_fine"))
    assert in_faster == pytest.approx(1.063, abs=0.001)
    for model, baseline_g in (("retinanet_r50", 151.540), ("fcos_r50", 128.207)):
        own = rows["1", f"{model}_fine"].own
        assert own.flops_g - baseline_g == pytest.approx(in_faster, abs=0.01)
        assert own.convention == rows["1", model].convention
