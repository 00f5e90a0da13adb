"""Requests as the board serves them, without a connection."""

import base64
import hashlib
import io
import json
import os
import sys

import pytest

from fine_edge.board import agent
from fine_edge.board.agent_files import MARK, locked


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Serve one request with the board's folder below ``tmp_path``; return exit code, replies and the bytes behind."""

    def serve(do, data=b"", **request):
        out = io.TextIOWrapper(io.BytesIO())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        monkeypatch.setattr(sys, "stdout", out)
        request = {"do": do, "folder": str(tmp_path / "board"), **request}
        code = agent.main(base64.b64encode(json.dumps(request).encode()).decode())
        lines = out.buffer.getvalue().split(b"\n")
        return code, [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]

    return serve


def header(*files, absent=(), folders=()):
    return json.dumps({"files": files, "absent": absent, "folders": folders}).encode() + b"\n"


def of(name, data):
    return name, len(data), hashlib.sha256(data).hexdigest()


def test_a_file_gets_its_name_when_it_is_whole(ask, tmp_path):
    data = b"0123456789"
    code, replies = ask("receive", header(of("work/a/x", data)) + data[:4])
    assert (code, replies) == (1, [{"wanted": [[0, 0]]}])
    assert not (tmp_path / "board/work").exists()
    code, replies = ask("receive", header(of("work/a/x", data)) + data[4:])
    assert (code, replies) == (0, [{"wanted": [[0, 4]]}, {"taken": 1}])
    assert (tmp_path / "board/work/a/x").read_bytes() == data
    assert ask("receive", header(of("work/a/x", data))) == (0, [{"wanted": []}, {"taken": 0}])


def test_a_file_of_other_bytes_is_refused_and_not_kept(ask, tmp_path):
    code, replies = ask("receive", header(of("work/x", b"right")) + b"wrong")
    assert (code, replies[-1]["error"]) == (2, "work/x arrived otherwise than it was sent")
    assert [path.name for path in (tmp_path / "board").rglob("*") if path.is_file()] == []


def test_what_nobody_asks_for_any_more_is_removed(ask, tmp_path):
    board = tmp_path / "board"
    for name in ("code-old/fine_edge/x.py", "code-new/fine_edge/x.py", "parts/old", "parts/new", "results-old.json"):
        (board / name).parent.mkdir(parents=True, exist_ok=True)
        (board / name).touch()
    for name in ("code-old", "parts/old", "results-old.json"):
        os.utime(board / name, (0, 0))
    assert ask("receive", header()) == (0, [{"wanted": []}, {"taken": 0}])
    assert sorted(path.relative_to(board).as_posix() for path in board.glob("*")) == ["code-new", "parts"]
    assert [path.name for path in (board / "parts").iterdir()] == ["new"]


def test_what_is_not_here_is_removed_there(ask, tmp_path):
    folder = tmp_path / "board" / "work" / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("old.png", "notes.txt", "deep/old.png", "recipe.json"):
        (folder / name).write_bytes(b"x")
    wanted = header(of("work/in/a.png", b"a"), absent=["work/in/recipe.json"], folders=[("work/in", False, [".png"])])
    assert ask("receive", wanted + b"a")[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["a.png", "deep", "notes.txt"]
    assert (folder / "deep/old.png").exists()


@pytest.mark.parametrize(
    ("do", "data", "request_", "said"),
    [
        ("receive", header(("../x", 1, "0")), {}, "leads out of"),
        ("receive", header(("/etc/x", 1, "0")), {}, "leads out of"),
        ("receive", header(("x", 10**18, "0")), {}, "MiB are to come"),
        ("about", b"", {"folder": "/proc/x"}, "No such file"),
        ("about", b"", {"folder": "~nobody-of-that-name/x"}, "home"),
        ("environment", b"", {"key": "k", "code": "../x", "requirements": []}, "leads out of"),
    ],
)
def test_refusals_are_one_reply(ask, do, data, request_, said):
    code, replies = ask(do, data, **request_)
    assert code == 2
    assert said in replies[-1]["error"]


def test_pip_without_a_network_is_told_and_nothing_half_is_used(ask, tmp_path, monkeypatch):
    """A Python whose ``venv`` makes one whose pip fails."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\nmkdir -p "$4/bin"; printf "#!/bin/sh\\necho Collecting numpy\\necho ERROR: no network >&2\\nexit 1"'
        ' > "$4/bin/python"; chmod +x "$4/bin/python"\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    asked = {"key": "k", "code": "code-x", "requirements": ["numpy"]}
    for _ in range(2):
        code, replies = ask("environment", **asked)
        assert code == 2
        assert replies[-1]["error"] == "pip could not install what fine_edge imports (ERROR: no network)"
        assert "--python" in replies[-1]["hint"]
    assert not (tmp_path / "board/env-k/fine_edge.json").exists()
    python.write_text("#!/bin/sh\necho ensurepip is not available\nexit 1\n", encoding="utf-8")
    _, replies = ask("environment", **asked)
    assert "ensurepip is not available" in replies[-1]["error"]
    assert "python3-venv" in replies[-1]["hint"]
    monkeypatch.setattr(agent.platform, "python_version_tuple", lambda: ("3", "8", "10"))
    assert "too old" in ask("environment", **asked)[1][-1]["error"]


def test_one_command_at_a_time(ask, tmp_path, capfd):
    (tmp_path / "board").mkdir()
    asked = {
        "python": "/bin/false",
        "code": "",
        "argv": [],
        "key": "k",
        "outputs": [],
        "suffixes": [],
        "terminal": False,
    }
    with locked(tmp_path / "board" / "run.lock"):
        assert ask("run", **asked) == (2, [])
    assert "another fine-edge board command is running" in capfd.readouterr().err
    assert ask("send", key="k") == (0, [{"files": []}])
