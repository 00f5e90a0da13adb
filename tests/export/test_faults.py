"""Exports that are killed, stopped, or cannot write: nothing under a final name is ever half a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fine_edge.contract import bound_contract, read_contract
from fine_edge.export.artifacts import existing
from fine_edge.export.request import ExportRequest
from fine_edge.files import sha256_of

pytestmark = pytest.mark.host  # the server that exports imports torch

# Small, since every kill writes it twice: what is held here is writing, which is the same for every model.
MODEL, SIZE = "fcos_mobilenetv3_fine", 320
REQUEST = ExportRequest(MODEL, height=SIZE, width=SIZE)
NAMES = {f"{MODEL}.onnx", f"{MODEL}.golden.npz", f"{MODEL}.contract.json"}
PATIENCE_S = 120


class Exports:
    """The other end of export_server.py."""

    def __init__(self, scratch: Path, exported: Path) -> None:
        self.stderr = scratch / "stderr"
        server = Path(__file__).with_name("export_server.py")
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(server), MODEL, str(SIZE), str(exported)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        return self._process.stdout.readline().strip()

    def start(self, out: Path, *, limit_bytes: int | None = None) -> int:
        """Begin an export in a process of its own; its process id."""
        self.stderr.unlink(missing_ok=True)
        argv = [MODEL, "--input-size", str(SIZE), "--out", str(out)]
        order = {"argv": argv, "stderr": str(self.stderr), "limit_bytes": limit_bytes}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def end(self) -> tuple[int, str]:
        """Exit code (negative: a signal) and standard error of the export that was started last."""
        return int(self._answer()), self.stderr.read_text()

    def export(self, out: Path, *, limit_bytes: int | None = None) -> tuple[int, str]:
        self.start(out, limit_bytes=limit_bytes)
        return self.end()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def scratch():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def exports(scratch, export_store):
    server = Exports(scratch, export_store.folder_of(replace(REQUEST, precision="fp16")))
    yield server
    server.close()


@pytest.fixture(scope="module")
def good(exports, scratch):
    """What an undisturbed export leaves: file name to sha256."""
    folder = scratch / "good"
    assert exports.export(folder) == (0, "")
    found = {file.name: sha256_of(file) for file in folder.iterdir()}
    assert set(found) == NAMES
    return found


@pytest.fixture
def out():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "engines"


def partial_files(out: Path) -> set[str]:
    return {file.name for folder in out.glob(".*.partial-*") for file in folder.glob("*")}


# Moments of an export, in the order in which they come.
MOMENTS = {
    "nothing written": lambda _: True,
    "partial folder": lambda out: any(out.glob(".*.partial-*")),
    "model being written": lambda out: f"{MODEL}.onnx" in partial_files(out),
    "golden file there": lambda out: f"{MODEL}.golden.npz" in partial_files(out),
    "first file in place": lambda out: (out / f"{MODEL}.golden.npz").exists(),
    "model in place": lambda out: (out / f"{MODEL}.onnx").exists(),
}


def send_at(moment: str, number: int, pid: int, out: Path) -> None:
    """Signal the export as soon as the moment has come. One that is over already waits for its parent, unharmed."""
    limit = time.monotonic() + PATIENCE_S
    while not MOMENTS[moment](out):
        assert time.monotonic() < limit, "the export never got there"
    os.kill(pid, number)


def visible(out: Path) -> set[str]:
    return {file.name for file in out.glob("*") if not file.name.startswith(".")} if out.exists() else set()


def assert_whole(out: Path, good: dict[str, str]) -> None:
    """Each file is, to the bit, what an undisturbed export writes; a contract comes with all that it names."""
    assert {name: sha256_of(out / name) for name in visible(out)}.items() <= good.items()
    assert f"{MODEL}.contract.json" not in visible(out) or visible(out) == NAMES


def assert_the_next_export_works(exports: Exports, out: Path, good: dict[str, str]) -> None:
    """It cleans up too, unless the kill came after the last file was in place: then there is nothing to export."""
    done = visible(out) == NAMES and existing(REQUEST, out)
    assert exports.export(out) == (0, "")
    assert {name: sha256_of(out / name) for name in visible(out)} == good
    assert done or list(out.glob(".*")) == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_export_leaves_no_half_file_and_the_next_one_works(exports, good, out, moment):
    pid = exports.start(out)
    send_at(moment, signal.SIGKILL, pid, out)
    code, _ = exports.end()
    assert code in (-signal.SIGKILL, 0)
    assert_whole(out, good)
    assert (existing(REQUEST, out) is None) == (visible(out) != NAMES)
    assert_the_next_export_works(exports, out, good)


def test_a_kill_while_old_files_are_replaced_leaves_old_or_new_ones(exports, good, out):
    assert exports.export(out) == (0, "")
    golden, onnx = out / f"{MODEL}.golden.npz", out / f"{MODEL}.onnx"
    golden.write_bytes(b"old golden")
    onnx.write_bytes(b"old model")
    pid, limit = exports.start(out), time.monotonic() + PATIENCE_S
    while golden.stat().st_size < 100:
        assert time.monotonic() < limit
    os.kill(pid, signal.SIGKILL)
    exports.end()
    assert sha256_of(golden) == good[golden.name]
    assert onnx.read_bytes() == b"old model" or sha256_of(onnx) == good[onnx.name]
    assert_the_next_export_works(exports, out, good)


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("partial folder", signal.SIGINT, 130),
        ("model being written", signal.SIGTERM, 143),
        ("golden file there", signal.SIGINT, 130),
    ],
)
def test_a_stopped_export_cleans_up(exports, good, out, moment, number, code):
    pid = exports.start(out)
    send_at(moment, number, pid, out)
    ended, said = exports.end()
    if ended == 0:  # it was done before the signal came
        assert {file.name: sha256_of(file) for file in out.iterdir()} == good
        return
    assert ended == code
    assert list(out.glob(".*")) == []
    assert_whole(out, good)
    assert said == ("interrupted: no partial file was left\n" if number == signal.SIGINT else "")


@pytest.mark.parametrize("limit_bytes", [4096, 2**21])
def test_no_room_is_one_line(exports, out, limit_bytes):
    code, said = exports.export(out, limit_bytes=limit_bytes)
    assert code == 2
    assert said.startswith(f"error: {out}: cannot be written (File too large)")
    assert said.count("\n") == 1
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("below", ["", "engines"])
def test_a_file_where_the_folder_should_be_is_one_line(exports, tmp_path, below):
    file = tmp_path / "file"
    file.write_text("mine")
    code, said = exports.export(file / below if below else file)
    assert code == 2
    assert said.startswith(f"error: {file}")
    assert "cannot be written" in said
    assert said.count("\n") == 1
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def command_line(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fine_edge", "export", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        cwd=cwd,
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("rtdetr_r18_fin",), "no model is called 'rtdetr_r18_fin' -> nearest: rtdetr_r18_fine"),
        (("rtdetr_r18", "--input-size", "650"), "input height 650 is not a positive multiple of 32 -> use 640"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, argv, said):
    done = command_line(*argv, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_files_of_a_good_export_vouch_for_each_other(good, scratch):
    contract, artifact = bound_contract(scratch / "good" / f"{MODEL}.onnx")
    assert artifact.sha256 == good[f"{MODEL}.onnx"]
    assert contract == read_contract(scratch / "good" / f"{MODEL}.contract.json")
    assert contract.golden["sha256"] == good[f"{MODEL}.golden.npz"]
