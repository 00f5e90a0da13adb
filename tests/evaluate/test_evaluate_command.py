"""The command, on a detector whose answers are known."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tiny_detector import write_detector

from fine_edge.cli.evaluate import main
from fine_edge.command import exit_code
from fine_edge.contract import Artifact, contract_path, read_contract
from fine_edge.errors import ArtifactError, ConfigError, DataError, OutputError
from fine_edge.evaluate.evaluation import read_evaluations
from fine_edge.files import sha256_of


@pytest.fixture
def scene(tmp_path):
    """Four pictures of 128 x 128, and what is in them: of two, exactly what the detector always finds."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (128, 128), (60 * number,) * 3).save(folder / f"{number}.png")
    annotations = [{"image_id": number, "category_id": 30, "bbox": [0, 0, 64, 128]} for number in (0, 1)] + [
        {"image_id": 0, "category_id": 10, "bbox": [64, 64, 64, 64]}
    ]
    data = {
        "images": [{"id": number, "file_name": f"{number}.png"} for number in range(4)],
        "annotations": annotations,
        "categories": [{"id": 10, "name": "cat"}, {"id": 20, "name": "dog"}, {"id": 30, "name": "[Owl]"}],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    return tmp_path


def arguments(scene, onnx, *more):
    paths = {"--onnx": onnx, "--data": scene / "data.json", "--images": scene / "images", "--out": scene / "out"}
    return [*(str(part) for pair in paths.items() for part in pair), *map(str, more)]


def evaluated(scene, onnx, capsys, *more, code=0):
    assert main(arguments(scene, onnx, *more, "--json")) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("batch", "raw"), [(1, False), (3, False), (2, True)])
def test_figures_are_those_of_the_artifact(scene, capsys, batch, raw):
    onnx = write_detector(scene / "engines", batch=batch, raw=raw)
    result = evaluated(scene, onnx, capsys)
    assert (result["artifact_sha256"], result["onnx_sha256"]) == (sha256_of(onnx),) * 2
    assert (result["model"], result["backend"], result["precision"]) == ("tiny", "onnxruntime-cpu", "fp32")
    assert (result["data"], result["images"], result["skipped"]) == ("data.json", 4, {})
    assert result["random_weights"] is True
    # The same answer for all four pictures; of equal scores the first pictures' count first, which are right.
    assert result["ap50"] == pytest.approx(1)
    errors = result["errors"]
    assert (errors["tp"], errors["fp"], errors["fn"]) == (3, 5, 0)
    assert (errors["precision"], errors["recall"]) == (3 / 8, 1)
    assert errors["wrong"]["background"] == 5
    assert errors["by_category"]["dog"]["fp"] == 0  # it scores 0.2
    assert errors["by_size"]["large"]["tp"] == 0


def test_the_evaluation_is_kept_beside_the_detections(scene, capsys):
    onnx = write_detector(scene / "engines")
    result = evaluated(scene, onnx, capsys)
    (kept,) = (scene / "out").glob("*.json")
    assert kept.name == f"tiny.fp32.data.{sha256_of(onnx)[:12]}.json"
    assert {**json.loads(kept.read_text()), "made_at": ""} == {**result, "made_at": ""}
    assert sha256_of(Path(result["detections_file"])) == result["detections_sha256"]
    assert (result["data_file"], result["images_folder"]) == (str(scene / "data.json"), str(scene / "images"))


def test_the_reference_preprocessing_is_an_evaluation_of_its_own(scene, capsys):
    """Its record, file and table say so; what was found with the other is not taken for it."""
    onnx = write_detector(scene / "engines")
    assert evaluated(scene, onnx, capsys)["preprocessed"] == "fast"
    exact = evaluated(scene, onnx, capsys, "--exact-preprocessing")
    assert (exact["preprocessed"], exact["ap50"]) == ("exact", pytest.approx(1))
    fast_file, exact_file = sorted((scene / "out").glob("*.json"), key=lambda path: len(path.name))
    assert exact_file.name == f"tiny.fp32-exact.data.{sha256_of(onnx)[:12]}.json"
    assert main(["compare", str(fast_file), str(exact_file), "--resamples", "2"]) == 0
    assert "tiny fp32 exact" in " ".join(capsys.readouterr().out.split())


