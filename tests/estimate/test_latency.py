"""An estimate, its tables and its pictures."""

from dataclasses import replace

import pytest
import works
from terminal import WIDTHS, assert_fits

from fine_edge.estimate.calibration import Calibration, Interval
from fine_edge.estimate.device import find_device
from fine_edge.estimate.flops import SelectedKernels
from fine_edge.estimate.latency import Conditions, context_mib, estimate
from fine_edge.estimate.picture import write_estimate, write_sweep, write_validation
from fine_edge.estimate.published import MEASURED
from fine_edge.estimate.published import engine as engine_of
from fine_edge.estimate.tables import MARK, estimate_table, kernels_table, suite_table
from fine_edge.estimate.validate import Validation, ValidationRow
from fine_edge.estimate.variants import variants
from fine_edge.zoo.paper import ROWS

DEVICE = find_device("orin-nano-8gb")
CALIBRATION = Calibration(
    devices=("orin-nano-8gb",),
    mode="MAXN_SUPER",
    constants=replace(MEASURED, copy_gb_s=15.0),
    origin="a test",
    rows={},
    left_out={},
    compiler="RTX",
    intervals={"fp16": {"orin-nano": Interval(0.9, 1.2, 20), "orin-nx": Interval(0.8, 1.1, 20)}},
)


def at(mode="MAXN_SUPER", device=DEVICE, **changed):
    return Conditions(device, device.mode(mode), CALIBRATION, **changed)


def made(mode="MAXN_SUPER", **changed):
    return estimate(works.engine(**changed), at(mode))


def test_a_latency_is_its_kernels_and_its_copies():
    found = made()
    assert found.latency_ms == pytest.approx(sum(kernel.ms for kernel in found.kernels) + 4_915_200 / 15e6)
    assert found.fps == pytest.approx(1000 / found.compute_ms)
    assert sum(found.bound_ms.values()) == pytest.approx(found.compute_ms)
    assert sum(found.module_ms().values()) == pytest.approx(found.compute_ms)


def test_the_interval_is_that_of_the_boards_family():
    found = estimate(works.recorded()["rtdetr_r18"], at())
    assert found.latency_ms_low == pytest.approx(0.9 * found.latency_ms)
    assert found.latency_ms_high == pytest.approx(1.2 * found.latency_ms)


def test_what_is_unlike_everything_measured_is_said_and_widens_the_interval():
    kernels = [works.kernel("topk", selections=(SelectedKernels(1, 10**6),)), works.kernel("conv", memory_bytes=10**8)]
    found = estimate(replace(works.engine("net", *kernels), batch=4, quantised=True), at())
    assert found.latency_ms_high == pytest.approx(1.25 * 1.2 * found.latency_ms)
    assert found.fps == pytest.approx(4 * 1000 / found.compute_ms), "pictures a second, not batches"
    assert "of 4 pictures at a time" in estimate_table(found).notes[0]
    warnings = " ".join(found.warnings)
    assert "Only single pictures were measured" in warnings
    assert "Top-k takes" in warnings
    assert "No graph with Q/DQ was measured" in warnings


def test_another_board_int8_and_unfused_attention_are_said():
    kernels = [works.kernel("mha", scores_bytes=64 * 2**20)]
    found = estimate(works.engine("net", *kernels), at("MAXN", find_device("orin-nx-8gb"), precision="int8"))
    warnings = " ".join(found.warnings)
    for said in ("No Jetson Orin NX 8 GB was measured", "INT8 without Q/DQ", "64 MiB of attention's scores"):
        assert said in warnings
    assert context_mib(found.engine).likely == pytest.approx(1.65 * 20 + 128)


