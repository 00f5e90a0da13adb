"""Calibrating on a user's own records."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import works

from fine_edge.bench.row import Row
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.estimate import fit
from fine_edge.estimate.calibration import find_calibration
from fine_edge.estimate.device import find_device
from fine_edge.estimate.roofline import kernel_times
from fine_edge.files import sha256_of

DEVICE = find_device("orin-nano-8gb")
MODE = DEVICE.mode("25W")
KNOWN = find_calibration(DEVICE)
TRUE = replace(KNOWN.constants, tensor_share=0.6, memory_share=0.7, gather_share=0.2, kernel_clocks=6000.0)


def row(model, sha256, compute_ms, copied_ms):
    """As the bench on a device writes it."""
    return Row(
        model=model,
        attention=None,
        complexity="-",
        params_m=None,
        flops_g=None,
        mem_mib=None,
        weights_mib=1.0,
        rtx=None,
        artifact_sha256=sha256,
        random_weights=True,
        baseline=model,
        input_hw=(640, 640),
        samples_ms=(compute_ms + copied_ms,) * 3,
        throughput=(),
        compute_ms=(compute_ms,) * 3,
    )


@pytest.fixture
def board(tmp_path, monkeypatch):
    """A folder of ONNX files, and a record of what a board of known constants took for them."""
    engines, rows = {}, []
    for name, engine in works.recorded().items():
        path = tmp_path / f"{name}.onnx"
        path.write_text(name)
        engines[path] = engine
        ms = sum(kernel.ms for kernel in kernel_times(engine.works, DEVICE, MODE, TRUE))
        rows.append(row(name, sha256_of(path), ms, engine.io_bytes / 15e6))
    record = SimpleNamespace(backend="tensorrt", estimate=False, cuda_graph=True, rows=tuple(rows))
    monkeypatch.setattr(fit, "read_record", lambda _: record)
    monkeypatch.setattr(fit, "engine_work", lambda path, *_: engines[path])
    return tmp_path, record


def test_the_constants_of_a_board_are_found(board):
    folder, _ = board
    found = fit.calibrate_on_records([folder / "mine.json"], DEVICE, MODE, folder, KNOWN)
    assert found.constants.tensor_share == pytest.approx(0.6, rel=0.02)
    assert found.constants.gate_slots == KNOWN.constants.gate_slots
    assert found.constants.copy_gb_s == pytest.approx(15, rel=0.01)
    assert found.origin == "own records mine.json (14 models)"
    assert found.mode == "25W"
    assert max(map(abs, found.left_out.values())) < 0.02
    assert found.interval("fp16", DEVICE) == pytest.approx((1, 1), abs=0.02)
    assert found.intervals["int8"] == KNOWN.intervals["int8"]


def test_a_file_that_was_not_brought_is_named(board):
    folder, _ = board
    (folder / "yolov8s.onnx").unlink()
    with pytest.raises(ArtifactError, match="the ONNX file of yolov8s is not here"):
        fit.calibrate_on_records([folder / "mine.json"], DEVICE, MODE, folder, KNOWN)


def test_three_models_are_too_few(board):
    folder, record = board
    record.rows = record.rows[:3]
    with pytest.raises(ConfigError, match="3 measured rows cannot tell"):
        fit.calibrate_on_records([folder / "mine.json"], DEVICE, MODE, folder, KNOWN)
