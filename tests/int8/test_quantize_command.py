from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from convolutional import FIRST, NECK, pictures, write, write_semantic
from graph_builders import node, save, unary, value
from onnx import TensorProto, numpy_helper
from PIL import Image

from fine_edge.board.shipment import artifact_files
from fine_edge.cli import parity
from fine_edge.cli.quantize import main
from fine_edge.contract import bound_contract, read_contract
from fine_edge.engine import platform
from fine_edge.engine.options import BuildOptions
from fine_edge.engine.platform import Platform
from fine_edge.engine.source import engine_name, onnx_name, read_source, require_precision
from fine_edge.errors import ArtifactError, ConfigError, FineEdgeError, ImageError
from fine_edge.export.artifacts import ensure_exported
from fine_edge.export.request import ExportRequest
from fine_edge.int8 import trials
from fine_edge.int8.compiled import GraphCost
from fine_edge.matrix import stages
from fine_edge.matrix.row import UNREACHED, MatrixJob, MatrixRow
from fine_edge.runners.opened import open_onnx


@pytest.fixture(autouse=True)
def compiler(monkeypatch):
    """Stands for NVIDIA's compiler: a kernel more for each INT8 convolution, and less time."""

    def compiled(model, _board, _name):
        pairs = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
        return GraphCost(20 + pairs, 0, 8.0, 4.0 - pairs, 2.0 + 0.1 * pairs, 20, 2.0 - 0.2 * pairs)

    monkeypatch.setattr(trials, "compiled", compiled)
    monkeypatch.setattr(trials, "here", lambda: Platform(rtx="1.7"))


@pytest.fixture
def images(tmp_path):
    return pictures(tmp_path / "images")


def run(*arguments):
    return main([*map(str, arguments)])


def as_json(capsys, *arguments):
    code = run(*arguments, "--json")
    return code, json.loads(capsys.readouterr().out)


def test_the_fastest_placement_is_written_with_its_contract(tmp_path, images, capsys):
    path, out = write(tmp_path / "m"), tmp_path / "out"
    code, found = as_json(capsys, path, "--images", images, "--out", out, "--picture", tmp_path / "p.png")
    assert code == 0
    assert (found["verdict"], found["placement"], found["convolutions"], found["pairs"]) == (
        "int8",
        "backbone+neck",
        3,
        6,
    )
    assert (found["kernels_fp16"], found["kernels_int8"]) == (20, 23)
    assert (found["estimate_fp16_ms"], found["estimate_int8_ms"]) == (2.0, 1.4)
    assert found["drift"]["matched"] >= 60
    assert 0 < found["drift"]["median_box_drift_px"] < 1
    assert found["ap"] is None
    assert [row["placement"] for row in found["candidates"]] == ["backbone", "neck", "backbone+neck"]
    assert list(found["sensitivity"]) == ["backbone /2", "encoder"]
    assert (found["drift_images"], found["sensitivity_images"]) == (8, 4)
    contract, artifact = bound_contract(out / "small.int8.onnx")
    assert [one.file for one in contract.artifacts] == ["small.int8.onnx"]
    assert (artifact.precision, artifact.quantization.images, artifact.quantization.method) == (
        "int8",
        10,
        "percentile",
    )
    assert artifact.quantization.images_sha256 == found["calibration"]["images_sha256"]
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert open_onnx(out / "small.int8.onnx", rounded=True).precision == "int8"
    assert any("1.15 times the kernels of FP16 (23 against 20), of at most 1.2" in text for text in found["reasons"])


