"""The way of an exported detector to FP16: nothing to hint as it is, an overflow planted, found, kept and gone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from exports import keep_only_fp32, trace_from
from onnx import TensorProto as T
from onnx import numpy_helper
from planted import pictures

from fine_edge.cli.export import main as export_main
from fine_edge.cli.graph import main
from fine_edge.contract import bound_contract, contract_path, read_contract
from fine_edge.errors import ConfigError
from fine_edge.export.artifacts import existing
from fine_edge.export.request import ExportRequest
from fine_edge.files import sha256_of
from fine_edge.fp16.keep_list import read_keep_list
from fine_edge.graph.view import GraphView

pytestmark = [pytest.mark.host, pytest.mark.slow]

MODEL = "rtdetr_r18_fine"
REQUEST = ExportRequest(MODEL, height=160, width=160)


@pytest.fixture(scope="module")
def engines(tmp_path_factory, export_store):
    """An export of FP32 alone."""
    half = replace(REQUEST, precision="fp16")
    folder = export_store.linked(half, tmp_path_factory.mktemp("exported") / "engines")
    keep_only_fp32(folder, half)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    pictures(folder, 1)
    return folder


def study(capsys, *arguments):
    code = main(["fp16", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def plant(path, target, factor):
    """Scale a linear layer of the decoder up and the next one down: FP32 computes the same. Returns their names."""
    model = onnx.load(path)
    view = GraphView(model)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def following(node, op_type):
        readers = view.consumers(node.output[0]) if node is not None else []
        return readers[0] if len(readers) == 1 and readers[0].op_type == op_type else None

    for first in model.graph.node:
        if first.op_type != "MatMul" or not first.name.startswith("/detector/decoder.0/"):
            continue
        add = following(first, "Add")
        relu = following(add, "Relu")
        second = following(relu, "MatMul")
        if second is not None:
            break
    else:
        raise AssertionError("no two consecutive linear layers")
    for scale, names in ((factor, (first.input[1], add.input[1])), (1 / factor, (second.input[1],))):
        for name in names:
            assert len(view.consumers(name)) == 1
            values = numpy_helper.to_array(weights[name]) * np.float32(scale)
            weights[name].CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, target)
    contract = read_contract(contract_path(path))
    artifact = replace(contract.artifacts[0], file=target.name, sha256=sha256_of(target))
    contract_path(target).write_text(replace(contract, artifacts=(artifact,)).to_text())
    return [node.name for node in (first, add, relu, second)]


def test_a_planted_overflow_is_found_kept_and_parity_restored(engines, images, tmp_path, capsys):
    target = tmp_path / "planted.onnx"
    first, add, relu, second = plant(engines / f"{MODEL}.onnx", target, 1e5)
    half = tmp_path / "planted.fp16.onnx"
    code, found = study(capsys, target, "--images", images, "--out", half)
    assert code == 0
    by_node = {hazard["node"]: hazard for hazard in found["hazards"]}
    assert "overflow" in by_node[add]["reason"]
    assert by_node[add]["max_abs"] > 65504
    assert {first, add, relu, second} <= set(found["keep_fp32"])
    assert len(found["keep_fp32"]) <= 6  # and hardly anything else
    drift = {row["module"]: row["drift"] for row in found["budget"]}
    assert drift["decoder"]["flipped_share"] > 0.5
    assert drift["all, as exported"]["flipped_share"] > 0.5
    assert drift["encoder"]["flipped_share"] < 0.05
    assert drift["all, with the keep-list"]["flipped_share"] < 0.05
    assert bound_contract(half)[1].precision == "fp16"


def test_a_plain_export_has_no_hazard_and_the_exporter_takes_a_keep_list(
    engines, images, tmp_path, capsys, monkeypatch
):
    """The command and the exporter make the very same file of the same keep-list and the same traced graph."""
    trace_from(engines / f"{MODEL}.onnx", monkeypatch)
    onnx_path, keep, listed = engines / f"{MODEL}.onnx", tmp_path / "keep.txt", tmp_path / "listed.txt"
    name = next(n.name for n in onnx.load(onnx_path).graph.node if n.op_type == "Softmax")
    keep.write_text(f"{name}\n")
    half = engines / f"{MODEL}.fp16.onnx"
    options = ["--images", images, "--keep-fp32", keep, "--out", half, "--keep-list", listed]
    code, found = study(capsys, onnx_path, *options)
    assert (code, found["hazards"], found["keep_fp32"]) == (0, [], [])
    assert found["kept_already"]["by"] == "as the exporter does and --keep-fp32 says"
    modules = ["backbone", "encoder", "fine", "decoder", "postprocess", "all, nothing kept", "all, as exported"]
    assert [row["module"] for row in found["budget"]] == modules
    assert all(row["drift"]["box_px"]["p90"] < 4 for row in found["budget"])
    assert read_keep_list(listed) == (name,)

    arguments = [MODEL, "--input-size", "160", "--keep-fp32", str(keep), "--out", str(tmp_path)]
    with pytest.raises(ConfigError, match="add --precision fp16"):
        export_main(arguments)
    assert export_main([*arguments, "--precision", "fp16"]) == 0
    made_by = read_contract(contract_path(tmp_path / f"{MODEL}.onnx")).made_by
    assert made_by["options"] == REQUEST.options() | {"keep_fp32": [name]}
    assert "keep_fp32" not in REQUEST.options()
    view = GraphView(onnx.load(tmp_path / f"{MODEL}.fp16.onnx"))
    assert view.dtype(next(n for n in view.nodes if n.name == name).output[0]) == T.FLOAT
    assert half.read_bytes() == (tmp_path / f"{MODEL}.fp16.onnx").read_bytes()
    assert existing(replace(REQUEST, precision="fp16", keep_fp32=(name,)), engines) == half
    assert existing(replace(REQUEST, precision="fp16"), engines) is None