def test_the_table_says_what_it_is(scene, capsys):
    assert main(arguments(scene, write_detector(scene / "engines"))) == 0
    printed = capsys.readouterr().out
    assert "tiny on data.json (4 images), fp32, onnxruntime-cpu, sha256" in printed
    assert "These are random weights: the figures mean nothing." in printed
    assert "localisation" in printed
    assert "[Owl]" in printed


def test_images_that_cannot_be_read_are_counted_and_come_back(scene, capsys):
    onnx = write_detector(scene / "engines")
    picture = (scene / "images" / "1.png").read_bytes()
    (scene / "images" / "1.png").write_bytes(picture[:40])
    (scene / "images" / "3.png").unlink()
    result = evaluated(scene, onnx, capsys, code=1)
    assert result["images"] == 2
    assert set(result["skipped"]) == {"1.png", "3.png"}
    assert "no such image" in result["skipped"]["3.png"]
    assert result["errors"]["tp"] + result["errors"]["fn"] == 2  # the owl of the second picture is in no figure
    (scene / "images" / "1.png").write_bytes(picture)
    (scene / "images" / "3.png").write_bytes(picture)
    assert evaluated(scene, onnx, capsys)["errors"]["tp"] == 3


def test_a_run_goes_on_where_it_was_killed(scene, capsys):
    """Killed for good while it looks at pictures, then run again: the same figures, and nothing is looked at twice."""
    data = json.loads((scene / "data.json").read_text())
    rng = np.random.default_rng(0)
    for number in range(4, 300):
        Image.fromarray(rng.integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(scene / "images" / f"{number}.png")
        data["images"].append({"id": number, "file_name": f"{number}.png"})
    (scene / "data.json").write_text(json.dumps(data))
    onnx = write_detector(scene / "engines")
    process = subprocess.Popen(
        [sys.executable, "-m", "fine_edge", "evaluate", *arguments(scene, onnx)], stdout=subprocess.DEVNULL
    )
    journal = scene / "out" / f"tiny.fp32.data.{sha256_of(onnx)[:12]}.jsonl"
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 20):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not list((scene / "out").glob("*.json"))
    before = journal.read_bytes().count(b"\n") - 1
    assert before >= 19
    result = evaluated(scene, onnx, capsys)
    assert (result["images"], result["errors"]["tp"]) == (300, 3)
    assert journal.read_bytes().count(b"\n") == 301
    assert len({json.loads(line)["image_id"] for line in journal.read_text().splitlines()[1:]}) == 300


def test_other_pictures_of_the_same_names_are_looked_at_again(scene, capsys):
    """The detector finds nothing in bright pictures once it is halved; what was found in dark ones is not taken."""
    onnx = overflowing(write_detector(scene / "engines"))
    gray = evaluated(scene, onnx, capsys, "--rounded")
    for number in range(4):
        Image.new("RGB", (128, 128)).save(scene / "images" / f"{number}.png")
    black = evaluated(scene, onnx, capsys, "--rounded")
    assert (gray["errors"]["tp"], black["errors"]["tp"]) == (2, 3)
    assert gray["pictures_sha256"] != black["pictures_sha256"]
    Image.new("RGB", (128, 128), (200, 200, 200)).save(scene / "images" / "1.png")
    assert main(arguments(scene, onnx, "--rounded", "--json")) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["errors"]["tp"] == 2
    assert "1 pictures have changed since the last run" in printed.err
    before = set((scene / "out").iterdir())
    assert evaluated(scene, onnx, capsys, "--rounded")["pictures_sha256"] == json.loads(printed.out)["pictures_sha256"]
    assert set((scene / "out").iterdir()) == before


