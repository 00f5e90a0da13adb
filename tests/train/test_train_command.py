"""The command, from pictures to a checkpoint that every other command takes."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from cells import arguments as cell_arguments
from PIL import Image
from safetensors.torch import load_file

from fine_edge.cli.train import main
from fine_edge.errors import ConfigError, DataError, UnknownModelError
from fine_edge.train import pictures, recipe, run
from fine_edge.zoo.catalog import find
from fine_edge.zoo.load import load

NAME = "fcos_mobilenetv3_fine"


def arguments(cells, out, *more):
    return cell_arguments(NAME, cells, out, *more)


@pytest.fixture(scope="module")
def trained(cells, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    assert main(arguments(cells, out)) == 0
    return out


def test_the_checkpoint_is_taken_everywhere(trained):
    detector = load(find(NAME), trained / f"{NAME}.safetensors")
    assert detector.labels == ("__background__", "cell", "platelet")
    assert detector.report.fine == "loaded"
    assert detector.trained_hw == (128, 160), "an export at another size says so"
    blocks = [module for module in detector.model.modules() if type(module).__name__ == "Fine"]
    assert all(block.ffn.down.weight.abs().max() > 0 for block in blocks), "training has moved FINE off the identity"


def test_the_record_says_how_it_came_about(trained):
    record = json.loads((trained / "training.json").read_text())
    assert record["recipe"]["epochs"] == 2
    assert record["recipe"]["height"] == 128
    assert record["data"]["images"] == 4
    assert [entry["epoch"] for entry in record["losses"]] == [1.0, 2.0]
    assert "torch" in record["machine"]["libraries"]


def test_an_interrupted_training_goes_on_and_half_is_the_same_rounded(cells, trained, tmp_path, monkeypatch):
    seen = 0
    read = pictures.read_image

    def interrupted(path):
        nonlocal seen
        seen += 1
        if seen > 7:  # in the middle of the second epoch
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(pictures, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main(arguments(cells, tmp_path, "--half"))
    monkeypatch.setattr(pictures, "read_image", read)
    assert not (tmp_path / f"{NAME}.safetensors").exists()
    assert main(arguments(cells, tmp_path, "--half")) == 0
    full, half = (load_file(folder / f"{NAME}.safetensors") for folder in (trained, tmp_path))
    for key, tensor in full.items():
        assert half[key].dtype == (torch.float16 if tensor.ndim > 1 else torch.float32)
        assert torch.equal(half[key], tensor.to(half[key].dtype)), key
    assert (tmp_path / f"{NAME}.safetensors").stat().st_size < 0.6 * (trained / f"{NAME}.safetensors").stat().st_size


def test_a_finished_one_is_not_trained_again(cells, trained, monkeypatch, capsys):
    monkeypatch.setattr(run.Trainer, "train", None)
    before = load_file(trained / f"{NAME}.safetensors")
    assert main(arguments(cells, trained)) == 0
    after = load_file(trained / f"{NAME}.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert "loss" in capsys.readouterr().out
    assert main([*arguments(cells, trained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["checkpoint"]["file"] == str(trained / f"{NAME}.safetensors")
    assert len(found["losses"]) == found["recipe"]["epochs"]


def altered(cells, folder):
    """A copy of the cells with one more grey in one picture."""
    shutil.copytree(cells, folder)
    path = folder / "images/2.png"
    image = Image.open(path).copy()
    image.putpixel((0, 0), (1, 2, 3))
    image.save(path)
    return folder


def test_another_training_in_the_same_folder_is_refused(cells, trained, tmp_path, monkeypatch):
    holds = "holds a training with"
    with pytest.raises(ConfigError, match=rf"{holds} another recipe \(seed: 0 there, 1 here\)"):
        main(arguments(cells, trained, "--seed", "1"))
    with pytest.raises(ConfigError, match=rf"{holds} other pictures"):
        main([*arguments(cells, trained), "--images", str(altered(cells, tmp_path / "cells") / "images")])
    with pytest.raises(ConfigError, match=rf"{holds} another precision of its weights \(--half\)"):
        main(arguments(cells, trained, "--half"))
    with pytest.raises(ConfigError, match=rf"{holds} other weights to start from"):
        main(arguments(cells, trained, "--weights", str(trained / f"{NAME}.safetensors")))
    (tmp_path / "labels.json").write_text((cells / "train.json").read_text() + " ")
    with pytest.raises(ConfigError, match=rf"{holds} another data set"):
        main([*arguments(cells, trained), "--data", str(tmp_path / "labels.json")])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=rf"{holds} another number of processes"):
        main(arguments(cells, trained))
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(recipe, "version", lambda _name: "0.1")
    with pytest.raises(ConfigError, match=rf"{holds} other libraries \(torch: .* there, 0.1 here\)"):
        main(arguments(cells, trained))


def test_a_record_that_does_not_say_everything_is_refused(cells, trained, tmp_path):
    record = json.loads((trained / "training.json").read_text())
    del record["pictures"]
    (tmp_path / "training.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="other pictures, or by an older version"):
        main(arguments(cells, tmp_path))


def test_names_of_the_same_files_do_not_matter(cells, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run.Trainer, "train", None)
    shutil.copytree(cells, tmp_path / "moved")
    (tmp_path / "moved/train.json").rename(tmp_path / "moved/labels.json")
    given = [word.replace("train.json", "labels.json") for word in arguments(tmp_path / "moved", trained)]
    assert main(given) == 0
    assert "is finished" in " ".join(capsys.readouterr().err.split())


def test_a_checkpoint_that_was_changed_is_not_finished(cells, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "out")
    (tmp_path / f"out/{NAME}.safetensors").write_bytes(b"other")
    with pytest.raises(DataError, match="is not what was trained here"):
        main(arguments(cells, tmp_path / "out"))


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({NAME: "fcos_mobilenet"}, UnknownModelError, "fcos_mobilenetv3"),
        ({"128x160": "128*160"}, ConfigError, "not understood"),
        ({"128x160": "32x32"}, ConfigError, "at least 128x128"),
        ({"both": "diagonal"}, ConfigError, "known: none, horizontal, both"),
        ({"2": "0"}, ConfigError, "must be above 0"),
        ({"--flips": "--learning-rate", "both": "nan"}, ConfigError, "must be above 0"),
        ({NAME: "rtdetr_r18", "128x160": "240x320"}, ConfigError, "not a positive multiple of 32 -> use 256"),
        ({NAME: "yolov8s"}, ConfigError, "trained by its own library"),
    ],
)
def test_bad_input_is_told_before_training(cells, tmp_path, change, error, reason):
    with pytest.raises(error) as raised:
        main([change.get(word, word) for word in arguments(cells, tmp_path / "out")])
    assert reason in str(raised.value)
    assert not (tmp_path / "out").exists(), "nothing is left behind"


def test_missing_annotations(cells, tmp_path):
    given = [word.replace("train.json", "none.json") for word in arguments(cells, tmp_path / "out")]
    with pytest.raises(DataError, match="no such file"):
        main(given)


def test_a_broken_record_is_told(cells, tmp_path):
    (tmp_path / "training.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        main(arguments(cells, tmp_path))


def test_one_line_and_exit_code_2(tmp_path):
    words = [sys.executable, "-m", "fine_edge", "train", NAME, "--data", "none.json", "--images", "."]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: none.json: no such file")
