"""RT-DETR R18 with FINE at 640 x 640 through NVIDIA's compiler, as its engines are built: kernels and fused attentions.

The bars are those of the paper's claim that FINE costs next to nothing; 166 kernels is what RT-DETR's official
repository's own export of R18 compiles to. One model compiles here, and must come out as bench/matrix.json says: what
that file says of the others, which ``make matrix`` has compiled, is held to the same bars without compiling them again.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import onnx
import pytest

from fine_edge import machine
from fine_edge.engine.build import obtain_engine
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.source import onnx_name
from fine_edge.export import exporter
from fine_edge.export.artifacts import ensure_exported
from fine_edge.export.request import ExportRequest
from fine_edge.graph.checks import check

pytestmark = pytest.mark.host

OFFICIAL_KERNELS = 166
# What the decoder's three layers take more where they gather rows, which are faster by estimate.
OF_ROWS = 6
BASELINE, FINE, LINEAR = "rtdetr_r18", "rtdetr_r18_fine", "rtdetr_r18_fine_linear"
# One attention of the encoder and three of the decoder; FINE adds two where it has a softmax over tokens.
FUSED = {BASELINE: 4, FINE: 6, LINEAR: 4}
MATRIX = json.loads((Path(__file__).parents[2] / "bench" / "matrix.json").read_text(encoding="utf-8"))
ROWS = {row["model"]: row for row in MATRIX["rows"]}
# What decides how many kernels a graph has: who traced it and who compiled it.
MAKERS = ("torch", "transformers", "onnxscript", "tensorrt-rtx-cu12")


@pytest.fixture(scope="module")
def folder():
    """Without golden outputs, which no compiler reads."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        path = Path(name)
        patch.setattr(exporter, "_golden", lambda *_: b"")
        ensure_exported(ExportRequest(FINE, precision="fp16"), path)
        yield path


@pytest.fixture(scope="module")
def compiled(folder):
    """The manifest of the FP16 engine."""
    return obtain_engine(folder / onnx_name(FINE, "fp16"), BuildOptions("fp16", "rtx-sm86"), folder).manifest


def without_postprocessing(path: Path, target: Path) -> None:
    """Cut a graph where its postprocessing begins."""
    model = onnx.load(path)
    last = [node.name.startswith("/postprocess/") for node in model.graph.node]
    made = {name for node, is_last in zip(model.graph.node, last, strict=True) if not is_last for name in node.output}
    read = {name for node, is_last in zip(model.graph.node, last, strict=True) if is_last for name in node.input}
    onnx.save(onnx.utils.Extractor(model).extract_model(["images"], sorted(made & read)), target)


@pytest.mark.slow("bench/matrix.json")
def test_the_matrix_is_not_older_than_the_exporter(compiled):
    """Kernels, fused attentions and memory of what is exported now are those that the matrix has."""
    row = ROWS[FINE]
    if {name: machine.version(name) for name in MAKERS} == {name: MATRIX["libraries"][name] for name in MAKERS}:
        assert (compiled.kernels, compiled.fused_attention) == (row["rtx_kernels"], row["fused_attention"])
        assert compiled.activation_mib == pytest.approx(row["activation_mib"], abs=0.01)
    assert compiled.model == FINE
    assert compiled.fused_attention == FUSED[FINE]
    assert 100 < compiled.kernels < 200
    assert compiled.activation_mib > 0


@pytest.mark.slow("bench/matrix.json")
def test_no_more_kernels_than_the_official_export_but_those_of_rows(folder):
    """Which has no postprocessing, so this is compiled without it too."""
    path = folder / f"{FINE}.dense.fp16.onnx"
    without_postprocessing(folder / onnx_name(FINE, "fp16"), path)
    dense = obtain_engine(path, BuildOptions("fp16", "rtx-sm86"), folder).manifest
    assert 100 < dense.kernels <= OFFICIAL_KERNELS + OF_ROWS
    assert dense.fused_attention == FUSED[FINE]
    assert ROWS[BASELINE]["rtx_kernels"] <= OFFICIAL_KERNELS, "with its postprocessing"


def test_fine_is_fused_and_free():
    baseline, fine = ROWS[BASELINE], ROWS[FINE]
    assert fine["rtx_kernels"] <= baseline["rtx_kernels"] + 26
    assert 0 < fine["activation_mib"] <= baseline["activation_mib"]


@pytest.mark.parametrize("model", FUSED)
def test_each_attention_becomes_one_kernel(model):
    assert ROWS[model]["fused_attention"] == FUSED[model]
    # 146 to 184 for R18; a graph that falls apart has hundreds more.
    assert 100 < ROWS[model]["rtx_kernels"] < 200


@pytest.mark.slow("bench/matrix.json")
def test_fp32_compiles_as_well_and_fuses_no_attention(folder):
    manifest = obtain_engine(folder / onnx_name(FINE, "fp32"), BuildOptions("fp32", "rtx-sm86"), folder).manifest
    assert (manifest.model, manifest.fused_attention) == (FINE, 0)
    assert 100 < manifest.kernels < 250


@pytest.mark.slow("bench/matrix.json")
def test_no_rule_of_the_graph_is_broken(folder):
    graph = onnx.load(folder / onnx_name(FINE, "fp16"))
    assert [finding for finding in check(graph) if finding.severity == "error"] == []
