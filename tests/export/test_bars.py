"""What NVIDIA's compiler makes of the FP16 exports at 640 x 640: kernels, fused attentions and activation memory.

The bars are those of the paper's claim that FINE costs next to nothing; 166 kernels is what RT-DETR's official
repository's own export of R18 compiles to.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import pytest

from fine_edge.engine.inspect import inspect
from fine_edge.export.artifacts import ensure_exported
from fine_edge.export.request import ExportRequest
from fine_edge.graph.checks import check

OFFICIAL_KERNELS = 166


@pytest.fixture(scope="module")
def compiled():
    """Model name to its FP16 file and what became of it."""
    with tempfile.TemporaryDirectory() as name:
        found = {}
        for model in ("rtdetr_r18", "rtdetr_r18_fine"):
            path = ensure_exported(ExportRequest(model, precision="fp16", raw=True), Path(name))
            found[model] = (path, inspect(path).compiled)
        yield found


def test_the_baseline_needs_no_more_kernels_than_the_official_export(compiled):
    _, baseline = compiled["rtdetr_r18"]
    assert 0 < len(baseline.kernels) <= OFFICIAL_KERNELS
    assert baseline.fused_attention == 4


def test_fine_is_fused_and_free(compiled):
    (_, baseline), (_, fine) = compiled["rtdetr_r18"], compiled["rtdetr_r18_fine"]
    assert fine.fused_attention == 6
    assert len(fine.kernels) <= len(baseline.kernels) + 26
    assert len(fine.kernels) <= OFFICIAL_KERNELS


def test_fine_needs_no_more_activation_memory(compiled):
    (_, baseline), (_, fine) = compiled["rtdetr_r18"], compiled["rtdetr_r18_fine"]
    assert 0 < fine.activation_mib <= baseline.activation_mib


@pytest.mark.parametrize("model", ["rtdetr_r18", "rtdetr_r18_fine"])
def test_no_rule_of_the_graph_is_broken(compiled, model):
    path, _ = compiled[model]
    assert [finding for finding in check(onnx.load(path)) if finding.severity == "error"] == []
