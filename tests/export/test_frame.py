"""Preprocessing inside of a graph: the same input as the reference's, and boxes in pixels of the frame."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from framed import shows_its_input, write_framed_detector
from PIL import Image

from fine_edge.cli.evaluate import main as evaluate
from fine_edge.cli.export import main as export
from fine_edge.cli.graph import main as graph
from fine_edge.cli.layers import main as layers
from fine_edge.cli.parity import main as parity
from fine_edge.cli.predict import main as predict
from fine_edge.contract import read_contract
from fine_edge.decode import find
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.export import exporter
from fine_edge.export.frame import take_frames
from fine_edge.export.request import ExportRequest
from fine_edge.graph.checks import check_view
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.view import GraphView
from fine_edge.images import NamedImage, sample_photographs
from fine_edge.preprocess import InGraph, Preprocessing, preprocess_frames
from fine_edge.runners.opened import open_onnx
from fine_edge.zoo.catalog import DETECTORS

KINDS = list({detector.preprocessing: detector.name for detector in DETECTORS})
# For an input of 64 x 96: blocks of columns and rows, a slice of every third pixel, dense products, nothing to do,
# enlarging, a frame that stands, sides of one block.
FRAMES = [(216, 288), (144, 192), (101, 149), (64, 96), (48, 60), (240, 90), (7, 3)]
MODEL = "fcos_mobilenetv3_fine"


def photograph(frame_hw):
    picture = Image.fromarray(sample_photographs()[2].pixels)
    return np.asarray(picture.resize(frame_hw[::-1], Image.Resampling.BICUBIC))


def seen(model, frames):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["seen", "boxes_xyxy"], {"frame": frames})


@pytest.mark.parametrize("how", KINDS)
@pytest.mark.parametrize("frame_hw", FRAMES)
def test_the_network_sees_what_the_reference_gives(how, frame_hw):
    """In FP32 within a level of 255, in FP16 within two; on average far less. Both orders of channels give the same."""
    rgb = photograph(frame_hw)[None]
    for color, frames in (("RGB", rgb), ("BGR", rgb[..., ::-1].copy())):
        inside = replace(how, in_graph=InGraph(color, 64, 96))
        model = take_frames(shows_its_input(64, 96), inside, frame_hw)
        assert not [finding for finding in check_view(GraphView(model)) if finding.severity == "error"]
        assert {node.name.rpartition("/")[0] for node in model.graph.node[:3]} == {"/preprocess"}
        expected, placement = preprocess_frames(frames, inside)
        half = to_fp16(model, keep_fp32=kept_by_exporter(model))
        for exported, most, average in ((model, 1.001, 0.2), (half, 2.1, 0.25)):
            images, boxes = seen(exported, frames)
            levels = np.abs(images - expected) * np.array(how.std).reshape(1, 3, 1, 1) / how.scale
            assert levels.max() <= most
            assert levels.mean() < average
            box = np.array([[[-9, 0, 48, 32]]], np.float32)
            np.testing.assert_allclose(boxes, placement.to_picture(box), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("semantic_fpn_r50", {}, "a class for each pixel"),
        ("panoptic_fpn_r50", {}, "a class for each pixel"),
        ("rtdetr_r18", {"raw": True}, "no boxes in pixels"),
        ("rtdetr_r18", {"frame": (0, 1920)}, "beyond 8192 pixels a side"),
        ("rtdetr_r18", {"frame": (1080, 10**9)}, "beyond 8192 pixels a side"),
    ],
)
def test_what_cannot_take_frames_says_why(model, more, said):
    with pytest.raises(ConfigError, match=said):
        ExportRequest(model, **{"frame": (1080, 1920), **more})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--frame", "1080"], "use HEIGHTxWIDTH, such as 1080x1920"),
        (["--frame", "0x5"], "no pixels"),
        (["--frame", "axb"], "not understood"),
        (["--colour", "bgr"], "add --frame"),
    ],
)
def test_options_that_make_no_frame_are_refused(arguments, said, tmp_path):
    with pytest.raises(ConfigError) as error:
        export(["rtdetr_r18", *arguments, "--out", str(tmp_path)])
    assert said in str(error.value)


def test_a_graph_without_boxes_takes_no_frames():
    model = shows_its_input(64, 96)
    del model.graph.output[1]
    with pytest.raises(ConfigError, match="no boxes in pixels"):
        take_frames(model, Preprocessing(in_graph=InGraph("RGB", 64, 96)), (100, 100))


@pytest.fixture
def street(tmp_path):
    """A frame of 200 x 100, and a labelled data set of it."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 100), (9, 99, 199)).save(tmp_path / "images" / "street.png")
    data = {
        "images": [{"id": 1, "file_name": "street.png"}],
        "annotations": [{"image_id": 1, "category_id": 3, "bbox": [0, 0, 100, 100]}],
        "categories": [{"id": 3, "name": "[owl]"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    return tmp_path


def test_predictions_and_evaluations_feed_the_frame(street, capsys):
    """The boxes of the tiny detector, with its letterbox of two below the picture undone by the graph."""
    path = write_framed_detector(street / "engines", (100, 200), "BGR")
    out = ["--onnx", str(path), "--out", str(street / "out"), "--json"]
    assert predict([str(street / "images"), *out, "--threshold", "0"]) == 0
    found = json.loads(capsys.readouterr().out)["detections"]
    assert [one["box_xyxy_px"] for one in found] == [
        [0, 0, 100, 100],
        [100, 100, 200, 100],
        [15.62, 15.62, 28.12, 28.12],
    ]
    labelled = ["--data", str(street / "data.json"), "--images", str(street / "images")]
    assert evaluate([*labelled, *out]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["preprocessed"], result["ap50"]) == ("graph", pytest.approx(1))
    with pytest.raises(ConfigError, match="the graph itself preprocesses"):
        evaluate([*labelled, *out, "--exact-preprocessing"])


def test_a_frame_of_another_size_names_the_exports(street):
    path = write_framed_detector(street / "engines", (64, 200))
    out = ["--onnx", str(path), "--out", str(street / "out")]
    labelled = ["--data", str(street / "data.json"), "--images", str(street / "images")]
    with pytest.raises(ArtifactError, match="study the export without --frame") as error:
        graph(["fp16", str(path), "--images", str(street / "images")])
    for run in (lambda: predict([str(street / "images"), *out]), lambda: evaluate([*labelled, *out])):
        with pytest.raises(ConfigError) as error:
            run()
        assert str(error.value).startswith("street.png: the picture is 100x200, the model takes frames of 64x200")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("layout", "NCHW", "layout is 'NCHW', not NHWC"),
        ("color", "RGB", "color is 'RGB', not BGR"),
        ("in_graph", {"color": "BGR", "height": 0, "width": 64}, "height"),
        ("in_graph", {"color": "GREY", "height": 64, "width": 64}, "color"),
        ("in_graph", None, "color is 'BGR', not RGB"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(tmp_path, key, value, said):
    path = write_framed_detector(tmp_path, (100, 200), "BGR").with_suffix("").with_suffix(".contract.json")
    assert read_contract(path).input_hw == (100, 200)
    data = json.loads(path.read_text())
    data["preprocessing"][key] = value
    path.write_text(json.dumps(data))
    with pytest.raises(ArtifactError, match=said):
        read_contract(path)


@pytest.mark.host
def test_an_export_is_held_to_pytorch(export_store, tmp_path, monkeypatch, capsys):
    """Both precisions against the library's model behind the reference, in pixels of the frame.

    What is put before the network is put before a network that was traced before.
    """
    request = ExportRequest(MODEL, precision="fp16", height=320, width=320)
    traced = export_store.folder_of(request) / f"{MODEL}.onnx"
    monkeypatch.setattr(exporter, "trace", lambda *_: onnx.load(traced))
    arguments = [MODEL, "--input-size", "320", "--precision", "fp16", "--frame", "540x960", "--colour", "bgr"]
    assert export([*arguments, "--out", str(tmp_path), "--json"]) == 0
    half = tmp_path / f"{MODEL}.frame540x960.fp16.onnx"
    whole = tmp_path / f"{MODEL}.frame540x960.onnx"
    contract = read_contract(tmp_path / f"{MODEL}.frame540x960.contract.json")
    assert [(spec.name, spec.dtype, spec.shape) for spec in contract.inputs] == [("frame", "uint8", (1, 540, 960, 3))]
    assert contract.preprocessing.in_graph == InGraph("BGR", 320, 320)
    assert "pixels of the frame" in contract.outputs[1].meaning
    capsys.readouterr()
    for path in (half, whole):
        assert parity([str(path), "--golden", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["detections"]["matched"] > 100
    opened = open_onnx(whole, rounded=False)
    found = find(NamedImage("frame", photograph((540, 960))), contract, opened.runner, 0.0)
    opened.runner.close()
    assert found.boxes_xyxy_px[:, 2].max() > 320


@pytest.mark.host
def test_nvidias_compiler_takes_it_and_its_kernels_are_a_part(tmp_path, capsys):
    """Columns and rows as convolutions: with casts and the boxes, a few kernels of their own."""
    how = Preprocessing(in_graph=InGraph("BGR", 64, 96))
    model = take_frames(shows_its_input(64, 96), how, (216, 288))
    onnx.save(to_fp16(model, keep_fp32=kept_by_exporter(model)), tmp_path / "frames.onnx")
    assert layers([str(tmp_path / "frames.onnx"), "--json"]) == 0
    parts = {part["part"]: part["kernels"] for part in json.loads(capsys.readouterr().out)["parts"]}
    assert 2 <= parts["preprocess"] <= 8