def test_without_a_graph_the_host_can_be_what_takes_longest():
    engine = works.engine("net", *[works.kernel(str(number)) for number in range(100)])
    replayed, enqueued = estimate(engine, at()), estimate(engine, at(cuda_graph=False))
    assert enqueued.compute_ms == pytest.approx(100 * DEVICE.enqueue_us / 1e3)
    assert replayed.compute_ms < enqueued.compute_ms
    table = estimate_table(enqueued)
    assert "without CUDA graph" in table.title
    assert f"A call from Python takes {enqueued.compute_ms + MEASURED.call_us / 1e3:.2f} ms" in table.brief[0]


def test_the_context_of_10_7_is_near_what_its_logs_say():
    logs = {
        "rtdetr_r18, FP16": 64.2,
        "rtdetr_r18_fine, 4C, FP32": 139.5,
        "rtdetr_r50, FP16": 109.0,
        "yolov5s_fine, 4C, FP16": 17.2,
        "yolov8s, FP16": 17.0,
        "rtdetr_r18_fine_vanilla, 8 heads, 4C, FP16": 343.9,
        "rtdetr_r18_fine_vanilla, 8 heads, 4C, FP32": 664.5,
    }
    for name, mib in logs.items():
        assert context_mib(engine_of(name)).likely == pytest.approx(mib, rel=0.16), name


def test_a_decoder_is_known_by_how_much_it_samples():
    selecting, sampling = (works.engine("net", works.kernel("k", gathered_bytes=int(mib * 2**20))) for mib in (2.4, 7))
    assert context_mib(selecting).likely == pytest.approx(1.65 * 20)
    assert context_mib(sampling).likely == pytest.approx(3.1 * 20)


def test_json_keeps_its_promise():
    data = made().to_json()
    promised = {"device", "mode", "precision", "estimate", "latency_ms", "latency_ms_low", "latency_ms_high", "fps"}
    promised |= {"compute_ms", "context_mib", "warnings", "kernels"}
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
    found = estimate(works.recorded()["rtdetr_r18_fine"], at("15W"))
    published = {row.model: row for row in ROWS if row.table == "3"}
    rows = (ValidationRow("rtdetr_r18_fine_vanilla", 57.0, 55.5),)
    validation = Validation(rows, "a test", "orin-nano-8gb", "15W", "RTX", {"15W": 0.026, "MAXN_SUPER": 0.4})
    made = [estimate_table(found), kernels_table(found), suite_table("a suite", [found], published), validation.table()]
    for table in made:
        assert_fits(table, width)


def test_the_slowest_kernels_come_first():
    names = [row[0] for row in kernels_table(made(), 2).rows]
    assert names == ["conv", "pool"]


def test_an_engine_too_large_is_said_not_to_fit():
    assert not estimate(replace(works.engine(), weights_mib=9000.0), at()).fits


def test_pictures_are_written(tmp_path):
    found = made()
    write_estimate(found, tmp_path / "a.png")
    points = variants("r", None)
    write_sweep("over r", dict.fromkeys((points[0].without_fine, *points), found), tmp_path / "b.png")
    rows = (ValidationRow("rtdetr_r18", 80, 82), ValidationRow("yolov8s", 189, 170))
    validation = Validation(rows, "logs", "orin-nano-8gb", "MAXN_SUPER", "RTX", {})
    write_validation(validation, tmp_path / "c.png")
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("a.png", "b.png", "c.png"))


def test_validation_of_made_up_rows():
    rows = (ValidationRow("a", 100, 110), ValidationRow("b", 100, 98), ValidationRow("c", 50, 45))
    found = Validation(rows, "logs", "d", "m", "RTX", {"m": 0.1})
    assert found.median_abs_error == pytest.approx(0.1)
    assert found.worst_abs_error == pytest.approx(0.1)
    promised = {"rows", "median_abs_error", "worst_abs_error", "calibrated_on"}
    assert promised <= found.to_json().keys()
    assert set(found.to_json()["rows"][0]) == {"model", "fps_paper", "fps_predicted", "error"}
    assert found.table().rows[0] == ["a", "100", "110.0", "+10.0"]
