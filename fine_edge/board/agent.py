"""What runs on the board: Python's standard library alone, sent in every request of :class:`fine_edge.board.line.Line`.

A request is a JSON object; ``do`` names its function here, ``folder`` the folder on the board. Replies are lines of
JSON on standard output behind :data:`MARK`, because what a login shell prints comes before them. A reply with ``error``
and ``hint`` ends the request.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

MARK = b"fine_edge> "
WHOLE = "fine_edge.json"
"""File in an environment that is whole."""
_BLOCK = 1 << 18
_LEFT_S = 7 * 24 * 3600.0
_SPARE_BYTES = 256 * 2**20
_GRACE_S = 10.0
_SHOWN = ("Collecting", "Downloading", "Building", "Installing")
"""Beginnings of pip's lines that are shown."""
_LINE = 76


class RefusalError(Exception):
    """A request that cannot be served: what is wrong, and the hint."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class LineBrokenError(Exception):
    """The other side has gone in the middle of a file."""


def _reply(data: dict[str, Any]) -> None:
    sys.stdout.buffer.write(MARK + json.dumps(data).encode() + b"\n")
    sys.stdout.buffer.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _expanded(text: str) -> Path:
    """Return a path whose ~ stands for the home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise RefusalError(f"{text}: {error}", "give an absolute path") from None


def _root(request: dict[str, Any]) -> Path:
    root = _expanded(request["folder"])
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve()


def _below(root: Path, name: str) -> Path:
    if name.startswith("/") or ".." in name.split("/"):
        raise RefusalError(f"{name!r} leads out of {root}")
    return root / name


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _locked(path: Path, *, busy: str = "") -> Iterator[None]:
    """Hold a lock; wait for it, or refuse with ``busy`` when another process holds it."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise RefusalError(busy, "wait until it has ended") from None
        yield


def _replace_text(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ").split("\n")[0]
    except OSError:
        return ""


def _tensorrt() -> str | None:
    """Return the version of TensorRT's Python package, as its metadata says it, or that it is there."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("tensorrt")
    return "version unknown" if importlib.util.find_spec("tensorrt") else None


def code_sha256(package: Path) -> str:
    """Return one hash of the names and contents of a package's files, without what Python caches."""
    digest = hashlib.sha256()
    for path in sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(package).as_posix()}\0{_sha256(path)}\n".encode())
    return digest.hexdigest()


def about(request: dict[str, Any]) -> int:
    """Reply with what is on the board; nothing is changed but that the folder is made."""
    root = _root(request)
    release = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", _first_line("/etc/nv_tegra_release"))
    spec = importlib.util.find_spec("fine_edge")
    work = root / "work"
    _reply(
        {
            "folder": str(root),
            "python": platform.python_version(),
            "executable": sys.executable,
            "arch": platform.machine(),
            "model": _first_line("/proc/device-tree/model") or None,
            "l4t": f"{release[1]}.{release[2]}" if release else None,
            "tensorrt": _tensorrt(),
            "free_bytes": shutil.disk_usage(root).free,
            "fine_edge_sha256": code_sha256(Path(spec.origin).parent) if spec and spec.origin else None,
            "environments": sorted(path.parent.name for path in root.glob(f"env-*/{WHOLE}")),
            "codes": sorted(path.name for path in root.glob("code-*")),
            "artifacts": {
                path.relative_to(work).as_posix(): path.stat().st_size
                for ending in ("*.onnx", "*.engine")
                for path in sorted(work.rglob(ending))
            },
            "results": sorted(path.stem.partition("-")[2] for path in root.glob("results-*.json")),
        }
    )
    return 0


