"""From a picture to drawn boxes, end to end, on a hand-made ONNX whose answers are known."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_detector import LABELS, write_detector

from fine_edge import drawing
from fine_edge.cli import predict
from fine_edge.decode import rows
from fine_edge.detections import Detections
from fine_edge.errors import ArtifactError, FineEdgeError, ImageError, OutputError


@pytest.fixture
def picture(tmp_path):
    """200 wide, 100 high."""
    path = tmp_path / "scene.png"
    y, x = np.mgrid[:100, :200]
    Image.fromarray(np.stack([x, y, x * 0 + 60], axis=2).astype(np.uint8)).save(path)
    return path


def opened(path):
    with Image.open(path) as image:
        return np.asarray(image)


def run(*arguments):
    return predict.main([str(argument) for argument in arguments])


def test_boxes_are_in_pixels_of_the_picture(tmp_path, picture, capsys):
    onnx = write_detector(tmp_path / "engines")
    assert run(picture, "--onnx", onnx, "--out", tmp_path / "out", "--json") == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    made_by = {"model", "task", "precision", "random_weights", "artifact_sha256", "backend", "threshold"}
    assert set(answer) == {*made_by, "skipped", "detections"}
    assert (answer["model"], answer["backend"]) == ("tiny", "onnxruntime-cpu")
    assert answer["detections"] == [
        {
            "image": "scene.png",
            "label": "[owl]",
            "label_index": 2,
            "score": 0.9,
            "box_xyxy_px": [0.0, 0.0, 100.0, 100.0],
        },
        {
            "image": "scene.png",
            "label": "cat",
            "label_index": 0,
            "score": 0.6,
            "box_xyxy_px": [100.0, 50.0, 200.0, 100.0],
        },
    ]
    assert "2 detections at 0.5 or more" in printed.err.replace("\n", " ")


def test_letterbox_is_undone_and_boxes_are_clipped(tmp_path, picture, capsys):
    """The picture takes the upper half of the input; what lies in the padding below is cut off."""
    onnx = write_detector(tmp_path / "engines", "letterbox")
    run(picture, "--onnx", onnx, "--out", tmp_path / "out", "--json", "--threshold", "0")
    boxes = [d["box_xyxy_px"] for d in json.loads(capsys.readouterr().out)["detections"]]
    assert boxes == [[0, 0, 100, 100], [100, 100, 200, 100], [15.62, 15.62, 28.12, 28.12]]


@pytest.mark.parametrize("batch", [1, 3])
def test_raw_outputs_are_decoded(tmp_path, picture, capsys, batch):
    onnx = write_detector(tmp_path / "engines", raw=True, batch=batch)
    run(picture, "--onnx", onnx, "--out", tmp_path / "out", "--json", "--threshold", "0.1")
    found = json.loads(capsys.readouterr().out)["detections"]
    assert [(d["label"], round(d["score"], 3)) for d in found] == [("[owl]", 0.9), ("cat", 0.6), ("dog", 0.2)]
    np.testing.assert_allclose(found[1]["box_xyxy_px"], [100, 50, 200, 100], atol=0.02)


def test_the_drawing_has_the_picture_the_boxes_and_a_caption(tmp_path, picture):
    onnx = write_detector(tmp_path / "engines")
    run(picture, "--onnx", onnx, "--out", tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["scene.tiny.png"]
    drawn, original = opened(tmp_path / "out" / "scene.tiny.png"), opened(picture)
    assert drawn.shape[1] == 200
    assert drawn.shape[0] > 100
    np.testing.assert_array_equal(drawn[70:90, 120:180], original[70:90, 120:180])  # inside a box: untouched
    outline = drawing.color_of(0)
    assert tuple(drawn[99, 150]) == outline  # lower edge of the cat, 100..200 x 50..100
    assert tuple(drawn[75, 199]) == outline
    assert (drawn[100:] > 128).any()  # the caption


def test_the_table_shows_labels_with_brackets(tmp_path, picture, capsys):
    onnx = write_detector(tmp_path / "engines")
    run(picture, "--onnx", onnx, "--out", tmp_path / "out")
    printed = " ".join(capsys.readouterr().out.split())  # lines end where the terminal does
    assert "[owl]" in printed
    assert "0 0 100 100" in printed
    assert "random weights: the results are meaningless" in printed


def test_pictures_of_one_name_from_two_folders_are_both_kept(tmp_path, picture):
    onnx = write_detector(tmp_path / "engines")
    (tmp_path / "other").mkdir()
    Image.new("RGB", (50, 40)).save(tmp_path / "other" / "scene.jpg")
    run(picture, tmp_path / "other", "--onnx", onnx, "--out", tmp_path / "out")
    widths = {file.name: opened(file).shape[1] for file in (tmp_path / "out").iterdir()}
    assert widths == {"scene.tiny.png": 200, "scene-2.tiny.png": 50}


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (400, 3)])
def test_pictures_of_any_shape_are_drawn(tmp_path, size):
    onnx = write_detector(tmp_path / "engines")
    Image.new("RGB", size, "white").save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", "--onnx", onnx, "--out", tmp_path / "out") == 0
    assert opened(tmp_path / "out" / "a.tiny.png").shape[1] == size[0]


def test_a_class_without_a_name_gets_its_number():
    found = Detections(np.array([7]), np.array([[1, 1, 9, 9]], np.float32), np.array([0.5], np.float32))
    assert rows(found, "a", LABELS)[0]["label"] == "class 7"
    assert drawing.draw(np.zeros((20, 20, 3), np.uint8), found, LABELS, "x").size[0] == 20


def test_bad_input_is_refused_before_anything_is_written(tmp_path, picture):
    onnx = write_detector(tmp_path / "engines")
    out = tmp_path / "out"
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    cases = [
        ((text, "--onnx", onnx), ImageError, "cannot be decoded"),
        ((tmp_path / "none.png", "--onnx", onnx), ImageError, "no such image"),
        ((picture, "--onnx", tmp_path / "none.onnx"), ArtifactError, "no such ONNX file"),
        ((picture, "--model", "rtdetr_r81"), FineEdgeError, "nearest: rtdetr_r18"),
        ((picture, "--model", "rtdetr_r18", "--input-size", "100"), FineEdgeError, "multiple of 32"),
    ]
    for arguments, kind, reason in cases:
        with pytest.raises(kind, match=reason):
            run(*arguments, "--out", out)
    assert not out.exists()


def drawn(folder):
    return sorted(file.name for file in folder.iterdir() if file.suffix == ".png")


def test_a_folder_is_drawn_whatever_lies_in_it(tmp_path, picture, capsys):
    onnx = write_detector(tmp_path / "engines")
    folder = tmp_path / "in"
    folder.mkdir()
    whole = picture.read_bytes()
    for name, data in (("a.png", whole), ("._a.png", b"\0\5\x16\7"), ("cut.png", whole[:-40]), ("z.png", whole)):
        (folder / name).write_bytes(data)
    assert run(folder, "--onnx", onnx, "--out", tmp_path / "out", "--json") == 1
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert [row["image"] for row in answer["detections"]] == ["a.png"] * 2 + ["z.png"] * 2
    assert sorted(answer["skipped"]) == [str(folder / "._a.png"), str(folder / "cut.png")]
    assert printed.err.count("warning: 2 of 4 pictures cannot be read and were skipped") == 1
    assert drawn(tmp_path / "out") == ["a.tiny.png", "z.tiny.png"]


def test_drawings_among_the_pictures_are_no_input_and_replace_none(tmp_path, picture, capsys):
    onnx = write_detector(tmp_path / "engines")
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "a.tiny.png"):
        (folder / name).write_bytes(picture.read_bytes())
    (tmp_path / "link").symlink_to(folder)
    for out in (folder, tmp_path / "link"):
        assert run(folder, "--onnx", onnx, "--out", out, "--json") == 0
        printed = capsys.readouterr()
        assert {row["image"] for row in json.loads(printed.out)["detections"]} == {"a.png", "a.tiny.png"}
        assert (folder / "a.tiny.png").read_bytes() == picture.read_bytes(), "a picture was drawn over"
    assert "2 drawings of fine_edge were left out" in printed.err
    assert len(drawn(folder)) == 6, "what was drawn the second time stands beside"


def test_names_of_any_kind(tmp_path, picture, capsys):
    onnx = write_detector(tmp_path / "engines")
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["b\udcffyte.png", "new\nline.png", "\x1b[31mred.png", "l" * 251 + ".png", "A.png", "a.png", "猫.png"]
    for name in names:
        (folder / name).write_bytes(picture.read_bytes())
    assert run(folder, "--onnx", onnx, "--out", tmp_path / "out", "--json") == 0
    printed = capsys.readouterr()
    assert {row["image"] for row in json.loads(printed.out)["detections"]} == set(names)
    assert len(printed.err.splitlines()) == len(names)
    assert "\x1b" not in printed.err
    found = drawn(tmp_path / "out")
    assert len({name.casefold() for name in found}) == len(names)
    assert {"new\\nline.tiny.png", "\\x1b[31mred.tiny.png", "猫.tiny.png"} <= set(found)


def test_a_changed_onnx_and_a_missing_contract_are_refused(tmp_path, picture):
    onnx = write_detector(tmp_path / "engines")
    onnx.write_bytes(onnx.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match=r"sha256 .* is not what tiny\.contract\.json lists"):
        run(picture, "--onnx", onnx, "--out", tmp_path / "out")
    onnx.with_name("tiny.contract.json").unlink()
    with pytest.raises(ArtifactError, match=r"tiny\.contract\.json: the contract is missing"):
        run(picture, "--onnx", onnx, "--out", tmp_path / "out")


def test_a_contract_that_promises_other_outputs_is_refused(tmp_path, picture):
    onnx = write_detector(tmp_path / "engines")
    contract = onnx.with_name("tiny.contract.json")
    contract.write_text(contract.read_text().replace('"postprocessed": true', '"postprocessed": false'))
    with pytest.raises(
        ArtifactError, match=r"no logits, boxes, so its outputs cannot be decoded.*export it without --raw"
    ):
        run(picture, "--onnx", onnx, "--out", tmp_path / "out")


def test_a_file_in_the_place_of_the_output_folder(tmp_path, picture):
    onnx = write_detector(tmp_path / "engines")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot be written .* -> choose a folder"):
        run(picture, "--onnx", onnx, "--out", tmp_path / "out")


def test_the_command_ends_with_2_and_one_line(tmp_path, picture):
    onnx = write_detector(tmp_path / "engines")
    (tmp_path / "engines" / "tiny.contract.json").unlink()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "fine_edge",
            "predict",
            str(picture),
            "--onnx",
            str(onnx),
            "--out",
            str(tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_it_runs_without_torch(tmp_path, picture):
    onnx = write_detector(tmp_path / "engines")
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'safetensors', 'fvcore'): sys.modules[name] = None\n"
        "from fine_edge import command\nfrom fine_edge.cli.predict import main\ncommand.run(main)"
    )
    arguments = [str(picture), "--onnx", str(onnx), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["detections"]) == 2
