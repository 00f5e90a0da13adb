"""What libraries do besides their work: no command connects anywhere, or writes but where it was told to."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from tiny_detector import write_detector

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "bench" / "results" / "table7_onnxruntime_x86.json"
COMMANDS = """
import json, sys
from fine_edge import command, libraries
from fine_edge.bench import memory
from fine_edge.cli import program
libraries.isolate()
for argv in json.loads(sys.argv[1]):
    main = memory.main if argv[0].endswith(".onnx") else program.main
    code = command.exit_code(main, argv)
    assert code in (0, 1), (code, argv)
"""
SEEN = """
import os, socket, subprocess, sys
socket.socket(type=socket.SOCK_DGRAM).connect(("127.0.0.1", 9))
subprocess.run([sys.executable, "-c", "open('by-a-child', 'w')"], check=True)
os.mkdir("folder")
"""


@pytest.fixture(scope="session")
def watch(tmp_path_factory):
    """The library that logs; see watch.c."""
    compiler = os.environ.get("CC", "cc")
    if not shutil.which(compiler):
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("watch") / "watch.so"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    source = str(ROOT / "tests" / "watch.c")
    subprocess.run([compiler, *options, source, "-o", str(library), "-ldl"], check=True)
    return library


@pytest.fixture
def watched(watch, tmp_path):
    """Run Python on a program in folders of its own and return what the log says, besides what belongs there."""

    def run(program, *arguments, environment=None):
        for name in ("home", "tmp", "work"):
            (tmp_path / name).mkdir(exist_ok=True)
        # What the test's own process was told, or told itself as torch does.
        foreign = ("YOLO_", "XDG_", "PYTEST_", "HF_", "TORCHINDUCTOR_", "TRITON_", "MPL")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        own |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
        own |= {"LD_PRELOAD": str(watch), "WATCH_LOG": str(tmp_path / "log"), **(environment or {})}
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=own, cwd=tmp_path / "work", timeout=600
        )
        assert done.returncode == 0, done.stderr
        log = (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []
        mine = tuple(f"write {place}" for place in (tmp_path / "work", tmp_path / "tmp", "/dev/", "/proc/self/"))
        return [line for line in log if not line.startswith(mine)]

    return run


def test_the_watch_sees_connections_and_files_of_children_too(watched, tmp_path):
    assert watched(SEEN) == ["connect 127.0.0.1"]
    log = (tmp_path / "log").read_text()
    assert "/work/by-a-child\n" in log
    assert "/work/folder\n" in log


def _labelled(folder):
    """One picture with one cat."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (64, 64), (200, 30, 30)).save(folder / "images" / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 30, 30], "area": 900, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "data.json").write_text(json.dumps(document))
    return ["--data", str(folder / "data.json"), "--images", str(folder / "images")]


def _left(folder):
    return [path for name in ("home", "tmp") for path in (folder / name).rglob("*")]


def test_nothing_is_sent_or_written_elsewhere(watched, tmp_path):
    onnx, data = str(write_detector(tmp_path / "in")), _labelled(tmp_path / "in")
    commands = [
        ["doctor"],
        ["predict", data[3], "--onnx", onnx],
        ["evaluate", "--onnx", onnx, *data],
        ["graph", "check", onnx],
        ["graph", "fp16", onnx, "--images", data[3]],
        ["bench", "show", str(RECORD), "--picture", "bench.png"],
        [onnx],
        ["report", str(RECORD), "--html", "report.html"],
    ]
    assert watched(COMMANDS, json.dumps(commands)) == []
    assert _left(tmp_path) == []


@pytest.mark.slow
@pytest.mark.host
def test_nothing_is_sent_or_written_elsewhere_by_torch_and_compilers(watched, tmp_path):
    onnx, data = str(write_detector(tmp_path / "in")), _labelled(tmp_path / "in")
    small = ["fcos_mobilenetv3", "--input-size", "64"]
    commands = [
        ["zoo", "yolov8s"],
        ["export", *small],
        ["train", *small, *data, "--epochs", "1", "--out", "trained"],
        ["engine", "build", onnx, "--target", "rtx-sm86"],
        ["estimate", onnx],
    ]
    assert watched(COMMANDS, json.dumps(commands)) == []
    assert _left(tmp_path) == []


FIRST = """
import sys, types
asked = []
sys.modules["onnxruntime"] = types.SimpleNamespace(disable_telemetry_events=lambda: asked.append("off"))
import fine_edge.libraries
fine_edge.libraries.onnxruntime()
assert asked == ["off"]
"""


def test_a_program_that_imported_onnxruntime_first_sends_nothing_once_we_use_it():
    subprocess.run([sys.executable, "-c", FIRST], check=True)
