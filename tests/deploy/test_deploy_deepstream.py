"""What DeepStream finds with the files equals what this program finds: the consumer is written by its documents."""

import json

import onnx
import pytest
from nvinfer import detect, read_config
from responsive import IMAGENET, assert_same, predicted, write_responsive
from skimage import data
from tiny_detector import open_batch

from fine_edge.cli.deploy import main
from fine_edge.contract import bound_contract
from fine_edge.graph.checks import check
from fine_edge.preprocess import Preprocessing

PHOTOGRAPH = data.astronaut()[:360]  # 512 x 360

HOWS = {
    "stretched": Preprocessing(),
    "stretched, one std": Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
    "stretched, a std a channel": Preprocessing(**IMAGENET),
    "padded below": Preprocessing("letterbox", pad_value=0, **IMAGENET),
    "padded around": Preprocessing("letterbox", pad_value=0, align="center"),
}


@pytest.mark.parametrize("how", HOWS)
def test_nvinfer_and_its_parser_find_what_predict_finds(tmp_path, how):
    path = write_responsive(tmp_path, HOWS[how])
    assert main(["deepstream", str(path), "--out", str(tmp_path / "out"), "--threshold", "0.3"]) == 0
    folder = tmp_path / "out" / "tiny"
    assert_same(detect(folder, PHOTOGRAPH), predicted(path, PHOTOGRAPH, 0.3))
    # Only a scale for each channel needs a node: nvinfer has one factor.
    kinds = [node.op_type for node in onnx.load(folder / "tiny.onnx").graph.node]
    assert (kinds[0] == "Mul") == (("std" in how and "channel" in how) or how == "padded below")
    contract, _ = bound_contract(folder / "tiny.onnx")
    assert [(spec.name, spec.shape) for spec in contract.outputs] == [("output", (1, 3, 6))]
    assert set(contract.preprocessing.std) == {1.0}


def test_a_batch_and_its_configuration(tmp_path, capsys):
    path = write_responsive(tmp_path, Preprocessing(), batch=2)
    parser = "/opt/parser/lib.so"
    arguments = ["deepstream", str(path), "--out", str(tmp_path / "out"), "--name", "street", "--parser", parser]
    assert main([*arguments, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert (listed["target"], listed["model"]) == ("deepstream", "street")
    folder = tmp_path / "out" / "street"
    assert {file["path"] for file in listed["files"]} | {"deploy.json"} == {path.name for path in folder.iterdir()}
    keys = read_config(folder / "config_infer_primary.txt")["property"]
    expected = {
        "batch-size": "2",
        "infer-dims": "3;64;64",
        "network-mode": "0",
        "scaling-filter": "1",
        "num-detected-classes": "3",
        "onnx-file": "street.onnx",
        "custom-lib-path": parser,
        "parse-bbox-func-name": "NvDsInferParseYolo",
    }
    assert {key: keys[key] for key in expected} == expected
    app = read_config(folder / "deepstream_app_config.txt")
    assert app["primary-gie"]["config-file"] == "config_infer_primary.txt"
    assert (app["streammux"]["batch-size"], app["primary-gie"]["gie-unique-id"]) == ("2", keys["gie-unique-id"])
    assert (folder / "labels.txt").read_text() == "cat\ndog\n[owl]\n"
    assert_same(detect(folder, PHOTOGRAPH), predicted(path, PHOTOGRAPH, 0.5))


def test_an_open_batch_stays_open(tmp_path):
    path = open_batch(write_responsive(tmp_path, HOWS["stretched, a std a channel"]), (1, 4, 8))
    assert main(["deepstream", str(path), "--out", str(tmp_path / "out"), "--threshold", "0.3"]) == 0
    folder = tmp_path / "out" / "tiny"
    assert read_config(folder / "config_infer_primary.txt")["property"]["batch-size"] == "8"
    assert_same(detect(folder, PHOTOGRAPH), predicted(path, PHOTOGRAPH, 0.3))
    rewritten = onnx.load(folder / "tiny.onnx")
    dims = rewritten.graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 6]
    assert [finding for finding in check(rewritten, folder / "tiny.onnx") if finding.severity == "error"] == []


def test_padding_that_nvinfer_cannot_do_is_told(tmp_path, capsys):
    path = write_responsive(tmp_path, Preprocessing("letterbox", pad_value=None))
    assert main(["deepstream", str(path), "--out", str(tmp_path / "out")]) == 0
    assert "pads with black" in " ".join(capsys.readouterr().out.split())
    assert "zeros behind the normalisation" in (tmp_path / "out" / "tiny" / "README.md").read_text()


def test_the_rewritten_graph_passes_the_rules(tmp_path):
    path = write_responsive(tmp_path, HOWS["stretched, a std a channel"])
    assert main(["deepstream", str(path), "--out", str(tmp_path / "out")]) == 0
    rewritten = tmp_path / "out" / "tiny" / "tiny.onnx"
    assert [finding for finding in check(onnx.load(rewritten), rewritten) if finding.severity == "error"] == []
