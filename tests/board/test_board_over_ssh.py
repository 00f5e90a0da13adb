"""Commands on a board: this machine's ssh, a server in this process, ONNX Runtime. One skip where either is missing."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_detector import write_detector

from fine_edge.board import program
from fine_edge.board.line import Line, read_ssh
from fine_edge.board.program import PACKAGE, requirements
from fine_edge.board.shipment import Shipment, deliver
from fine_edge.cli import board
from fine_edge.contract import contract_path
from fine_edge.errors import BoardError
from fine_edge.libraries import opencv

pytest.importorskip("asyncssh", reason="the extra dev is not installed")
if not shutil.which("ssh"):
    pytest.skip("OpenSSH's client is not on this machine", allow_module_level=True)

from ssh_server import SshServer

STUB = """#!/bin/sh
[ "$1" = -m ] && [ "$2" = fine_edge ] || exec {python} "$@"
shift 2
{does}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with SshServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def there(server, tmp_path, monkeypatch):
    """The board with an empty home, beside an empty working folder here."""
    server.home, server.before, server.cut_after, server.received = tmp_path / "home", "", None, 0
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return server


def run(server, *words, python=None, **client):
    options = ["--ssh", server.ssh(**client), "--python", str(python or server.python)]
    return board.main([*options, "board", *map(str, words)])


def stub(server, tmp_path, does):
    """A Python on the board whose fine_edge is a few lines of shell; its folder is the board's ``work``."""
    path = tmp_path / "python with blank"
    path.write_text(STUB.format(python=server.python, does=does), encoding="utf-8")
    path.chmod(0o755)
    return path


def root(server):
    return server.home / ".cache" / "fine_edge"


def pictures(folder, *names):
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (200, 100), (40 * number, 9, 9)).save(folder / name)