def test_golden_outputs_are_those_of_the_int8_graph_on_pictures_like_its_own(tmp_path, images, capsys):
    out = tmp_path / "out"
    run(write(tmp_path / "m"), "--images", images, "--out", out)
    capsys.readouterr()
    engine = out / "small.int8.onnx"
    assert parity.main([str(engine), "--golden", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["precision"], report["inputs"]) == ("int8", ["pictures 1", "pictures 2"])
    assert report["detections"]["matched"] == 16
    assert max(tensor["max_abs"] for tensor in report["tensors"]) == 0
    golden = out / "small.int8.golden.npz"
    assert artifact_files(engine)[-1] == golden
    with np.load(golden) as stored:
        arrays = dict(stored)
    arrays["pictures 2/boxes"] = np.ones_like(arrays["pictures 2/boxes"])
    np.savez(golden, **arrays)
    with pytest.raises(ArtifactError, match="not the one the contract names"):
        parity.main([str(engine), "--golden"])


def test_beside_the_fp32_file_the_contract_lists_both(tmp_path, images):
    path = write(tmp_path / "m")
    assert run(path, "--images", images, "--out", path.parent, "--placement", "neck") == 0
    contract = read_contract(path.with_name("small.contract.json"))
    assert [(one.file, one.precision) for one in contract.artifacts] == [
        ("small.onnx", "fp32"),
        ("small.int8.onnx", "int8"),
    ]
    assert contract.artifacts[0].quantization is None
    assert "quantization" not in json.loads(path.with_name("small.contract.json").read_text())["artifacts"][0]
    with pytest.raises(ArtifactError, match="this file is INT8 already"):
        run(path.with_name("small.int8.onnx"), "--images", images, "--out", tmp_path / "out")


def test_an_engine_of_an_int8_graph_is_int8(tmp_path, images):
    path, out = write(tmp_path / "m"), tmp_path / "out"
    run(path, "--images", images, "--out", out, "--keep", FIRST)
    source = read_source(out / "small.int8.onnx")
    assert source.precision == "int8"
    weights = {tensor.name for tensor in onnx.load(source.path).graph.initializer if tensor.name.endswith("/int8")}
    assert weights == {"second/int8", "neck/int8"}
    options = BuildOptions(precision="int8")
    require_precision(source, options)
    assert options.strongly_typed
    assert engine_name(source, options) == "small.int8.engine"
    assert onnx_name("small", "int8") == "small.int8.onnx"
    with pytest.raises(ArtifactError, match="fp16 is not INT8"):
        require_precision(source, BuildOptions(precision="fp16"))
    with pytest.raises(ArtifactError, match="int8 needs them") as caught:
        require_precision(read_source(path), options)
    assert "quantize small.onnx" in caught.value.hint


def test_a_budget_is_a_gate_and_keeps_modules_in_fp16(tmp_path, images, capsys):
    path, out = write(tmp_path / "m"), tmp_path / "out"
    code, loose = as_json(capsys, path, "--images", images, "--out", out, "--max-box-drift-px", 1)
    assert (code, loose["verdict"]) == (0, "int8")
    drifts = {row["placement"]: row["drift"]["median_box_drift_px"] for row in loose["candidates"]}
    between = (min(drifts.values()) + drifts["backbone+neck"]) / 2
    code, tight = as_json(capsys, path, "--images", images, "--out", out, "--max-box-drift-px", between)
    assert code == 0
    assert tight["drift"]["median_box_drift_px"] <= between
    assert tight["convolutions"] < 3
    code, none = as_json(capsys, path, "--images", images, "--out", tmp_path / "none", "--max-box-drift-px", 0)
    assert (code, none["verdict"]) == (1, "fp16")
    assert "boxes move by" in none["reasons"][0]
    assert none["placement"] == "backbone+neck"  # the best one, when none keeps the limit
    assert "weights are random" in none["reasons"][-1]
    assert not (tmp_path / "none").exists()


def test_a_limit_of_kernels_takes_the_blocks_that_gain_the_least_back_to_fp16(tmp_path, images, capsys):
    path = write(tmp_path / "m")
    given = (path, "--images", images, "--out", tmp_path / "out", "--placement", "convolutions")
    code, found = as_json(capsys, *given, "--max-kernels", 1.1)
    assert (code, found["verdict"], found["placement"]) == (0, "int8", "convolutions without encoder")
    assert [row["compiled"]["kernels"] for row in found["candidates"]] == [23, 22]
    code, found = as_json(capsys, *given, "--max-kernels", 1)
    assert (code, found["verdict"]) == (0, "fp16")  # no limit on what is lost was given
    assert any("1.15 times the kernels" in reason for reason in found["reasons"])
    assert run(*given, "--max-kernels", 1, "--require", "int8") == 1


def test_without_a_compiler_the_detections_decide(tmp_path, images, monkeypatch, capsys):
    monkeypatch.setattr(trials, "here", Platform)
    code, found = as_json(capsys, write(tmp_path / "m"), "--images", images, "--out", tmp_path / "out")
    assert (code, found["verdict"], found["kernels_int8"], found["estimate_int8_ms"]) == (0, "int8", None, None)
    assert "not compiled" in found["reasons"][1]


def test_ap_on_labelled_pictures(tmp_path, images, capsys):
    path = write(tmp_path / "m")
    boxes = [
        {"id": n + 1, "image_id": n + 1, "category_id": 1, "bbox": [2, 2, 20, 20], "area": 400, "iscrowd": 0}
        for n in range(2)
    ]
    data = {
        "images": [{"id": n + 1, "file_name": f"picture0{n}.png", "width": 32, "height": 32} for n in range(2)],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": boxes,
    }
    annotations = tmp_path / "instances.json"
    annotations.write_text(json.dumps(data))
    given = (path, "--images", images, "--data", annotations, "--out", tmp_path / "out", "--max-ap-drop", 100)
    code, found = as_json(capsys, *given)
    assert code == 0
    assert 0 <= found["ap"]["int8"] <= 100
    assert found["calibration"]["images"] == 8  # without the two that AP is measured on


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--max-ap-drop", "1"), "AP needs labelled data"),
        (("--data-images", "."), "--data-images: is the folder of labelled pictures -> add --data"),
        (("--max-box-drift-px", "nan"), "nan is no limit"),
        (("--max-kernels", "-1"), "-1 is no limit"),
        (("--keep", "nobody"), "no node is called 'nobody'"),
        (("--keep", NECK, "--placement", "neck"), "no convolution of 'neck'"),
    ],
)
def test_arguments_that_cannot_be(tmp_path, images, arguments, message):
    with pytest.raises(ConfigError, match=message):
        run(write(tmp_path / "m"), "--images", images, "--out", tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


def test_what_nothing_can_be_said_of_is_refused(tmp_path, images):
    foreign = save(unary("Relu", dims=(1, 3, 32, 32)), tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError, match="not detections"):
        run(foreign, "--images", images, "--out", tmp_path / "out")
    blind = write(tmp_path / "blind", contract=False)
    made = onnx.load(blind)
    for tensor in made.graph.initializer:
        if tensor.name in ("to_logits", "to_boxes"):
            tensor.raw_data = bytes(len(tensor.raw_data))
    onnx.save(made, blind)
    with pytest.raises(ConfigError, match="the same in every picture"):
        run(blind, "--images", images, "--out", tmp_path / "out")
    noise = tmp_path / "noise"
    noise.mkdir()
    for index in range(8):
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(noise / f"{index}.png")
    with pytest.raises(ImageError, match="noise"):
        run(write(tmp_path / "m"), "--images", noise, "--out", tmp_path / "out")


def test_a_class_for_each_pixel_is_judged_by_the_pixels_that_change(tmp_path, images, capsys):
    path, out = write_semantic(tmp_path / "m"), tmp_path / "out"
    code, found = as_json(capsys, path, "--images", images, "--out", out, "--picture", tmp_path / "p.png")
    assert (code, found["verdict"], found["placement"], found["convolutions"]) == (0, "int8", "backbone+neck", 3)
    drift = found["drift"]
    assert drift["matched"] + drift["flipped"] == 8 * 8 * 8  # a map of 8 x 8 in each of 8 pictures
    assert 0 < drift["flipped"] < 0.06 * 512
    assert (drift["max_score_drift"], drift["median_box_drift_px"]) == (None, None)
    assert parity.main([str(out / "small.int8.onnx"), "--golden"]) == 0
    assert run(path, "--images", images, "--out", tmp_path / "again") == 0
    assert "what it finds stays within the budget" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--max-box-drift-px", "--data"])
def test_boxes_judge_no_class_of_a_pixel(tmp_path, images, option):
    boxes = {
        "images": [{"id": 1, "file_name": "picture00.png", "width": 32, "height": 32}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    given = "1" if option == "--max-box-drift-px" else tmp_path / "boxes.json"
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    with pytest.raises(ConfigError, match="a class for each pixel and no boxes") as caught:
        run(write_semantic(tmp_path / "m"), "--images", images, "--out", tmp_path / "out", option, given)
    assert str(caught.value).startswith(option)


def test_another_export_is_never_replaced(tmp_path, images):
    path, out = write(tmp_path / "m"), tmp_path / "out"
    other = write(out)
    contract = other.with_name("small.contract.json")
    contract.write_text(contract.read_text().replace('"seed": 0', '"seed": 1'))
    before = contract.read_bytes()
    with pytest.raises(FineEdgeError, match="another export of small"):
        run(path, "--images", images, "--out", out)
    assert contract.read_bytes() == before


def test_a_graph_of_others_is_quantised_without_a_contract(tmp_path, images):
    path = write(tmp_path / "m", contract=False)
    assert run(path, "--images", images, "--out", tmp_path / "out") == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["small.int8.onnx"]


def dynamic(path):
    """The same file with an input of any size, whose shapes are computed at run time."""
    made = onnx.load(path)
    for axis, name in ((2, "height"), (3, "width")):
        made.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    place = next(index for index, one in enumerate(made.graph.node) if "features" in one.output)
    made.graph.node[place].input[1] = "computed"
    shape = [node("Shape", ["means"], ["all"]), node("Slice", ["all", "from", "to"], ["computed"])]
    for offset, one in enumerate(shape):
        made.graph.node.insert(place + offset, one)
    made.graph.initializer.extend(
        numpy_helper.from_array(np.array([n]), title) for title, n in (("from", 0), ("to", 2))
    )
    onnx.save(made, path)
    return path


def test_a_dynamic_graph_of_others_is_quantised_at_the_size_that_is_given(tmp_path, images, capsys):
    path = dynamic(write(tmp_path / "m", contract=False))
    with pytest.raises(ArtifactError, match="not one static float input") as caught:
        run(path, "--images", images, "--out", tmp_path / "out")
    assert caught.value.hint == "give --input-size HEIGHTxWIDTH"
    code, found = as_json(capsys, path, "--images", images, "--out", tmp_path / "out", "--input-size", "32")
    assert (code, found["convolutions"], list(found["sensitivity"])) == (0, 3, ["backbone /2", "encoder"])
    made = onnx.load(tmp_path / "out/small.int8.onnx")
    assert [dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 32, 32]
    assert "Shape" not in {one.op_type for one in made.graph.node}


def test_predictions_of_ultralytics_before_suppression_are_judged(tmp_path, images, capsys):
    path = write(tmp_path / "m", contract=False)
    made = onnx.load(path)
    made.graph.node.extend(
        [
            node("Mul", ["boxes", "side"], ["px"]),
            node("Sigmoid", ["logits"], ["scores"]),
            node("Concat", ["px", "scores"], ["rows"], axis=2),
            node("Transpose", ["rows"], ["output0"], perm=[0, 2, 1]),
        ]
    )
    made.graph.initializer.append(numpy_helper.from_array(np.array(32, np.float32), "side"))
    del made.graph.output[:]
    made.graph.output.append(value("output0", TensorProto.FLOAT, (1, 7, 8)))
    onnx.save(made, path)
    code, found = as_json(capsys, path, "--images", images, "--out", tmp_path / "out")
    assert (code, found["placement"]) == (0, "backbone+neck")
    assert found["drift"]["matched"] >= 55
    assert 0 < found["drift"]["median_box_drift_px"] < 1


def test_the_matrix_shows_int8_where_it_was_made_and_a_dash_elsewhere(tmp_path, images, monkeypatch):
    monkeypatch.setattr(platform, "here", Platform)
    path = write(tmp_path, name="rtdetr_r18")
    job, row = MatrixJob("rtdetr_r18", 32, 32, tmp_path), MatrixRow("rtdetr_r18", (32, 32))
    assert stages.int8(job, row).int8 == UNREACHED
    run(path, "--images", images, "--out", tmp_path, "--placement", "neck")
    assert re.fullmatch(r"ok: (logits|boxes) [\d.e-]+ of [\d.]+, 16 matched", stages.int8(job, row).int8)
    (tmp_path / "rtdetr_r18.int8.golden.npz").unlink()
    with pytest.raises(ArtifactError, match="golden file is missing"):
        stages.int8(job, row)


def test_an_export_makes_no_int8_file(tmp_path):
    with pytest.raises(ArtifactError, match="no INT8 file") as caught:
        ensure_exported(ExportRequest("yolov8s_fine", precision="int8"), tmp_path)
    assert "quantize yolov8s_fine" in caught.value.hint
