"""Fitting: constants that made latencies are found again, and the committed calibration is what its data give."""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import works
from published import published as published_file

from fine_edge.errors import ArtifactError
from fine_edge.estimate import published
from fine_edge.estimate.calibration import PRECISIONS, find_calibration
from fine_edge.estimate.device import find_device
from fine_edge.estimate.latency import Conditions, estimate
from fine_edge.estimate.least_squares import FitRow, Rows, fit, interval
from fine_edge.estimate.published import FITTED, MEASURED, fit_published, published_rows
from fine_edge.estimate.roofline import kernel_times
from fine_edge.estimate.tables import errors_table, rows_table, write_published
from fine_edge.estimate.validate import validate

DEVICE = find_device("orin-nano-8gb")
RESULT = Path(__file__).parents[2] / "bench" / "predictor.json"
TRUE = replace(MEASURED, tensor_share=0.7, gather_share=0.25, kernel_clocks=5000.0, gate_slots=50.0)


@pytest.fixture(scope="module")
def recorded():
    return works.recorded()


@pytest.fixture(scope="module")
def fitted():
    return fit_published()


def test_constants_are_found_again(recorded):
    mode = DEVICE.mode("25W")
    rows = [
        FitRow(
            name,
            engine.works,
            sum(kernel.ms for kernel in kernel_times(engine.works, DEVICE, mode, TRUE)),
            DEVICE,
            mode,
        )
        for name, engine in recorded.items()
    ]
    found = fit(Rows(rows), MEASURED, ("tensor_share", "gather_share", "kernel_clocks", "gate_slots"))
    assert vars(found) == pytest.approx(vars(TRUE), rel=1e-2)


def test_the_arrays_of_a_fit_give_what_an_estimate_gives():
    at = {row.name: row for row in published_rows()}
    names = ("rtdetr_r18, FP32, orin-nano-8gb 25W, no graph", "yolo11n, INT8, agx-orin-64gb MAXN, no graph")
    calibration = find_calibration(DEVICE)
    totals = dict(zip(at, published.fit_rows(tuple(at.values())).totals_ms(calibration.constants), strict=True))
    for row in (at[name] for name in (*names, "mobilenet_v2, FP16, orin-nano-8gb 15W")):
        device = find_device(row.device)
        conditions = Conditions(device, device.mode(row.mode), calibration, row.precision, row.cuda_graph)
        found = estimate(published.engine(row.graph, device.l2_bytes), conditions)
        assert totals[row.name] == pytest.approx(found.call_ms if row.called else found.compute_ms)


def test_the_committed_calibration_is_the_fit_to_the_published_rows(fitted):
    again, committed = fitted.calibration(), find_calibration(DEVICE)
    assert vars(again.constants) == pytest.approx(vars(committed.constants), rel=2e-3)
    assert again.rows == pytest.approx(committed.rows, abs=2e-3)
    assert again.left_out == pytest.approx(committed.left_out, abs=2e-2)
    assert again.origin == committed.origin


def test_rows_that_were_left_out_are_estimated_well(fitted):
    def median(errors, precision, device):
        of = (True, precision, device)
        chosen = [i for i, row in enumerate(fitted.rows) if (row.fitted, row.precision, row.device) == of]
        return float(np.median(np.abs(errors[chosen])))

    assert median(fitted.without_model, "fp16", "orin-nano-8gb") < 0.04
    for device in ("orin-nx-16gb", "agx-orin-64gb"):
        assert median(fitted.without_source, "fp16", device) < 0.06
    for precision in ("fp32", "int8"):
        assert median(fitted.without_model, precision, "orin-nano-8gb") < 0.07
    counted = np.array([row.fitted for row in fitted.rows])
    assert np.abs(np.expm1(fitted.without_model[counted])).max() < 0.15


def test_rows_of_other_graphs_are_shown_and_not_counted(fitted):
    shown = [row for row in fitted.rows if not row.fitted]
    assert {row.model for row in shown} == {"yolo11n", "yolov9t", "yolov9m"}
    assert all(row.note for row in shown)
    table = errors_table(fitted)
    assert sum(int(row[1]) for row in table.rows) == len(fitted.rows) - len(shown)


