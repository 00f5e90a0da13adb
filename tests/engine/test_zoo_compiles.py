"""RT-DETR at 640 x 640 through NVIDIA's compiler, as its engines are built: kernels, fused attentions and memory.

The bars are those of the paper's claim that FINE costs next to nothing; 166 kernels is what RT-DETR's official
repository's own export of R18 compiles to. Three models that differ most, each exported once; ``make matrix``
compiles the whole zoo, and what it found is in bench/matrix.json, which tests/matrix holds to the catalogue.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import pytest

from fine_edge.engine.build import obtain_engine
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.source import onnx_name
from fine_edge.export.artifacts import ensure_exported
from fine_edge.export.request import ExportRequest
from fine_edge.graph.checks import check

pytestmark = pytest.mark.host

OFFICIAL_KERNELS = 166
BASELINE, FINE, LINEAR = "rtdetr_r18", "rtdetr_r18_fine", "rtdetr_r18_fine_linear"
# One attention of the encoder and three of the decoder; FINE adds two where it has a softmax over tokens.
FUSED = {BASELINE: 4, FINE: 6, LINEAR: 4}


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def compiled(folder):
    """Manifest of the FP16 engine of each model's raw outputs; its FP32 file lies in the folder as well."""

    def build(model):
        path = ensure_exported(ExportRequest(model, precision="fp16", raw=True), folder)
        return obtain_engine(path, BuildOptions("fp16", "rtx-sm86"), folder).manifest

    return {model: build(model) for model in FUSED}


def test_the_baseline_needs_no_more_kernels_than_the_official_export(compiled):
    assert 100 < compiled[BASELINE].kernels <= OFFICIAL_KERNELS


def test_fine_is_fused_and_free(compiled):
    baseline, fine = compiled[BASELINE], compiled[FINE]
    assert fine.kernels <= baseline.kernels + 26
    assert fine.kernels <= OFFICIAL_KERNELS
    assert 0 < fine.activation_mib <= baseline.activation_mib


@pytest.mark.parametrize("model", FUSED)
def test_each_attention_becomes_one_kernel(compiled, model):
    manifest = compiled[model]
    assert (manifest.model, manifest.fused_attention) == (model, FUSED[model])
    # 141 to 178 for R18; a graph that falls apart has hundreds more.
    assert 100 < manifest.kernels < 200


def test_fp32_compiles_as_well_and_fuses_no_attention(compiled, folder):
    assert FINE in compiled
    manifest = obtain_engine(folder / onnx_name(FINE, "fp32"), BuildOptions("fp32", "rtx-sm86"), folder).manifest
    assert (manifest.model, manifest.fused_attention) == (FINE, 0)
    assert 100 < manifest.kernels < 250


@pytest.mark.parametrize("model", [BASELINE, FINE])
def test_no_rule_of_the_graph_is_broken(compiled, folder, model):
    assert model in compiled
    graph = onnx.load(folder / onnx_name(model, "fp16"))
    assert [finding for finding in check(graph) if finding.severity == "error"] == []
