"""What each stage makes of what it meets; the one whole model is the smallest that RT-DETR has queries for."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from made_up_stages import write_artifacts
from onnx import TensorProto, helper

from fine_edge.cli.matrix import main
from fine_edge.detections import Agreement
from fine_edge.engine import supervise
from fine_edge.errors import MissingExtraError
from fine_edge.export.request import ExportRequest
from fine_edge.matrix import stages
from fine_edge.matrix.row import ABSENT, OK, STAGES, UNREACHED, MatrixJob, MatrixRow
from fine_edge.parity.report import TOLERANCES, ParityReport, TensorDrift

NEW = MatrixRow("rtdetr_r18", (64, 64))


@pytest.fixture
def job(tmp_path):
    return MatrixJob("rtdetr_r18", 64, 64, tmp_path)


def write_graph(path, *, sides):
    """A ReLU; a side called by a name makes its shape dynamic, which is an error."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, *sides]) for name in ("images", "out")]
    graph = helper.make_graph([helper.make_node("Relu", ["images"], ["out"], name="/relu")], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def test_rules_look_at_both_files(job):
    write_graph(job.folder / "rtdetr_r18.onnx", sides=(64, 64))
    write_graph(job.folder / "rtdetr_r18.fp16.onnx", sides=(64, 64))
    assert stages.rules(job, NEW).rules == OK
    write_graph(job.folder / "rtdetr_r18.fp16.onnx", sides=("h", 64))
    row = stages.rules(job, NEW)
    assert row.rules == "fails: 2 errors"  # of the input and of the output
    assert row.note.startswith("rules: FE04 error in fp16 at ")


def report(at_quantile, detections, *, tensors=1):
    drift = TensorDrift("boxes_xyxy", 3.0, 0.1, at_quantile, "street.jpg, row 5", 0.02)
    return ParityReport(
        model="m",
        precision="fp32",
        reference="a",
        candidate="b",
        artifact_sha256="0",
        random_weights=True,
        inputs=("street.jpg",),
        near_ties=(),
        tensors=(drift,) * tensors,
        detections=detections,
        tolerance=TOLERANCES["fp32"],
    )


def test_parity_names_the_output_nearest_to_its_tolerance():
    row = stages.judged(report(0.01, Agreement(34, 0, 1, 0.0, 0.0)), NEW, "parity_fp32")
    assert row.parity_fp32 == "ok: boxes_xyxy 0.01 of 0.02, 34 matched"
    assert row.note == ""
    assert stages.judged(report(0.01, None), NEW, "parity_fp32").parity_fp32 == "ok: boxes_xyxy 0.01 of 0.02"


def test_parity_fails_beyond_tolerance_or_where_detections_flip():
    row = stages.judged(report(np.inf, Agreement(34, 0, 1, 0.0, 0.0)), NEW, "parity_fp32")
    assert row.parity_fp32 == "fails: boxes_xyxy inf of 0.02"
    assert "largest 3 at street.jpg, row 5" in row.note
    row = stages.judged(report(0.01, Agreement(9, 2, 0, 0.0, 0.0)), NEW, "parity_fp32")
    assert row.parity_fp32 == "fails: 10.0% of the detections flipped, at most 0.0% may"


@pytest.mark.parametrize(("found", "tensors"), [(Agreement(0, 0, 3, 0.0, 0.0), 1), (Agreement(5, 0, 0, 0.0, 0.0), 0)])
def test_a_comparison_of_nothing_is_no_parity(found, tensors):
    row = stages.judged(report(0.0, found, tensors=tensors), NEW, "parity_fp32")
    assert row.parity_fp32 == "fails: nothing was found that could be compared"


def test_a_machine_without_the_compiler_says_how_to_get_it(job, monkeypatch):
    def missing(_target):
        raise MissingExtraError("tensorrt_rtx", "rtx")

    monkeypatch.setattr(supervise, "require_builder", missing)
    row = stages.rtx(job, NEW)
    assert [row.cells[name] for name in STAGES["rtx"]] == [ABSENT, UNREACHED, UNREACHED]
    assert row.note == "rtx: this needs tensorrt_rtx -> pip install 'fine-edge[rtx]'"


@pytest.mark.parametrize("lost", [(), ("fp32",)])
def test_the_export_says_which_files_it_stands_for(job, monkeypatch, lost):
    """The FP32 file is written with the FP16 one, and asked for only where it has been lost since."""
    asked = []

    def ensure_exported(request, folder):
        write_artifacts(job)
        asked.append(request.precision)
        for precision in lost if request.precision == "fp16" else ():
            (folder / job.request(precision).onnx_name()).unlink()
        return folder / request.onnx_name()

    monkeypatch.setattr(stages, "ensure_exported", ensure_exported)
    row = stages.export(job, NEW)
    assert asked == ["fp16", *lost]
    assert row.export == OK
    assert {precision: len(sha256) for precision, sha256 in row.artifacts.items()} == {"fp32": 64, "fp16": 64}


@pytest.mark.slow
@pytest.mark.host
def test_a_real_model_passes_every_stage(tmp_path, export_store):
    """The export's files are there already, as they are after an earlier run of the matrix."""
    out, file = tmp_path / "engines", tmp_path / "matrix.json"
    export_store.linked(ExportRequest("rtdetr_r18_fine", precision="fp16", height=160, width=160), out)
    arguments = ["rtdetr_r18_fine", "--input-size", "160", "--photographs", "1", "--out", str(out), "--json", str(file)]
    assert main(arguments) == 0
    row = next(row for row in json.loads(file.read_text())["rows"] if row["model"] == "rtdetr_r18_fine")
    assert row["export"] == "ok"
    assert row["rules"] == "ok: 1 warning"  # attention in FP32 is never fused
    assert row["parity_fp32"].startswith("ok: ")
    assert row["parity_fp16"].startswith("ok: ")
    assert 100 < row["rtx_kernels"] < 300
    assert row["fused_attention"] == 6
    assert row["activation_mib"] > 1