def test_doubled_and_damaged_lines_change_no_figure(scene, capsys):
    onnx = write_detector(scene / "engines")
    first = evaluated(scene, onnx, capsys)
    (journal,) = (scene / "out").glob("*.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines, *lines[1:], lines[1].replace(b"0.9", b"Infinity")]))
    second = evaluated(scene, onnx, capsys)
    different = {key for key in first if first[key] != second[key]} - {"made_at"}
    assert different == {"detections_sha256"}
    journal.write_bytes(b"".join([*lines[:3], lines[3].replace(b"[", b"[[", 1), lines[4]]))
    assert evaluated(scene, onnx, capsys)["errors"] == first["errors"]


def test_evaluations_on_other_pictures_are_not_compared(scene):
    onnx = write_detector(scene / "engines")
    paths = []
    for color in ("black", "white"):
        Image.new("RGB", (128, 128), color).save(scene / "images" / "2.png")
        assert main(arguments(scene, onnx, "--out", scene / color)) == 0
        paths += map(str, (scene / color).glob("*.json"))
    for command in ("compare", "drift"):
        with pytest.raises(DataError, match=r"are of other pictures under 1 of 4 names: 2\.png -> evaluate both"):
            main([command, *paths, "--resamples", "2"])
    with pytest.raises(ConfigError, match="--max-ap-drop: nan is not a finite number"):
        main(["drift", paths[0], paths[0], "--resamples", "2", "--max-ap-drop", "nan"])


def labelled(scene, *sizes):
    """The labels, with a height and width of each picture."""
    data = json.loads((scene / "data.json").read_text())
    for image, (height, width) in zip(data["images"], sizes, strict=False):
        image.update(height=height, width=width)
    (scene / "data.json").write_text(json.dumps(data))


def turn(scene, number, orientation, size=(128, 64)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(scene / "images" / f"{number}.png", exif=exif)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        (
            [(256, 256)] * 4,
            "4 of 4 pictures are not .*: 0.png is 128x128, not 256x256; 1.png .*2.png is 128x128, not 256x256 -> give",
        ),
        ([(128, 128)] * 3 + [(128, 129)], "1 of 4 pictures are not .*: 3.png is 128x128, not 129x128 ->"),
        ([("128", "256")], "1 of 4 pictures .*: 0.png is 128x128, not 256x128"),
    ],
)
def test_pictures_of_another_size_than_their_labels_are_refused(scene, sizes, says):
    labelled(scene, *sizes)
    with pytest.raises(DataError, match=says):
        main(arguments(scene, write_detector(scene / "engines")))
    assert not (scene / "out").exists()


def test_pictures_that_are_turned_are_told_from_those_that_are_not(scene, capsys):
    onnx = write_detector(scene / "engines")
    turn(scene, 0, 6)
    labelled(scene, (64, 128))
    with pytest.raises(DataError, match=r"0\.png is 64x128, not 128x64; their EXIF orientation turns them -> take"):
        main(arguments(scene, onnx))
    labelled(scene, (128, 64))
    assert main(arguments(scene, onnx)) == 0
    assert "EXIF" not in capsys.readouterr().err
    turn(scene, 0, 1)
    with pytest.raises(DataError, match="height and width are swapped -> give the pictures as they lay"):
        main(arguments(scene, onnx))
    labelled(scene, (0, 0))
    turn(scene, 0, 3)
    assert main(arguments(scene, onnx, "--out", scene / "other")) == 0
    assert "warning: 1 pictures are turned upright as their EXIF orientation says" in capsys.readouterr().err