def test_what_is_on_a_board_whose_shell_greets(there, capsys):
    there.before = "echo Welcome to the board; "
    assert run(there, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(root(there))
    assert (found["environments"], found["artifacts"], found["results"]) == ([], {}, [])
    assert len(found["fine_edge_sha256"]) == 64


def test_pictures_go_there_and_drawings_come_back(there, tmp_path, capfd):
    write_detector(Path("engines"))
    folder = Path("pictures it's")
    pictures(folder, 'a "1".png', "b $HOME.png")
    out = tmp_path / "out"  # absolute, and not below the working folder
    words = ["predict", folder, "--onnx", "engines/tiny.onnx", "--out", out, "--json", "found.json"]
    assert run(there, *words) == 0
    assert sorted(path.name for path in out.iterdir()) == ['a "1".tiny.png', "b $HOME.tiny.png"]
    assert len(json.loads(Path("found.json").read_text())["detections"]) == 4
    shown = capfd.readouterr()
    assert "copying 4 of 4 files" in shown.err
    assert "from the board: found.json" in shown.err
    assert "[owl]" in shown.out
    # One picture fewer, and one that is none: nothing else is sent, and what is not here counts no more there.
    (folder / 'a "1".png').unlink()
    (folder / "c.png").write_bytes(b"no picture")
    assert run(there, *words) == 1
    assert "copying 1 of 4 files" in capfd.readouterr().err
    found = json.loads(Path("found.json").read_text())
    assert {row["image"] for row in found["detections"]} == {"b $HOME.png"}
    assert [Path(name).name for name in found["skipped"]] == ["c.png"]


def test_a_video_goes_through_the_detector_there_and_its_drawn_frames_come_back(there, capfd):
    write_detector(Path("engines"))
    writer = opencv().VideoWriter("clip.avi", opencv().VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for number in range(4):
        writer.write(np.full((48, 64, 3), 50 * number, np.uint8))
    writer.release()
    words = ["stream", "clip.avi", "--onnx", "engines/tiny.onnx", "--out", "seen.avi", "--json", "seen.json"]
    assert run(there, *words) == 0
    assert json.loads(Path("seen.json").read_text())["frames"] == 4
    assert opencv().VideoCapture("seen.avi").read()[0]
    assert "from the board: seen.avi" in capfd.readouterr().err


def test_a_suite_is_measured_there_and_its_record_is_here(there, capfd):
    from fine_edge.bench.record import read_record
    from fine_edge.export.request import ExportRequest

    for model in ("semantic_fpn_r50", "semantic_fpn_r50_fine"):
        request = ExportRequest(model, height=64, width=64)
        path = write_detector(Path("engines"), name=model)
        contract = json.loads(contract_path(path).read_text())
        contract["made_by"] = {"weights": {"source": "made up"}, "options": request.options()}
        contract["cost"] = {"params": 1, "flops": 1}
        contract_path(path).write_text(json.dumps(contract))
    words = ["bench", "--suite", "table7", "--only", "semantic_fpn_r50", "--input-size", "64", "--rounds", "2"]
    assert run(there, *words, "--json", "record.json") == 0
    record = read_record(Path("record.json"))
    assert [row.model for row in record.rows] == ["semantic_fpn_r50", "semantic_fpn_r50_fine"]
    assert {len(row.samples_ms) for row in record.rows} == {2}
    assert Path("engines/bench_table7.png").is_file()
    assert "Table 7" in capfd.readouterr().out


def test_a_cut_connection_leaves_nothing_half_and_is_gone_on_with(there):
    payload = random.Random(0).randbytes(3 << 20)
    Path("large.bin").write_bytes(payload)
    Path("small.bin").write_bytes(b"x")
    shipment = Shipment()
    shipment.add(Path("small.bin"), Path("large.bin"))
    there.cut_after = 1 << 20
    client = read_ssh(there.ssh())
    with Line("board", client) as line, pytest.raises(BoardError, match="the connection broke while files were copied"):
        deliver(line, "~/f", shipment)
    arrived = there.home / "f"
    for _ in range(500):  # until what was under way has been written
        parts = list((arrived / "parts").iterdir())
        if parts and parts[0].stat().st_size >= 1 << 19:
            break
        time.sleep(0.02)
    assert [path.name for path in (arrived / "work").iterdir()] == ["small.bin"]
    begun = parts[0].stat().st_size
    there.cut_after, there.received = None, 0
    with Line("board", client) as line:
        deliver(line, "~/f", shipment)
    assert (arrived / "work/large.bin").read_bytes() == payload
    assert there.received < len(payload) - begun + 4096
    assert list((arrived / "parts").iterdir()) == []


def test_results_that_were_not_brought_back_are_not_made_again(there, tmp_path, monkeypatch, capfd):
    python = stub(there, tmp_path, 'echo "$@" >> runs.log; mkdir -p out; echo drawn > out/a.png; exit 7')
    write_detector(Path("engines"))
    pictures(Path("in"), "a.png")
    words = ["predict", "in", "--onnx", "engines/tiny.onnx", "--out", "out"]

    def cut(talk, *_):
        talk.ssh.kill()
        raise talk.broken()

    with monkeypatch.context() as cut_off:
        cut_off.setattr(program, "_take", cut)
        with pytest.raises(BoardError, match="connection broke while results"):
            run(there, *words, python=python)
    assert not Path("out").exists()
    assert run(there, *words, python=python) == 7
    assert "has finished this command already" in capfd.readouterr().err
    assert Path("out/a.png").read_text() == "drawn\n"
    assert (root(there) / "work/runs.log").read_text() == "predict in --onnx engines/tiny.onnx --out out\n"
    assert not list(root(there).glob("results-*"))


def test_ctrl_c_ends_the_command_there(there, tmp_path):
    python = stub(there, tmp_path, "echo $$ > pid.part; mv pid.part pid; exec sleep 600")
    words = ["--ssh", there.ssh(), "--python", str(python), "board", "doctor"]
    with subprocess.Popen(
        [sys.executable, "-m", "fine_edge", "board", *words],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        # A shell that runs in the background has its programs ignore Ctrl-C, and they hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as here:
        pid = root(there) / "work" / "pid"
        while not pid.exists():
            assert here.poll() is None, here.stderr.read()
            time.sleep(0.02)
        here.send_signal(signal.SIGINT)
        assert here.wait(60) == 130
    while Path("/proc", pid.read_text().strip()).exists():
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("client", "said"),
    [
        ({"known": "other"}, "Host key verification failed"),
        ({"known": "none"}, "Host key verification failed"),
        ({"identity": "other"}, "Permission denied"),
    ],
    ids=["another key", "unknown key", "unknown user"],
)
def test_a_board_that_cannot_be_trusted_or_entered(there, client, said):
    with pytest.raises(BoardError, match=said) as refused:
        run(there, "doctor", **client)
    assert refused.value.where == "board"
    assert "ssh" in refused.value.hint
    assert not root(there).exists()


def test_a_python_without_fine_edge(there, tmp_path):
    python = tmp_path / "bare"
    python.write_text(f'#!/bin/sh\nPYTHONPATH= exec {there.python} -S "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    with pytest.raises(BoardError, match="has no fine_edge"):
        run(there, "doctor", python=python)


def test_an_environment_is_made_once_and_only_a_whole_one_is_used(there):
    wanted = {"folder": "~/f", "key": "k", "code": "code-x", "requirements": requirements(device=False)}
    env = there.home / "f" / "env-k"
    (env / "bin").mkdir(parents=True)
    (env / "bin" / "python").write_text("half made")
    shutil.copytree(PACKAGE, there.home / "f" / "code-x" / "fine_edge")
    with Line("board", read_ssh(there.ssh()), str(there.python)) as line:
        made = line.ask("", "environment", **wanted)
        again = line.ask("", "environment", **wanted)
    assert made == {"python": str(env / "bin/python"), "made": True}
    assert again == {**made, "made": False}
    assert json.loads((env / "fine_edge.json").read_text())["requirements"] == wanted["requirements"]
