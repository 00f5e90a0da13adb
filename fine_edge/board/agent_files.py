"""Files of a board, on the board: taken, given and looked at. Python's standard library alone, as in ``agent.py``."""

from __future__ import annotations

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
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# In front of each reply.
MARK = b"fine_edge> "
# File in an environment that is whole.
WHOLE = "fine_edge.json"
BLOCK = 1 << 18  # bytes
# Age of parts, results and copies of the program that nobody asks for any more.
_LEFT_S = 7 * 24 * 3600.0
# Left free on the board's disk, where the command writes its results as well.
_SPARE_BYTES = 256 * 2**20


class RefusalError(Exception):
    """A request that cannot be served: what is wrong, and the hint."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class LineBrokenError(Exception):
    """The other side has gone in the middle of a file."""


def reply(data: dict[str, Any]) -> None:
    """Write one reply."""
    sys.stdout.buffer.write(MARK + json.dumps(data).encode() + b"\n")
    sys.stdout.buffer.flush()


def say(text: str) -> None:
    """Show a line to the person who gave the command."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def expanded(text: str) -> Path:
    """Return a path whose ~ stands for the home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise RefusalError(f"{text}: {error}", "give an absolute path") from None


def root_of(request: dict[str, Any]) -> Path:
    """Return the folder of a request, made if it is not there."""
    root = expanded(request["folder"])
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve()


def below(root: Path, name: str) -> Path:
    """Return a file or folder below the root; refuse a name that leads elsewhere."""
    # Names come through the connection: neither side may write or read outside of its folder.
    if name.startswith("/") or ".." in name.split("/"):
        raise RefusalError(f"{name!r} leads out of {root}")
    return root / name


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path, *, busy: str = "") -> Iterator[None]:
    """Hold a lock; wait for it, or refuse with ``busy`` when another process holds it."""
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise RefusalError(busy, "wait until it has ended") from None
        yield


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _first_line(path: str) -> str:
    try:
        # Texts of the device tree end in a NUL: "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0".
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ").split("\n")[0]
    except OSError:
        return ""


def _tensorrt() -> str | None:
    """Return the version of TensorRT's Python package, as its metadata says it, or that it is there."""
    # Asked without an import, which would load all of TensorRT's libraries.
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("tensorrt")
    return "version unknown" if importlib.util.find_spec("tensorrt") else None


def code_sha256(package: Path) -> str:
    """Return one hash of the names and contents of a package's files, without what Python caches."""
    digest = hashlib.sha256()
    # Sorted, because the order of rglob is the file system's; both sides must get one hash.
    for path in sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(package).as_posix()}\0{_sha256(path)}\n".encode())
    return digest.hexdigest()


def about(request: dict[str, Any]) -> int:
    """Reply with what is on the board; nothing is changed but that the folder is made."""
    root = root_of(request)
    # The first line of the file: "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, ...".
    release = re.search(r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", _first_line("/etc/nv_tegra_release"))
    spec = importlib.util.find_spec("fine_edge")
    work = root / "work"
    reply(
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
    # By name and content: what arrived of an older file of the same name is not gone on with. Names that are no UTF-8
    # hold surrogates.
    return root / "parts" / hashlib.sha256(f"{name}\0{sha256}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _remove_surplus(root: Path, header: dict[str, Any]) -> None:
    """Remove what the other side does not have: a file left there would count as one of its folder."""
    # Commands read whole folders: of a folder of pictures, one from an earlier command would be evaluated as well.
    kept = {below(root, name) for name, _, _ in header["files"]}
    for name in header["absent"]:
        below(root, name).unlink(missing_ok=True)
    for name, deep, suffixes in header["folders"]:
        folder = below(root, name)
        for path in folder.rglob("*") if deep else folder.glob("*"):
            if path.is_file() and path not in kept and (not suffixes or path.suffix.lower() in suffixes):
                path.unlink()


def receive(request: dict[str, Any]) -> int:
    """Take files: a header of names, sizes and hashes, then the bytes of those that the reply asks for."""
    root = root_of(request)
    parts = root / "parts"
    parts.mkdir(exist_ok=True)
    # What runs that were cut off have left; a young one may be of a run that still goes on.
    for left in (*parts.iterdir(), *root.glob("results-*.json"), *root.glob("code-*")):
        if time.time() - left.stat().st_mtime > _LEFT_S:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    header = json.loads(sys.stdin.buffer.readline())
    _remove_surplus(root, header)
    wanted = []
    for number, (name, size, sha256) in enumerate(header["files"]):
        target, part = below(root, name), _part_of(root, name, sha256)
        # The size is looked at first: hashing every model before every command takes a board seconds.
        if not (target.is_file() and target.stat().st_size == size and _sha256(target) == sha256):
            # A part longer than the file is of no use, whatever it holds: begun anew.
            begun = part.stat().st_size if part.is_file() else 0
            wanted.append((number, begun if begun <= size else 0))
    needed = sum(header["files"][number][1] - begun for number, begun in wanted)
    free = shutil.disk_usage(root).free - _SPARE_BYTES
    # Said before the first byte comes: a full disk would show in the middle of the last file.
    if needed > max(free, 0):
        what = f"{needed / 2**20:.0f} MiB are to come, {max(free, 0) / 2**20:.0f} MiB are free in {root}"
        raise RefusalError(what, "free some space on the board, or choose another place with --folder")
    reply({"wanted": wanted})
    for number, begun in wanted:
        name, size, sha256 = header["files"][number]
        _take(root, name, size, sha256, begun)
    reply({"taken": len(wanted)})
    return 0


def _take(root: Path, name: str, size: int, sha256: str, begun: int) -> None:
    target, part = below(root, name), _part_of(root, name, sha256)
    digest = hashlib.sha256()
    # Unbuffered, so that what has arrived is in the file when the connection's end kills this process.
    with part.open("r+b" if begun else "w+b", buffering=0) as handle:
        # The hash is of all of the file, so what arrived earlier is read again, which leaves the position at its end.
        while block := handle.read(BLOCK):
            digest.update(block)
        left = size - begun
        while left:
            block = sys.stdin.buffer.read(min(left, BLOCK))
            if not block:
                raise LineBrokenError
            digest.update(block)
            handle.write(block)
            left -= len(block)
    if digest.hexdigest() != sha256:
        # Kept, it would be gone on with for ever.
        part.unlink()
        raise RefusalError(f"{name} arrived otherwise than it was sent", "give the same command again")
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)


def send(request: dict[str, Any]) -> int:
    """Give the results of a command, and forget them when the other side has them all."""
    root = root_of(request)
    note = root / f"results-{request['key']}.json"
    if not note.is_file():  # the command was refused
        reply({"files": []})
        return 0
    kept = json.loads(note.read_text(encoding="utf-8"))
    paths = {name: below(root, name) for name in kept["files"]}
    # A result may be gone by now, removed by a person or replaced by a folder.
    there = {name: path for name, path in paths.items() if path.is_file()}
    files = [(name, path.stat().st_size, _sha256(path)) for name, path in there.items()]
    reply({"code": kept["code"], "files": files})
    for name, size, _ in files:
        with there[name].open("rb") as handle:
            left = size
            while left and (block := handle.read(min(left, BLOCK))):
                sys.stdout.buffer.write(block)
                left -= len(block)
    sys.stdout.buffer.flush()
    # Forgotten only when the other side has them all: a connection that breaks before costs no second run.
    if sys.stdin.buffer.readline() == b"taken\n":
        note.unlink()
        reply({"forgotten": len(files)})
    return 0
