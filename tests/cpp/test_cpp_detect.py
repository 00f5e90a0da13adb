"""examples/cpp/detect.cpp, built by g++ against a runtime of TensorRT's form (NvInfer.h here), on known answers.

Where NVIDIA's headers are (``TENSORRT_INCLUDE`` names their folder), it is compiled against them as well.
"""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage import data
from tiny_detector import KNOWN, LABELS, SIZE, write_detector

from fine_edge.cli.deploy import main
from fine_edge.contract import contract_path, read_contract
from fine_edge.preprocess import Preprocessing, preprocess

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "examples" / "cpp" / "detect.cpp"
NVIDIA = Path(os.environ.get("TENSORRT_INCLUDE", "/usr/include/x86_64-linux-gnu"))
CUDA = Path("/usr/local/cuda/include")
PHOTOGRAPH = data.astronaut()[:360]  # 512 x 360
NORMALISED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

if not shutil.which("g++"):  # here, so that it is one skipped test and not one a case
    pytest.skip("there is no g++ on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    built = tmp_path_factory.mktemp("cpp") / "detect"
    flags = ["-O1", "-std=c++17", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion", "-Werror"]
    done = run("g++", *flags, f"-I{HERE}", str(SOURCE), "-o", str(built))
    assert done.returncode == 0, done.stderr
    if (NVIDIA / "NvInfer.h").is_file() and CUDA.is_dir():
        include = [f"-I{NVIDIA}", f"-I{CUDA}", "-Wno-deprecated-declarations"]
        done = run("g++", "-std=c++17", "-fsyntax-only", *include, str(SOURCE))
        assert done.returncode == 0, done.stderr
    return built


def run(*arguments, **environment):
    return subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | environment,
    )


def write_ppm(path, pixels):
    path.write_bytes(b"P6\n# a comment\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes())
    return path


def engine_of(answers):
    """An engine as the runtime of NvInfer.h reads it: a line a tensor."""
    lines = ["fake-engine", f"images i float32 4 1 3 {SIZE} {SIZE}"]
    for name, values in answers.items():
        dims = " ".join(map(str, values.shape))
        lines.append(f"{name} o {values.dtype} {values.ndim} {dims} " + " ".join(map(str, values.reshape(-1))))
    return "\n".join(lines).encode() + b"\n"


def deployed(folder, how=None, answers=KNOWN):
    """The text file that ``fine-edge deploy cpp`` writes for the tiny detector, with an engine beside it."""
    path = write_detector(folder)
    contract = read_contract(contract_path(path))
    changed = replace(contract, preprocessing=how or contract.preprocessing)
    contract_path(path).write_text(changed.to_text(), encoding="utf-8")
    assert main(["cpp", str(path), "--out", str(folder / "out")]) == 0
    made = folder / "out" / "tiny"
    (made / "tiny.engine").write_bytes(engine_of(answers))
    return made / "tiny.txt"


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(),
        Preprocessing("letterbox", pad_value=None, antialias=False, **NORMALISED),
        Preprocessing("letterbox", pad_value=114, align="center", antialias=False),
    ],
    ids=["transformers", "torchvision", "ultralytics"],
)
def test_it_feeds_what_preprocess_feeds_and_finds_what_is_known(tmp_path, program, how):
    text = deployed(tmp_path, how)
    picture = write_ppm(tmp_path / "street.ppm", PHOTOGRAPH)
    done = run(program, text, picture, "0.15", FAKE_INPUT=str(tmp_path / "seen"))
    assert (done.returncode, done.stderr) == (0, "")
    seen = np.fromfile(tmp_path / "seen", np.float32).reshape(1, 3, SIZE, SIZE)
    expected, placement = preprocess(PHOTOGRAPH, SIZE, SIZE, how)
    level = how.scale / min(how.std)
    # Where a sum of floats lies at a half, rounding may go to the other level.
    assert np.abs(seen - expected).max() < 1.01 * level
    assert np.abs(seen - expected).mean() < 0.001 * level
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["label"] for row in rows] == [LABELS[label] for label in KNOWN["labels"][0]]
    np.testing.assert_allclose([row["score"] for row in rows], [0.9, 0.6, 0.2], atol=1e-5)
    boxes = placement.to_picture(KNOWN["boxes_xyxy"][0])
    np.testing.assert_allclose([row["box_xyxy_px"] for row in rows], boxes, atol=0.01)


def test_rows_of_score_0_are_dropped_and_narrow_labels_are_read(tmp_path, program):
    answers = {
        "labels": np.array([[7, 1, 0]], np.int32),
        "boxes_xyxy": KNOWN["boxes_xyxy"],
        "scores": np.array([[0.25, 0.75, 0.0]], np.float32),
        "masks": np.zeros((1, 3, 2, 2), np.float32),  # an output that it does not read
    }
    text = deployed(tmp_path, answers=answers)
    text.write_text(text.read_text().replace("labels int64", "labels int32"))
    done = run(program, text, write_ppm(tmp_path / "a.ppm", PHOTOGRAPH), "0")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["label"], row["label_index"], row["score"]) for row in rows] == [
        ("dog", 1, 0.75),
        ("class 7", 7, 0.25),
    ]


def engine_text(**changed):
    """An engine with other answers; ``None`` leaves one out."""
    answers = {name: values for name, values in (KNOWN | changed).items() if values is not None}
    return lambda _: engine_of(answers)


FAULTS = {
    "no picture": ("street.ppm", None, "street.ppm: cannot be read"),
    "cut picture": ("street.ppm", lambda was: was[:-1], "ends before its last pixel"),
    "no PPM": ("street.ppm", lambda _: b"\x89PNG\r\n", "no binary PPM"),
    "huge picture": ("street.ppm", lambda _: b"P6 99999999 9999999 255\n", "no binary PPM"),
    "no engine": ("tiny.engine", None, "tiny.engine: cannot be read"),
    "foreign engine": ("tiny.engine", lambda was: was[1:], "TensorRT cannot load it"),
    "another engine": (
        "tiny.engine",
        lambda was: was.replace(b"1 3 64 64", b"1 3 32 32"),
        "images has 12288 bytes, its contract says 49152",
    ),
    "half precision": ("tiny.engine", engine_text(scores=KNOWN["scores"].astype(np.float16)), "neither float32 nor"),
    "no scores": ("tiny.engine", engine_text(scores=None), "the engine has no scores"),
    "NaN": ("tiny.engine", lambda was: was.replace(b"0.2", b"nan"), "the network gives NaN"),
    "another format": ("tiny.txt", lambda _: b"format 2\n", "this program reads 1"),
    "half a contract": ("tiny.txt", lambda was: was.partition(b"scale")[0], "'scale' stands there 0 times"),
    "a word for a number": ("tiny.txt", lambda was: was.replace(b"rows 3", b"rows many"), "'rows many'"),
    "an impossible size": ("tiny.txt", lambda was: was.replace(b"size 64", b"size 0"), "is impossible"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_files_are_one_line(tmp_path, program, fault):
    name, damage, words = FAULTS[fault]
    text = deployed(tmp_path)
    picture = write_ppm(text.with_name("street.ppm"), PHOTOGRAPH)
    damaged = text.with_name(name)
    if damage is None:
        damaged.unlink()
    else:
        damaged.write_bytes(damage(damaged.read_bytes()))
    done = run(program, text, picture)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
