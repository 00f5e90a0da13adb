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

from fine_edge.contract import Artifact, contract_path, read_contract
from fine_edge.errors import ArtifactError, ConfigError, DataError
from fine_edge.evaluate.__main__ import main
from fine_edge.evaluate.known import read_evaluations
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


def test_the_table_says_what_it_is(scene, capsys):
    assert main(arguments(scene, write_detector(scene / "engines"))) == 0
    printed = capsys.readouterr().out
    assert "tiny on data.json (4 images), fp32, onnxruntime-cpu, sha256" in printed
    assert "These are random weights: the figures mean nothing." in printed
    assert "class confusion" in printed
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
        [sys.executable, "-m", "fine_edge.evaluate", *arguments(scene, onnx)], stdout=subprocess.DEVNULL
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


def test_an_artifact_that_changed_is_evaluated_anew(scene, capsys):
    first = evaluated(scene, write_detector(scene / "engines"), capsys)
    second = evaluated(scene, write_detector(scene / "engines", "letterbox", batch=2), capsys)
    assert first["artifact_sha256"] != second["artifact_sha256"]
    assert len(list((scene / "out").glob("*.jsonl"))) == 2


def test_another_preprocessing_of_the_same_file_is_not_mixed_in(scene):
    assert main(arguments(scene, write_detector(scene / "engines"))) == 0
    with pytest.raises(DataError, match="is of another artifact, data set or backend"):
        main(arguments(scene, write_detector(scene / "engines", "letterbox")))


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
