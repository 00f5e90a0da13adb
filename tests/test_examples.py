"""The examples train on a data set of a few pictures, and what they save is exported."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cells import HEIGHT, NAMES, WIDTH, write_cells

from fine_edge.cli import program
from fine_edge.zoo.catalog import find
from fine_edge.zoo.load import load

# Training makes the libraries warn of what is theirs to change.
pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """See :mod:`cells`; described as COCO and as ultralytics have it."""
    folder = write_cells(tmp_path_factory.mktemp("data") / "cells", odd=False)
    shutil.copy(folder / "train.json", folder / "test.json")
    (folder / "labels").mkdir()
    document = json.loads((folder / "train.json").read_text())
    numbers = [category["id"] for category in document["categories"]]
    for box in document["annotations"]:
        x, y, width, height = box["bbox"]
        centre = ((x + width / 2) / WIDTH, (y + height / 2) / HEIGHT, width / WIDTH, height / HEIGHT)
        line = " ".join(map(str, (numbers.index(box["category_id"]), *centre)))
        (folder / "labels" / f"{box['image_id']}.txt").write_text(line + "\n")
    (folder / "data.yaml").write_text(
        json.dumps({"path": str(folder), "train": "images", "val": "images", "names": dict(enumerate(NAMES))})
    )
    return folder


def load_example(script):
    """The script as a module, with its neighbours importable."""
    path = EXAMPLES / script
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(path.parent)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def run(script, *arguments, folder):
    load_example(script).main([*map(str, arguments), "--out", str(folder)])


def check(name, weights, labels):
    detector = load(find(name), weights)
    assert detector.report.fine == "loaded"
    assert detector.labels == labels
    blocks = [module for module in detector.model.modules() if type(module).__name__ == "Fine"]
    assert all(block.ffn.down.weight.abs().max() > 0 for block in blocks), "training has moved FINE off the identity"


def test_rtdetr(data, tmp_path):
    size = ("--side", 128, "--batch", 2, "--steps", 1)
    run("finetune_rtdetr.py", data / "train.json", data / "images", *size, folder=tmp_path)
    check("rtdetr_r18_fine", tmp_path / "fine_edge.safetensors", NAMES)


@pytest.mark.slow("examples/**/*")
def test_fasterrcnn(data, tmp_path):
    size = ("--side", 64, "--batch", 2, "--steps", 1)
    run("finetune_fasterrcnn.py", data / "train.json", data / "images", *size, folder=tmp_path)
    check("fasterrcnn_r50_fine", tmp_path / "fine_edge.safetensors", ("__background__", *NAMES))


@pytest.mark.slow("examples/**/*")
def test_yolo_as_a_script(data, tmp_path):
    """In a process of its own: ultralytics reads where its settings lie when it is imported."""
    arguments = (data / "data.yaml", "--side", 64, "--batch", 2, "--epochs", 1, "--out", tmp_path)
    offline = {"YOLO_CONFIG_DIR": str(tmp_path), "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(EXAMPLES / "finetune_yolo.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | offline | {"WANDB_MODE": "disabled"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    check("yolov8s_fine", tmp_path / "train" / "weights" / "last.pt", NAMES)


@pytest.mark.slow("examples/**/*")
def test_blood_cells(data, tmp_path, monkeypatch):
    """The study calls the commands in this process, and those of the baseline print what a run once printed."""
    study = load_example("blood_cells/study.py")
    (made_before, *_) = json.loads((EXAMPLES / "blood_cells" / "study.json").read_text())

    def command(name, *arguments):
        given = [*map(str, arguments)]
        if "fcos_mobilenetv3" in given:
            if name == "train":
                folder = Path(given[given.index("--out") + 1])
                folder.mkdir(parents=True)
                (folder / "training.json").write_text(json.dumps(made_before["training"]))
            return json.dumps(made_before | {"images": 4})
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert program.main([name, *given]) == 0
        return printed.getvalue()

    monkeypatch.setattr(study, "command", command)
    # The study gives torch all cores, for the rest of this process, in which the other tests run.
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(study, "TRAINED_AT", "64x64")
    monkeypatch.setattr(study, "RUN_AT", "64x64")
    study.main([str(data), "--seeds", "0", "--epochs", "2", "--jobs", "1", "--out", str(tmp_path)])
    runs = json.loads((tmp_path / "study.json").read_text())
    assert [(run["model"], run["seed"]) for run in runs] == [("fcos_mobilenetv3", 0), ("fcos_mobilenetv3_fine", 0)]
    assert all(0 <= run["ap"] <= 1 and run["images"] == 4 for run in runs)
    assert "difference, mean" in (tmp_path / "study.md").read_text()
    assert (tmp_path / "study.png").stat().st_size > 10_000
    weights = tmp_path / "fcos_mobilenetv3_fine-seed0" / "fcos_mobilenetv3_fine.safetensors"
    check("fcos_mobilenetv3_fine", weights, ("__background__", *NAMES))
