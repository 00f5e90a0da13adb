"""Calibrating on a user's own records."""

from types import SimpleNamespace

import pytest
import works

from fine_edge.bench.row import Row
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.estimate import fit
from fine_edge.estimate.calibration import Constants
from fine_edge.estimate.device import find_device
from fine_edge.estimate.roofline import kernel_times
from fine_edge.files import sha256_of

DEVICE = find_device("orin-nano-8gb")
MODE = DEVICE.mode("25W")
TRUE = Constants(0.6, 0.7, 0.2, 6.0, 15.0)


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
    record = SimpleNamespace(backend="tensorrt", estimate=False, rows=tuple(rows))
    monkeypatch.setattr(fit, "read_record", lambda _: record)
    monkeypatch.setattr(fit, "engine_work", lambda path, *_: engines[path])
    return tmp_path, record


def test_the_constants_of_a_board_are_found(board):
    folder, _ = board
    found = fit.calibrate_on_records([folder / "mine.json"], DEVICE, MODE, folder)
    assert found.constants.memory_share == pytest.approx(0.7, rel=0.02)
    assert found.constants.copy_gb_s == pytest.approx(15, rel=0.01)
    assert found.origin == "own records mine.json (14 models)"
    assert found.mode == "25W"
    assert max(map(abs, found.left_out.values())) < 0.02


def test_a_file_that_was_not_brought_is_named(board):
    folder, _ = board
    (folder / "yolov8s.onnx").unlink()
    with pytest.raises(ArtifactError, match="the ONNX file of yolov8s is not here"):
        fit.calibrate_on_records([folder / "mine.json"], DEVICE, MODE, folder)


def test_three_models_are_too_few(board):
    folder, record = board
    record.rows = record.rows[:3]
    with pytest.raises(ConfigError, match="cannot give 4 constants"):
        fit.calibrate_on_records([folder / "mine.json"], DEVICE, MODE, folder)
