"""What runs on the board: Python's standard library alone, sent in every request of :class:`fine_edge.board.line.Line`.

A request is a JSON object; ``do`` names its function, ``folder`` the folder on the board. Replies are lines of JSON on
standard output behind ``MARK``, because what a login shell prints comes before them. A reply with ``error`` and
``hint`` ends the request.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from fine_edge.board.agent_files import (
    BLOCK,
    WHOLE,
    LineBrokenError,
    RefusalError,
    about,
    below,
    expanded,
    locked,
    receive,
    replace_text,
    reply,
    root_of,
    say,
    send,
)

# Between the interrupt and the kill of a command whose connection is gone: time to finish its files.
_GRACE_S = 10.0
# Python that fine_edge needs; this file runs on older ones to say so.
_OLDEST = (3, 10)
# Beginnings of pip's lines that are shown.
_SHOWN = ("Collecting", "Downloading", "Building", "Installing")
# Characters of pip's lines, which then fit a terminal of 80 behind their two spaces.
_LINE = 76


def _show_pip(command: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run pip; return its exit code and its last line that says what went wrong."""
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if line.startswith(_SHOWN):
                say(f"  {line.strip()[:_LINE]}")
            # The last line with ERROR says why; hints that pip prints behind it do not.
            elif line.strip():
                last = line.strip() if line.startswith("ERROR") or not last.startswith("ERROR") else last
    return pip.returncode, last


