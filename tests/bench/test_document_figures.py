"""Figures in the documents are those of the committed records."""

import json
import re
from pathlib import Path

import pytest

from fine_edge.bench.record import read_record

ROOT = Path(__file__).parents[2]
FIGURES = (ROOT / "docs" / "FIGURES.md").read_text(encoding="utf-8")
DETECTORS = {
    "RT-DETR R18": "rtdetr_r18",
    "RT-DETR R50": "rtdetr_r50",
    "YOLOv8-S": "yolov8s",
    "YOLOv10-S": "yolov10s",
    "YOLOv12-S": "yolov12s",
}


def shown(record, model):
    row = next(row for row in record.rows if row.model == model)
    ratio = record.ratio(row)
    return f"{ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


@pytest.mark.parametrize("detector", DETECTORS)
def test_what_fine_costs_each_detector(detector):
    line = next(line for line in FIGURES.splitlines() if line.startswith(f"| {detector} |"))
    flops, one_thread, two_threads, _ = (cell.strip() for cell in line.strip("| ").split(" | ")[1:])
    model = DETECTORS[detector]
    records = [
        read_record(ROOT / "bench/results" / f"{name}_onnxruntime_x86.json") for name in ("table1_1thread", "table1")
    ]
    assert [one_thread, two_threads] == [shown(record, f"{model}_fine") for record in records]
    assert (records[0].threads, records[1].threads) == (1, None)
    params = {row.model: row.flops_g for row in records[0].rows}
    assert flops == f"{params[f'{model}_fine'] / params[model]:.3f}"


def test_ours_over_the_librarys_own_export():
    record = read_record(ROOT / "bench/results/exporters_all_onnxruntime_x86.json")
    lines = re.findall(r"^\| `(\w+)`(?:, raw outputs)? \| \d+x\d+ \| (\S+ \(\S+ to \S+\)) \|$", FIGURES, re.MULTILINE)
    assert len(lines) == 6
    for model, ratio in lines:
        assert ratio == shown(record, model)
        assert record.ratio(next(row for row in record.rows if row.model == model)).value < 1


def test_every_record_says_what_made_it():
    records = sorted((ROOT / "bench/results").glob("*.json"))
    assert len(records) >= 5
    for path in records:
        data = json.loads(path.read_text(encoding="utf-8"))
        assert data["machine"]["cpu"]
        assert all(len(row["artifact_sha256"]) == 64 for row in data["rows"])


def test_table_3_of_the_readme_is_the_records():
    record = read_record(ROOT / "bench/results/table3_onnxruntime_x86.json")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = {"": "none", "_fine_vanilla": "Vanilla", "_fine_window": "Window", "_fine_area": "Area"}
    names |= {"_fine_linear": "Linear", "_fine": "AATS"}
    for end, name in names.items():
        model = f"rtdetr_r18{end}"
        row = next(row for row in record.rows if row.model == model)
        cells = [
            f"{row.params_m:.1f}",
            f"{row.flops_g:.2f}",
            f"{row.latency_ms:.1f}",
            shown(record, model) if end else "1",
        ]
        assert f"| {name} | {' | '.join(cells)} |" in readme
