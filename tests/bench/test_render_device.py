"""Tables of records that a device would have made; every figure here is made up."""

import csv
import io
from dataclasses import replace

import pytest
from terminal import WIDTHS, assert_fits

from fine_edge.bench.paper import agreements, difference_percent, obstacles
from fine_edge.bench.picture import draw
from fine_edge.bench.table import to_table


def cells_of(record):
    return list(csv.DictReader(io.StringIO(to_table(record).to_csv())))


def test_the_table_has_speed_engine_stamp_and_the_paper_with_differences(device_record):
    base, fine = cells_of(device_record)
    assert (base["Latency (ms)"], base["Compute (ms)"], base["End-to-end (ms)"]) == ("13.57", "13.07", "16.57")
    assert (base["FPS"], base["Energy (mJ/image)"]) == ("80.0", "215.5")
    assert (base["Plan (MiB)"], base["Weights (MiB)"], base["Activation (MiB)"]) == ("44.5", "43.0", "29.60")
    assert (base["Device delta (MiB)"], base["Host delta (MiB)"]) == ("88.2", "120.5")
    assert (fine["Stamp"], fine["Kernels"], fine["Fused attentions"]) == ("THROTTLED", "165", "6")
    assert fine["Latency: difference (%)"] == f"{100 * (1.2 * 407 / 30 / 13.24 - 1):+.1f}"
    assert base["FPS: difference (%)"] == "+0.0"
    assert fine["Ratio: difference (%)"] == f"{100 * (1.2 / (13.24 / 12.81) - 1):+.1f}"
    assert base["Mem: difference (%)"] == f"{100 * (29.6 / 64.5 - 1):+.1f}"


def test_columns_without_figures_are_left_out_but_ap_stays(device_record):
    rows = tuple(replace(row, engine=None, end_to_end_ms=None) for row in device_record.rows)
    titles = [column.title for column in to_table(replace(device_record, rows=rows)).columns]
    assert "Plan (MiB)" not in titles
    assert "End-to-end (ms)" not in titles
    assert "Mem (MiB)" not in titles
    assert "AP" in titles


def test_title_and_notes_name_device_mode_versions_and_the_reason_of_a_stamp(device_record):
    table = to_table(device_record)
    assert "Jetson Orin Nano" in table.title
    assert "mode 25W, TensorRT 10.7.0, L4T 36.4.0, FP16, 640x640" in table.title
    notes = " ".join(table.notes)
    assert "THROTTLED, rtdetr_r18_fine: the GPU is too hot." in notes
    assert "enqueued without a CUDA graph" in notes
    assert "Against the paper, Mem: same definition (the engine's context memory; ours is the column" in notes
    assert "Against the paper, Latency: same definition" in notes


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_fits_the_terminal_and_says_in_short_what_is_doubtful(device_record, width):
    table = to_table(device_record)
    assert_fits(table, width)
    assert "1 of 2 rows: THROTTLED, the GPU is too hot." in table.brief
    assert len(table.brief) <= 5


def test_a_note_on_a_valid_row_is_shown_and_the_row_stays_valid(device_record):
    note = "203 over-current events (oc3, 1.7/s) cost about 0.08% of the time (estimate)"
    state = device_record.rows[0].state
    state = replace(state, verdict=replace(state.verdict, notes=(note,)))
    record = replace(device_record, rows=tuple(replace(row, state=state) for row in device_record.rows))
    table = to_table(record)
    assert f"2 of 2 rows, note: {note}." in table.brief
    assert f"Note, all rows: {note}." in table.notes
    assert all(row.is_quotable for row in record.rows)
    assert record.to_json()["rows"][0]["state"]["verdict"]["notes"] == (note,)


def test_a_reason_that_holds_for_all_rows_is_said_once(device_record):
    state = device_record.rows[1].state
    rows = tuple(replace(row, state=state) for row in device_record.rows)
    notes = to_table(replace(device_record, rows=rows)).notes
    assert [note for note in notes if "too hot" in note] == ["THROTTLED, all rows: the GPU is too hot."]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"backend": "onnxruntime-cpu"}, "not TensorRT"),
        ({"machine": {"gpu": "Orin NX"}}, "not measured on an Orin Nano"),
        ({"platform": {"tensorrt": "10.3.0"}}, "TensorRT 10.3.0, not 10.7"),
        ({"platform": {"tensorrt": "10.70.0"}}, "not 10.7"),
        ({"platform": None}, "TensorRT unknown"),
        ({"precision": "fp32"}, "fp32, not fp16"),
        ({"estimate": True}, "it is an estimate"),
    ],
)
def test_no_difference_is_given_where_the_definitions_disagree(device_record, changes, reason):
    assert obstacles(device_record) == []
    other = replace(device_record, **changes)
    assert any(reason in found for found in obstacles(other))
    assert reason in agreements(other)["Latency"]
    assert not any("difference" in column.title for column in to_table(other).columns)


def test_no_difference_is_given_at_another_input_size(device_record):
    rows = tuple(replace(row, input_hw=(320, 640)) for row in device_record.rows)
    assert any("input 640x320, not 640x640" in found for found in obstacles(replace(device_record, rows=rows)))


def test_a_difference_needs_both_figures():
    assert difference_percent(11.0, 10.0) == pytest.approx(10)
    assert difference_percent(None, 10.0) is None
    assert difference_percent(11.0, None) is None


def test_percentiles_appear_once_there_are_samples_for_them(device_record):
    def titles(times):
        rows = tuple(
            replace(row, samples_ms=row.samples_ms * times, compute_ms=row.compute_ms * times, end_to_end_ms=None)
            for row in device_record.rows
        )
        return [c.title for c in to_table(replace(device_record, rounds=8 * times, rows=rows)).columns]

    assert not any("p9" in title for title in titles(7))
    assert "Latency p90 (ms)" in titles(8)
    assert "Latency p99 (ms)" in titles(83)


def test_unlike_precisions_get_a_column(device_record):
    rows = (device_record.rows[0], replace(device_record.rows[1], precision="fp16-weak"))
    assert [row["Precision"] for row in cells_of(replace(device_record, rows=rows))] == ["fp16", "fp16-weak"]


def test_an_estimate_says_so_in_title_notes_and_picture(device_record):
    estimate = replace(device_record, estimate=True)
    assert "(ESTIMATE, " in to_table(estimate).title
    assert to_table(estimate).notes[0].startswith("ESTIMATE")
    legend = draw(estimate).legends[0].get_texts()[0].get_text()
    assert legend.startswith("ESTIMATE, nothing was measured")
