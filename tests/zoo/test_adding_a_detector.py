"""The worked example of CONTRIBUTING.md: what it says works, word for word."""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from pathlib import Path

import pytest

from fine_edge.export.artifacts import ensure_exported
from fine_edge.export.request import ExportRequest
from fine_edge.images import sample_photographs
from fine_edge.parity.references import against_pytorch
from fine_edge.runners.ort import OrtRunner
from fine_edge.zoo import catalog

ROOT = Path(__file__).parent.parent.parent
SECTION = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Adding a detector")[1].split("\n## ")[0]


@pytest.fixture
def detector(tmp_path, monkeypatch):
    """The file under its name, and the line in the list."""
    source, line = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
    path = tmp_path / "retinanet_small.py"
    path.write_text(source)
    name = "fine_edge.zoo.retinanet_small.family"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    added = eval(line, vars(catalog))
    monkeypatch.setattr(catalog, "DETECTORS", (*catalog.DETECTORS, added))
    for entry in catalog._entries(added):
        monkeypatch.setitem(catalog.CATALOG, entry.name, entry)
    return added


@pytest.mark.slow("CONTRIBUTING.md")
def test_the_example_is_exported_and_finds_what_pytorch_finds(detector):
    assert [catalog.find(f"{detector.name}{end}").attention for end in ("", "_fine", "_fine_window")] == [
        None,
        "aats",
        "window",
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = ensure_exported(ExportRequest("retinanet_r18_fine", height=320, width=320), Path(folder))
        report = against_pytorch(path, OrtRunner(path), sample_photographs()[:2])
    assert report.ok, report.worst
    assert report.detections.matched > 5