def _part_of(root: Path, name: str, sha256: str) -> Path:
    return root / "parts" / hashlib.sha256(f"{name}\0{sha256}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _remove_surplus(root: Path, header: dict[str, Any]) -> None:
    """Remove what the other side does not have: a file left there would count as one of its folder."""
    kept = {_below(root, name) for name, _, _ in header["files"]}
    for name in header["absent"]:
        _below(root, name).unlink(missing_ok=True)
    for name, deep, suffixes in header["folders"]:
        folder = _below(root, name)
        for path in folder.rglob("*") if deep else folder.glob("*"):
            if path.is_file() and path not in kept and (not suffixes or path.suffix.lower() in suffixes):
                path.unlink()


def receive(request: dict[str, Any]) -> int:
    """Take files: a header of names, sizes and hashes, then the bytes of those that the reply asks for."""
    root = _root(request)
    parts = root / "parts"
    parts.mkdir(exist_ok=True)
    for left in (*parts.iterdir(), *root.glob("results-*.json")):
        if time.time() - left.stat().st_mtime > _LEFT_S:
            left.unlink()
    header = json.loads(sys.stdin.buffer.readline())
    _remove_surplus(root, header)
    wanted = []
    for number, (name, size, sha256) in enumerate(header["files"]):
        target, part = _below(root, name), _part_of(root, name, sha256)
        if not (target.is_file() and target.stat().st_size == size and _sha256(target) == sha256):
            begun = part.stat().st_size if part.is_file() else 0
            wanted.append((number, begun if begun <= size else 0))
    needed = sum(header["files"][number][1] - begun for number, begun in wanted)
    free = shutil.disk_usage(root).free - _SPARE_BYTES
    if needed > max(free, 0):
        what = f"{needed / 2**20:.0f} MiB are to come, {max(free, 0) / 2**20:.0f} MiB are free in {root}"
        raise RefusalError(what, "free some space on the board, or choose another place with --folder")
    _reply({"wanted": wanted})
    for number, begun in wanted:
        name, size, sha256 = header["files"][number]
        _take(root, name, size, sha256, begun)
    _reply({"taken": len(wanted)})
    return 0


def _take(root: Path, name: str, size: int, sha256: str, begun: int) -> None:
    target, part = _below(root, name), _part_of(root, name, sha256)
    digest = hashlib.sha256()
    with part.open("r+b" if begun else "w+b", buffering=0) as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
        left = size - begun
        while left:
            block = sys.stdin.buffer.read(min(left, _BLOCK))
            if not block:
                raise LineBrokenError
            digest.update(block)
            handle.write(block)
            left -= len(block)
    if digest.hexdigest() != sha256:
        part.unlink()
        raise RefusalError(f"{name} arrived otherwise than it was sent", "give the same command again")
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)


