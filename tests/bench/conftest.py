"""Tiny exports and a made-up record, so that the bench is tested without torch."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_bench import as_on_a_device, as_pairs, make_row, write_tiny_artifact, write_tiny_onnx

from fine_edge import machine
from fine_edge.bench import backends, measure, prepare, session
from fine_edge.bench.measure import HarnessCost
from fine_edge.bench.record import Record


@pytest.fixture
def tiny_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are tiny convolutions, warming up and throughput slices short."""

    def export(request, folder: Path) -> Path:
        path = folder / f"{request.model}.onnx"
        return path if path.exists() else write_tiny_artifact(folder, request.model, request.input_hw)

    def export_plainly(request, folder: Path) -> Path:
        write_tiny_onnx(folder / f"{request.model}.plain.onnx", request.input_hw)
        return folder / f"{request.model}.plain.onnx"

    monkeypatch.setattr(prepare, "exported", export)
    monkeypatch.setattr(prepare, "exported_plainly", export_plainly)
    monkeypatch.setattr(session, "require_library", lambda *_arguments, **_options: None)
    monkeypatch.setattr(backends, "SLICE_MS", 5.0)
    monkeypatch.setattr(measure, "WARMUP_MS", 1.0)
    # A collection before each measurement costs more than the rest, after the imports of a whole run of the tests.
    monkeypatch.setattr(measure, "no_garbage_collection", nullcontext)


@pytest.fixture
def record() -> Record:
    """Two rows over eight rounds with a drift of the machine: the second always 1.2 times the first."""
    base = [400.0 + 2 * i for i in range(8)]
    rows = (
        make_row("rtdetr_r18", None, base, 12.81),
        make_row("rtdetr_r18_fine", "aats", [1.2 * sample for sample in base], 13.24),
    )
    return Record(
        suite="table3",
        title="Table 3",
        backend="onnxruntime-cpu",
        precision="fp32",
        input_hw=(640, 640),
        machine={**machine.describe(), "cpu": "Test CPU"},
        images=("skimage/coffee.png",),
        rounds=8,
        threads=None,
        quick=False,
        measured_at="2026-01-01T00:00:00+00:00",
        harness=HarnessCost(0.0006, 0.0005),
        rows=rows,
    )


@pytest.fixture
def pairs_record(record) -> Record:
    """Two pairs of Table 1 as the bench writes them since there are groups; made up."""
    return as_pairs(record, {"rtdetr_r18": (400.0, 1.02, (80, 78)), "yolov8s": (100.0, 1.05, (189, 177))})


@pytest.fixture
def with_samples(record: Record):
    """The record with other samples in its second row."""

    def replaced(samples_ms: list[float]) -> Record:
        row = replace(record.rows[1], samples_ms=tuple(samples_ms))
        return replace(record, rows=(record.rows[0], row))

    return replaced


@pytest.fixture
def device_record(record: Record) -> Record:
    """The same rows as if a Jetson had measured them: made up, no device took part."""
    return as_on_a_device(record)
