"""Builds that are killed, stopped, starved or refused: nothing under a final name is ever half a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from small_graphs import attention, heavy

from fine_edge.engine import supervise
from fine_edge.engine.build import obtain_engine
from fine_edge.engine.manifest import read_manifest
from fine_edge.engine.options import BuildOptions
from fine_edge.errors import BackendError
from fine_edge.files import sha256_of

pytestmark = pytest.mark.host
RTX = BuildOptions(target="rtx-sm86")
ENGINE = "m.fp16.rtx-sm86.engine"
PATIENCE_S = 60


@pytest.fixture
def onnx_path(tmp_path):
    return attention(tmp_path / "m.fp16.onnx", 16)


def disturbed(kind: str, number: int, onnx_path: Path, out: Path) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("disturbed_build.py")
    command = [sys.executable, str(script), kind, str(number), "build", str(onnx_path)]
    command += ["--target", "rtx-sm86", "--out", str(out), "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def visible(out: Path) -> set[str]:
    return {file.name for file in out.glob("*") if not file.name.startswith(".")} if out.exists() else set()


def builders(onnx_path: Path) -> list[psutil.Process]:
    """The builder's processes that work on this file."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "fine_edge.engine.compiler" in line and str(onnx_path) in line:
            found.append(process)
    return found


def assert_the_next_build_works(onnx_path: Path, out: Path) -> None:
    engine = obtain_engine(onnx_path, RTX, out)
    assert sha256_of(engine.path) == read_manifest(engine.path).engine_sha256
    assert {file.name for file in out.iterdir()} == {ENGINE, f"{ENGINE}.json"}


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 13])
def test_a_kill_at_any_event_leaves_nothing_and_takes_the_builder_along(onnx_path, tmp_path, number):
    out = tmp_path / "out"
    assert disturbed("event", number, onnx_path, out).returncode == -signal.SIGKILL
    assert visible(out) == set()
    _, alive = psutil.wait_procs(builders(onnx_path), timeout=PATIENCE_S)
    assert alive == []
    assert_the_next_build_works(onnx_path, out)


@pytest.mark.parametrize(("number", "moved"), [(1, set()), (2, {ENGINE})])
def test_a_kill_between_two_files_leaves_an_engine_without_a_manifest_at_most(onnx_path, tmp_path, number, moved):
    out = tmp_path / "out"
    assert disturbed("replace", number, onnx_path, out).returncode == -signal.SIGKILL
    assert visible(out) == moved
    assert_the_next_build_works(onnx_path, out)


def test_a_kill_while_an_old_engine_is_replaced_is_found_out(onnx_path, tmp_path):
    out = tmp_path / "out"
    obtain_engine(onnx_path, RTX, out)
    attention(onnx_path, 32)
    assert disturbed("replace", 2, onnx_path, out).returncode == -signal.SIGKILL
    assert not obtain_engine(onnx_path, RTX, out).reused, "the new plan beside the old manifest"


def test_no_room_is_one_line(tmp_path):
    done = disturbed("fsize", 2**22, heavy(tmp_path / "m.fp16.onnx"), tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "the plan cannot be written" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_builder_that_runs_out_of_memory_says_so_in_one_line(tmp_path):
    """NVIDIA's compiler in an address space that holds it, but not its work. With less it may hang as it starts."""
    onnx_path, out = heavy(tmp_path / "m.fp16.onnx"), tmp_path / "out"
    for _ in range(3):
        done = disturbed("address", 700 * 2**20, onnx_path, out)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        assert list(out.iterdir()) == []
        if "ran out of memory" in done.stderr:  # seldom the compiler crashes before it can tell why
            break
    assert "ran out of memory" in done.stderr
    assert "add swap" in done.stderr


@pytest.mark.parametrize("number", [1, 4, 9])
def test_an_interrupt_at_any_event_ends_the_builder_and_leaves_nothing(onnx_path, tmp_path, monkeypatch, number):
    events = iter(range(1, 10**6))

    def interrupt(*_):
        if next(events) == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(supervise, "_show", interrupt)
    with pytest.raises(KeyboardInterrupt):
        obtain_engine(onnx_path, RTX, tmp_path / "out")
    assert builders(onnx_path) == []
    assert list((tmp_path / "out").iterdir()) == []


def test_a_builder_that_is_killed_was_most_likely_out_of_memory(onnx_path, tmp_path, monkeypatch):
    start = subprocess.Popen

    def start_and_kill(*arguments, **options):  # at once: so small a graph is built before anybody finds its process
        process = start(*arguments, **options)
        process.kill()
        return process

    monkeypatch.setattr(subprocess, "Popen", start_and_kill)
    with pytest.raises(BackendError, match=r"killed, most likely because memory ran out.*add swap"):
        obtain_engine(onnx_path, RTX, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_cancelled_build_ends_by_itself_at_its_next_step(onnx_path):
    """The builder's process alone: its input closes, and it says that it was cancelled."""
    import json

    from fine_edge.engine.compiler import CANCELLED
    from fine_edge.engine.plan import BuildJob

    process = subprocess.Popen(
        [sys.executable, "-m", "fine_edge.engine.compiler", "build", json.dumps(BuildJob(onnx_path, RTX).to_json())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"POLYGRAPHY_USE_TENSORRT_RTX": "1"},
    )
    assert json.loads(process.stdout.readline())["event"] == "start"
    process.send_signal(signal.SIGINT)  # as from a terminal: not for this process to act upon
    process.stdin.close()
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(PATIENCE_S) in (CANCELLED, 0)
    assert process.returncode == 0 or b'"result"' not in rest


@pytest.mark.parametrize(
    ("log", "code", "words"),
    [
        ("[V] x\n", -signal.SIGSEGV, "signal 11: [V] x"),
        ("", 70, "the compiler crashed (exit code 70)"),
        ("Traceback\nKeyError: 1", 1, "KeyError"),
        (
            "[E] 2: [virtualMemoryBuffer.cpp::resizePhysical] Error Code 2: OutOfMemory (Requested size was 9.)\n",
            3,
            "ran out of memory",
        ),
        ("[E] Error Code 1: Cuda Runtime (out of memory)\n", 3, "--workspace-mib 256"),
        ("OSError: [Errno 28] No space left on device\n", 1, "free some space"),
        (
            "[E] [graph.cpp::f::1] Error Code 9: no implementation for /decoder/Foo\n",
            3,
            "TensorRT refuses the graph: Error Code 9: no implementation",
        ),
    ],
)
def test_every_ending_has_its_line(log, code, words):
    """Logs written by hand after TensorRT 10's own messages."""
    line = str(supervise._failure(log, code, "tensorrt", Path("m.onnx")))
    assert words in line
    assert "\n" not in line