def _show_pip(command: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run pip; return its exit code and its last line that says what went wrong."""
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            if line.startswith(_SHOWN):
                _say(f"  {line.strip()[:_LINE]}")
            elif line.strip():
                last = line.strip() if line.startswith("ERROR") or not last.startswith("ERROR") else last
    return pip.returncode, last


def _path() -> str:
    """Return the search path; JetPack keeps the CUDA compiler, which pycuda is compiled with, out of it."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/local/cuda/bin"


def environment(request: dict[str, Any]) -> int:
    """Make a virtual environment unless it is there whole, and reply with its Python."""
    root = _root(request)
    place = root / f"env-{request['key']}"
    python = place / "bin" / "python"
    with _locked(root / f"{place.name}.lock"):
        made = not (place / WHOLE).is_file()
        if made:
            _make_environment(place, python, _below(root, request["code"]), request["requirements"])
    _reply({"python": str(python), "made": made})
    return 0


def _make_environment(place: Path, python: Path, code: Path, requirements: list[str]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    _say(f"making {place}: minutes, once")
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
    tried = subprocess.run(
        [str(python), "-c", "import fine_edge.cli.bench"], capture_output=True, text=True, env=variables, check=False
    )
    if tried.returncode:
        reason = tried.stderr.strip().split("\n")[-1]
        raise RefusalError(f"fine_edge does not start in {place} ({reason})", "report it; --python PATH takes another")
    about_it = {"requirements": requirements, "python": platform.python_version()}
    _replace_text(place / WHOLE, json.dumps(about_it, indent=1) + "\n")


def _listed(root: Path, outputs: list[str], suffixes: list[str]) -> dict[str, tuple[int, int, int]]:
    """Return size, time and inode of each file that may be a result; hidden ones are being written."""
    found = {}
    for output in outputs:
        place = _below(root, output)
        for path in (place,) if place.is_file() else place.rglob("*"):
            hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
            if path.suffix in suffixes and not hidden and path.is_file() and not path.is_symlink():
                state = path.stat()
                found[path.relative_to(root).as_posix()] = (state.st_size, state.st_mtime_ns, state.st_ino)
    return found


def run(request: dict[str, Any]) -> int:
    """Run fine_edge, note which results it wrote, and return its exit code."""
    root = _root(request)
    work = root / "work"
    work.mkdir(exist_ok=True)
    variables = {**os.environ, "PATH": _path()}
    if request["code"]:
        variables["PYTHONPATH"] = f"{_below(root, request['code'])}:{variables.get('PYTHONPATH', '')}".rstrip(":")
    command = [str(_expanded(request["python"])), "-m", "fine_edge", *request["argv"]]
    with _locked(root / "run.lock", busy="another fine-edge board command is running on the board"):
        before = _listed(root, request["outputs"], request["suffixes"])
        code, cut_off = _supervised(command, work, variables, terminal=request["terminal"])
        if not cut_off:
            after = _listed(root, request["outputs"], request["suffixes"])
            written = [name for name in sorted(after) if after[name] != before.get(name)]
            _replace_text(root / f"results-{request['key']}.json", json.dumps({"code": code, "files": written}))
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
        stdin=None if terminal else subprocess.DEVNULL,
        start_new_session=not terminal,
    )

    def end(number: int, _frame: FrameType | None = None) -> None:
        if child.poll() is None:
            cut_off.set()
            (child.send_signal if terminal else lambda sent: os.killpg(child.pid, sent))(number)

    def end_with_input() -> None:
        while os.read(0, _BLOCK):  # not sys.stdin, whose lock would still be held when the interpreter ends
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
    code = child.wait()
    return (code if code >= 0 else 128 - code), cut_off.is_set()


def send(request: dict[str, Any]) -> int:
    """Give the results of a command, and forget them when the other side has them all."""
    root = _root(request)
    note = root / f"results-{request['key']}.json"
    if not note.is_file():  # the command was refused
        _reply({"files": []})
        return 0
    kept = json.loads(note.read_text(encoding="utf-8"))
    paths = {name: _below(root, name) for name in kept["files"]}
    there = {name: path for name, path in paths.items() if path.is_file()}
    files = [(name, path.stat().st_size, _sha256(path)) for name, path in there.items()]
    _reply({"code": kept["code"], "files": files})
    for name, size, _ in files:
        with there[name].open("rb") as handle:
            left = size
            while left and (block := handle.read(min(left, _BLOCK))):
                sys.stdout.buffer.write(block)
                left -= len(block)
    sys.stdout.buffer.flush()
    if sys.stdin.buffer.readline() == b"taken\n":
        note.unlink()
        _reply({"forgotten": len(files)})
    return 0


_DO = {"about": about, "receive": receive, "environment": environment, "run": run, "send": send}


def main(encoded: str) -> int:
    """Serve one request, base64 of JSON; return the exit code."""
    request = json.loads(base64.b64decode(encoded))
    try:
        return _DO[request["do"]](request)
    except LineBrokenError:
        return 1
    except (RefusalError, OSError) as error:
        what = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) and error.strerror else str(error)
        refusal = {"error": what, "hint": getattr(error, "hint", "")}
        if request["do"] == "run":  # whose standard output is the command's
            hint = f" -> {refusal['hint']}" if refusal["hint"] else ""
            _say(f"error: {what}{hint}")
            return 2
        _reply(refusal)
        return 2