def test_boxes_outside_of_pictures_contradict_where_labels_state_no_size(scene, capsys):
    onnx = write_detector(scene / "engines")
    Image.new("RGB", (63, 64)).save(scene / "images" / "0.png")
    with pytest.raises(DataError, match=r"1 of 4 pictures have boxes of .* that lie outside of them: 0\.png -> give"):
        main(arguments(scene, onnx))
    labelled(scene, (64, 63))
    assert main(arguments(scene, onnx)) == 0, "the size is right, and a wrong box is the data set's own matter"
    assert "warning: 1 of 4 pictures have boxes that lie outside of them or reach far out: 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("box", "says"),
    [
        ([32, 32, 96, 96], None),
        ([32, 32, 108, 96], None),
        ([32, 32, 112, 96], "warning: 1 of 4 pictures have boxes that lie outside of them or reach far out: 0.png;"),
        ([0.25, 0.25, 0.5, 0.75], "no box beyond the first pixel of a picture -> give boxes in pixels"),
    ],
)
def test_boxes_of_another_unit_or_form_are_told(scene, capsys, box, says):
    data = json.loads((scene / "data.json").read_text())
    (scene / "data.json").write_text(json.dumps({**data, "annotations": [{**data["annotations"][0], "bbox": box}]}))
    code = exit_code(main, list(map(str, arguments(scene, write_detector(scene / "engines")))))
    err = capsys.readouterr().err
    assert code == (2 if says and "give" in says else 0)
    assert says in err if says else "warning" not in err


def test_an_artifact_that_changed_is_evaluated_anew(scene, capsys):
    first = evaluated(scene, write_detector(scene / "engines"), capsys)
    second = evaluated(scene, write_detector(scene / "engines", "letterbox", batch=2), capsys)
    assert first["artifact_sha256"] != second["artifact_sha256"]
    assert len(list((scene / "out").glob("*.jsonl"))) == 2


def test_another_preprocessing_of_the_same_file_is_not_mixed_in(scene):
    assert main(arguments(scene, write_detector(scene / "engines"))) == 0
    with pytest.raises(DataError, match="is of another artifact, data set or backend"):
        main(arguments(scene, write_detector(scene / "engines", "letterbox")))


def test_labels_of_any_name_and_folders_of_any_kind(scene, capsys):
    onnx = write_detector(scene / "engines")
    data = scene / f"{'l' * 240}\n\x1b.json"
    (scene / "data.json").rename(data)
    assert main(arguments(scene, onnx, "--data", data, "--json")) == 0
    capsys.readouterr()
    with pytest.raises(OutputError, match="cannot be written"):
        main(arguments(scene, onnx, "--data", data, "--out", scene / ("o" * 300)))


def test_a_picture_that_is_a_pipe_does_not_hang(scene, capsys):
    onnx = write_detector(scene / "engines")
    evaluated(scene, onnx, capsys)
    (scene / "images" / "2.png").unlink()
    os.mkfifo(scene / "images" / "2.png")
    assert "not a regular file" in evaluated(scene, onnx, capsys, code=1)["skipped"]["2.png"]


def test_results_need_no_pictures_and_no_model(scene, capsys):
    found = [{"image_id": 0, "category_id": 30, "bbox": [0, 0, 64, 128], "score": 0.9}]
    (scene / "found.json").write_text(json.dumps(found))
    assert main(["--data", str(scene / "data.json"), "--detections", str(scene / "found.json"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["artifact_sha256"], result["backend"], result["model"]) == (None, None, "found")
    assert (result["errors"]["tp"], result["errors"]["fn"]) == (1, 2)
    assert result["ar_100"] == pytest.approx((0.5 + 0) / 2)


def test_other_classes_are_an_error(scene):
    text = (scene / "data.json").read_text().replace('"[Owl]"', '"hound"')
    (scene / "data.json").write_text(text)
    onnx = write_detector(scene / "engines")
    with pytest.raises(DataError, match="no class for 1 of 3 categories: 'hound'"):
        main(arguments(scene, onnx))
    assert main(arguments(scene, onnx, "--same", "hound=[Owl]")) == 0


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ((), ConfigError, "give one of"),
        (("--onnx", "a", "--detections", "b"), ConfigError, "give one of"),
        (("--onnx", "missing.onnx", "--images", "."), ArtifactError, "missing.onnx"),
        (("--onnx", "missing.onnx"), ConfigError, "the pictures are missing"),
        (("--detections", "missing.json"), DataError, "missing.json: no such file"),
        *(
            (("--detections", "found.json", *option), ConfigError, f"{option[0]}: is for a model, and found.json is")
            for option in (("--fine", "r=2"), ("--weights", "a.pth"), ("--input-size", "64"), ("--same", "a=b"))
        ),
        (("--detections", "found.json", "--exact-preprocessing"), ConfigError, "--exact-preprocessing: is for"),
        (("--detections", "found.json", "--out", "there"), ConfigError, "--out: is for a model"),
    ],
)
def test_what_cannot_be_is_one_line(scene, given, error, says):
    with pytest.raises(error, match=says):
        main(["--data", str(scene / "data.json"), *given])