def test_what_fine_adds_is_within_a_quarter_of_the_logs(fitted):
    ms = {row.name: row.compute_ms * np.exp(error) for row, error in zip(fitted.rows, fitted.errors, strict=True)}
    measured = {row.name: row.compute_ms for row in fitted.rows}
    over = {row.name: row.over for row in fitted.rows if row.over}
    assert len(over) == 2
    for name, base in over.items():
        assert (ms[name] - ms[base]) / (measured[name] - measured[base]) == pytest.approx(1, abs=0.25)


def test_an_interval_holds_nine_of_ten():
    errors = [-0.5, *np.linspace(-0.1, 0.1, 19), 0.4]
    found = interval(errors)
    # 0.9 x 22 is 19.8: the twentieth of 21 distances.
    assert (found.low, found.high, found.rows) == (pytest.approx(0.6703, abs=1e-4), pytest.approx(1.4919, abs=1e-4), 21)
    assert (interval([0.1]).low, interval([0.1]).high) == pytest.approx((0.9048, 1.1052), abs=1e-4)


def test_the_intervals_hold_most_rows_but_not_all(fitted):
    for precision in PRECISIONS:
        counted = [
            fitted.is_inside(row, error)
            for row, error in zip(fitted.rows, fitted.without_model, strict=True)
            if row.fitted and row.precision == precision
        ]
        assert 0.85 <= np.mean(counted) <= 0.97, precision


def test_a_board_that_was_not_measured_has_the_widest_interval():
    calibration = find_calibration(DEVICE)
    measured = [calibration.interval("fp16", find_device(name)) for name in calibration.devices]
    low, high = calibration.interval("fp16", find_device("orin-nx-8gb"))
    assert low == min(bounds[0] for bounds in measured)
    assert high == max(bounds[1] for bounds in measured)


def test_tables_and_the_picture_of_the_fit(fitted, tmp_path):
    table = errors_table(fitted)
    assert table.rows[3][0] == "FP16, orin-nano-8gb"
    assert len(rows_table(fitted).rows) == len(published_rows())
    write_published(fitted, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_every_row_says_where_it_is_from_and_is_one_of_a_known_board():
    rows = published_rows()
    assert len({row.name for row in rows}) == len(rows) > 90
    for row in rows:
        find_device(row.device).mode(row.mode)
        assert row.source
        assert row.mode_known or "assumed" in row.note
    assert set(FITTED) < set(vars(MEASURED))


def test_the_rows_are_what_their_sources_say():
    folder = published_file("data", "jetson_public")
    told = set()
    for name in ("measured.csv", "trtutils_orin_latency.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                told |= {
                    row[key] for key in ("gpu_compute_median_ms", "latency_median_ms", "median_ms") if row.get(key)
                }
                told |= {f"{1000 / float(row['throughput_qps']):.4f}"} if row.get("throughput_qps") else set()
    figures = {round(float(figure), 4) for figure in told}
    assert [row.name for row in published_rows() if round(row.compute_ms, 4) not in figures] == []


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip", gzip.compress(b"{")[:9], gzip.compress(b'{"rows": [{}]}')],
    ids=["empty", "foreign", "cut", "of another form"],
)
def test_a_table_that_was_cut_is_refused(content, tmp_path, monkeypatch):
    path = tmp_path / "published.json.gz"
    path.write_bytes(content)
    monkeypatch.setattr(published, "_FILE", path)
    published._document.cache_clear()
    with pytest.raises(ArtifactError, match=r"published\.json\.gz"):
        published_rows()
    published._document.cache_clear()


def test_the_committed_validation_is_that_of_the_committed_calibration(recorded):
    at = Conditions(DEVICE, DEVICE.mode("MAXN_SUPER"), find_calibration(DEVICE))
    ours, committed = validate(list(recorded.values()), at).to_json(), json.loads(RESULT.read_text(encoding="utf-8"))
    assert committed["estimate"] is True
    for mine, theirs in zip(ours.pop("rows"), committed.pop("rows"), strict=True):
        assert mine == pytest.approx(theirs)
    assert ours.pop("median_abs_error_by_mode") == pytest.approx(committed.pop("median_abs_error_by_mode"))
    assert ours == pytest.approx(committed)


def test_no_row_of_the_paper_is_fitted():
    assert not any("paper" in row.source for row in published_rows())


def test_nearly_all_flops_of_the_graphs_are_in_kernels():
    for name in published.engine_names():
        assert published.engine(name).claimed_flops == pytest.approx(1, abs=0.01), name