def _path() -> str:
    """Return the search path; JetPack keeps the CUDA compiler, which pycuda is compiled with, out of it."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/local/cuda/bin"


def environment(request: dict[str, Any]) -> int:
    """Make a virtual environment unless it is there whole, and reply with its Python."""
    if tuple(map(int, platform.python_version_tuple()[:2])) < _OLDEST:
        raise RefusalError(f"Python {platform.python_version()} is too old", "install Python 3.10 or newer there")
    root = root_of(request)
    place = root / f"env-{request['key']}"
    python = place / "bin" / "python"
    # A second command waits here until the first has made the environment, and then finds it whole.
    with locked(root / f"{place.name}.lock"):
        made = not (place / WHOLE).is_file()
        if made:
            _make_environment(place, python, below(root, request["code"]), request["requirements"])
    reply({"python": str(python), "made": made})
    return 0


def _make_environment(place: Path, python: Path, code: Path, requirements: list[str]) -> None:
    # What an installation that was cut off has left would be mixed with the new one.
    shutil.rmtree(place, ignore_errors=True)
    say(f"making {place}: minutes, once")
    # TensorRT's bindings are JetPack's own, in the system's Python and on no index.
    venv = [sys.executable, "-m", "venv", "--system-site-packages", str(place)]
    made = subprocess.run(venv, capture_output=True, text=True, check=False)
    if made.returncode:
        reason = (made.stdout + made.stderr).strip().split("\n")[0]
        raise RefusalError(f"{sys.executable} -m venv failed ({reason})", "on the board: sudo apt install python3-venv")
    variables = {**os.environ, "PATH": _path()}
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", *requirements]
    code_of_pip, reason = _show_pip(pip, variables)
    if code_of_pip:
        hint = "connect the board to the network once, or give --python PATH of an environment that has fine_edge"
        raise RefusalError(f"pip could not install what fine_edge imports ({reason})", hint)
    variables["PYTHONPATH"] = f"{code}:{variables.get('PYTHONPATH', '')}".rstrip(":")
    # That pip has ended well does not say that the program starts.
    # The bench's module: it imports what a measurement needs, numpy and ONNX among them.
    tried = subprocess.run(
        [str(python), "-c", "import fine_edge.cli.bench"], capture_output=True, text=True, env=variables, check=False
    )
    if tried.returncode:
        reason = tried.stderr.strip().split("\n")[-1]
        raise RefusalError(f"fine_edge does not start in {place} ({reason})", "report it; --python PATH takes another")
    # Written last: an environment that was cut off lacks it, and is made again.
    about_it = {"requirements": requirements, "python": platform.python_version()}
    replace_text(place / WHOLE, json.dumps(about_it, indent=1) + "\n")


def _listed(root: Path, outputs: list[str], suffixes: list[str]) -> dict[str, tuple[int, int, int]]:
    """Return size, time and inode of each file that may be a result; hidden ones are being written."""
    found = {}
    for output in outputs:
        place = below(root, output)
        for path in (place,) if place.is_file() else place.rglob("*"):
            hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
            if path.suffix in suffixes and not hidden and path.is_file() and not path.is_symlink():
                # A file that was replaced by another of the same size within one tick of the clock has another inode.
                state = path.stat()
                found[path.relative_to(root).as_posix()] = (state.st_size, state.st_mtime_ns, state.st_ino)
    return found


def run(request: dict[str, Any]) -> int:
    """Run fine_edge, note which results it wrote, and return its exit code."""
    root = root_of(request)
    work = root / "work"
    work.mkdir(exist_ok=True)
    variables = {**os.environ, "PATH": _path()}
    # With --python the fine_edge of that Python runs, and no copy of this one is on the board.
    if request["code"]:
        code_folder = below(root, request["code"])
        os.utime(code_folder)  # old copies are removed by their time
        variables["PYTHONPATH"] = f"{code_folder}:{variables.get('PYTHONPATH', '')}".rstrip(":")
    command = [str(expanded(request["python"])), "-m", "fine_edge", *request["argv"]]
    # Two commands at a time would disturb each other's times, and each would take the other's files for its results.
    with locked(root / "run.lock", busy="another fine-edge board command is running on the board"):
        before = _listed(root, request["outputs"], request["suffixes"])
        code, cut_off = _supervised(command, work, variables, terminal=request["terminal"])
        # A command that was cut off leaves no note, so that the same words run it again.
        if not cut_off:
            after = _listed(root, request["outputs"], request["suffixes"])
            written = [name for name in sorted(after) if after[name] != before.get(name)]
            replace_text(root / f"results-{request['key']}.json", json.dumps({"code": code, "files": written}))
    return code


def _supervised(command: list[str], folder: Path, variables: dict[str, str], *, terminal: bool) -> tuple[int, bool]:
    """Run a command that ends with the connection: by the terminal's signals, or when standard input ends.

    Returns:
        Its exit code, and whether it was ended from here.
    """
    cut_off = threading.Event()
    child = subprocess.Popen(
        command,
        cwd=folder,
        env=variables,
        # Without a terminal standard input is read here: its end is how the end of the connection shows.
        stdin=None if terminal else subprocess.DEVNULL,
        # On a terminal the command must stay in the foreground group, which Ctrl-C reaches. Elsewhere it gets a group
        # of its own, so that the processes that it starts, such as builders of engines, end with it.
        start_new_session=not terminal,
    )

    def end(number: int, _frame: FrameType | None = None) -> None:
        if child.poll() is None:
            cut_off.set()
            (child.send_signal if terminal else lambda sent: os.killpg(child.pid, sent))(number)

    def end_with_input() -> None:
        while os.read(0, BLOCK):  # not sys.stdin, whose lock would still be held when the interpreter ends
            pass
        with contextlib.suppress(ProcessLookupError):
            end(signal.SIGINT)
            time.sleep(_GRACE_S)
            end(signal.SIGKILL)

    # A terminal sends Ctrl-C to the command as well.
    signal.signal(signal.SIGINT, (lambda *_: None) if terminal else end)
    signal.signal(signal.SIGHUP, end)
    signal.signal(signal.SIGTERM, end)
    if not terminal:
        threading.Thread(target=end_with_input, daemon=True).start()
    # This thread waits, since Python runs the handlers of signals in the main thread alone.
    code = child.wait()
    # A command that a signal ended: 128 and the signal's number, as shells say it.
    return (code if code >= 0 else 128 - code), cut_off.is_set()


_DO = {"about": about, "receive": receive, "environment": environment, "run": run, "send": send}


def main(encoded: str) -> int:
    """Serve one request, base64 of JSON; return the exit code."""
    request = json.loads(base64.b64decode(encoded))
    try:
        return _DO[request["do"]](request)
    except LineBrokenError:
        return 1  # nobody is left to be told
    except (RefusalError, OSError) as error:
        what = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else str(error)
        refusal = {"error": what, "hint": getattr(error, "hint", "choose another place on the board with --folder")}
        if request["do"] == "run":  # whose standard output is the command's
            hint = f" -> {refusal['hint']}" if refusal["hint"] else ""
            say(f"error: {what}{hint}")
            return 2
        reply(refusal)
        return 2
