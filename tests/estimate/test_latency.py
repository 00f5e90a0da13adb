"""An estimate, its tables and its pictures."""

import pytest
import works
from terminal import WIDTHS, assert_fits

from fine_edge.estimate.calibration import Calibration, Constants
from fine_edge.estimate.device import find_device
from fine_edge.estimate.latency import estimate
from fine_edge.estimate.picture import write_estimate, write_sweep, write_validation
from fine_edge.estimate.tables import MARK, estimate_table, kernels_table, suite_table
from fine_edge.estimate.validate import Validation, ValidationRow
from fine_edge.estimate.variants import variants
from fine_edge.zoo.paper import ROWS

DEVICE = find_device("orin-nano-8gb")
CALIBRATION = Calibration(
    "orin-nano-8gb", "MAXN_SUPER", Constants(0.5, 0.5, 0.5, 5.0, 15.0), "a test", {}, {"a": 0.05}, "RTX", {"b": -0.1}
)


def made(mode="MAXN_SUPER", **changed):
    return estimate(works.engine(**changed), DEVICE, DEVICE.mode(mode), CALIBRATION)


def test_a_latency_is_its_kernels_and_its_copies():
    found = made()
    assert found.latency_ms == pytest.approx(sum(kernel.ms for kernel in found.kernels) + 4_915_200 / 15e6)
    assert found.fps == pytest.approx(1000 / found.compute_ms)
    assert sum(found.bound_ms.values()) == pytest.approx(found.compute_ms)
    assert sum(found.module_ms().values()) == pytest.approx(found.compute_ms)


def test_the_interval_is_what_unseen_rows_were_off_by():
    found = made()
    assert found.latency_ms_low == pytest.approx(found.latency_ms / 1.05)
    assert found.latency_ms_high == pytest.approx(found.latency_ms / 0.9)


def test_json_keeps_its_promise():
    data = made().to_json()
    promised = {"device", "mode", "estimate", "latency_ms", "latency_ms_low", "latency_ms_high", "fps", "kernels"}
    assert promised <= data.keys()
    assert data["estimate"] is True
    assert set(data["kernels"][0]) == {"name", "ms", "bound", "flops", "bytes", "module"}


def test_every_table_says_what_it_is():
    found = made("15W")
    for table in (estimate_table(found), kernels_table(found), suite_table("a suite", [found], {})):
        assert table.title.startswith(MARK)
    notes = " ".join(estimate_table(found).notes)
    assert "nothing was measured" in notes
    assert "scaled to 15W" in notes
    assert "fits in 8 GiB" in notes


@pytest.mark.parametrize("width", WIDTHS)
def test_every_table_fits_the_terminal(width):
    found = estimate(works.recorded()["rtdetr_r18_fine"], DEVICE, DEVICE.mode("15W"), CALIBRATION)
    published = {row.model: row for row in ROWS if row.table == "3"}
    rows = (ValidationRow("rtdetr_r18_fine_vanilla", 57.0, 55.5),)
    validation = Validation(rows, "a test", "orin-nano-8gb", "15W", "RTX")
    made = [estimate_table(found), kernels_table(found), suite_table("a suite", [found], published), validation.table()]
    for table in made:
        assert_fits(table, width)


def test_the_slowest_kernels_come_first():
    names = [row[0] for row in kernels_table(made(), 2).rows]
    assert names == ["conv", "pool"]


def test_an_engine_too_large_is_said_not_to_fit():
    engine = works.engine()
    large = type(engine)(**{**vars(engine), "weights_mib": 9000.0})
    assert not estimate(large, DEVICE, DEVICE.mode(None), CALIBRATION).fits


def test_pictures_are_written(tmp_path):
    found = made()
    write_estimate(found, tmp_path / "a.png")
    points = variants("r", None)
    write_sweep("over r", dict.fromkeys((points[0].without_fine, *points), found), tmp_path / "b.png")
    rows = (ValidationRow("rtdetr_r18", 80, 82), ValidationRow("yolov8s", 189, 170))
    validation = Validation(rows, "Table 3", "orin-nano-8gb", "MAXN_SUPER", "RTX")
    write_validation(validation, tmp_path / "c.png")
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("a.png", "b.png", "c.png"))


def test_validation_of_made_up_rows():
    rows = (ValidationRow("a", 100, 110), ValidationRow("b", 100, 98), ValidationRow("c", 50, 45))
    found = Validation(rows, "Table 3", "d", "m", "RTX")
    assert found.median_abs_error == pytest.approx(0.1)
    assert found.worst_abs_error == pytest.approx(0.1)
    promised = {"rows", "median_abs_error", "worst_abs_error", "calibrated_on"}
    assert promised <= found.to_json().keys()
    assert set(found.to_json()["rows"][0]) == {"model", "fps_paper", "fps_predicted", "error"}
    assert found.table().rows[0] == ["a", "100", "110.0", "+10.0"]