@pytest.mark.parametrize(("pair", "says"), [("dog", "is no pair"), ("=dog", "is no pair"), ("dog=", "is no pair")])
def test_pairs_of_names(scene, pair, says):
    with pytest.raises(ConfigError, match=says):
        main(arguments(scene, write_detector(scene / "engines"), "--same", pair))


def test_no_such_folder(scene):
    onnx = write_detector(scene / "engines")
    with pytest.raises(DataError, match="no such folder of images"):
        main(arguments(scene, onnx, "--images", "nowhere"))


def overflowing(onnx_path):
    """The detector in FP16, which finds something where its input's mean times 60,000 twice is finite."""
    model = onnx.load(onnx_path)
    initializers = {"large": np.float16(60_000), "limit": np.float32(1e30)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in initializers.items())
    model.graph.node[2].CopyFrom(helper.make_node("Mul", ["known_scores", "finite"], ["scores"]))
    steps = [
        helper.make_node("Cast", ["mean"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["half", "large"], ["once"]),
        helper.make_node("Mul", ["once", "large"], ["twice"]),
        helper.make_node("Cast", ["twice"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Less", ["whole", "limit"], ["below"]),
        helper.make_node("Cast", ["below"], ["finite"], to=TensorProto.FLOAT),
    ]
    for place, node in enumerate(steps, 1):
        model.graph.node.insert(place, node)
    path = onnx_path.with_name("tiny.fp16.onnx")
    onnx.save(model, path)
    contract = read_contract(contract_path(onnx_path))
    both = replace(contract, artifacts=(*contract.artifacts, Artifact(path.name, "fp16", sha256_of(path))))
    contract_path(onnx_path).write_text(both.to_text(), encoding="utf-8")
    return path


def test_what_would_overflow_on_a_device_shows_when_rounded(scene, capsys):
    whole = write_detector(scene / "engines")
    half = overflowing(whole)
    reference, plain = evaluated(scene, whole, capsys), evaluated(scene, half, capsys)
    assert plain["errors"]["tp"] == reference["errors"]["tp"] == 3, "ONNX Runtime computes FP16 in FP32 on x86"
    rounded = evaluated(scene, half, capsys, "--rounded")
    assert rounded["backend"] == "onnxruntime-cpu, FP16 rounded after every operator"
    assert rounded["errors"]["tp"] == 2, "all but the black picture overflow"
    files = sorted(path.name for path in (scene / "out").glob("*.json"))
    assert [name.split(".")[1] for name in files] == ["fp16-rounded", "fp16", "fp32"]
    paths = [str(scene / "out" / name) for name in files]
    gate = ("--max-ap-drop", "0.1", "--resamples", "10")
    assert main(["drift", paths[2], paths[1], *gate]) == 0
    assert main(["drift", paths[2], paths[0], *gate]) == 1
    # What was not computed as the bench times it is not set beside a latency.
    assert {known.backend for known in read_evaluations(scene / "out")} == {"onnxruntime-cpu"}


def test_nothing_to_round(scene):
    with pytest.raises(ConfigError, match="an FP32 file has nothing to round"):
        main(arguments(scene, write_detector(scene / "engines"), "--rounded"))
