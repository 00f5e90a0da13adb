"""Files of unknown origin: bounded reading, JSON documents with a format, hashes, and writing whole or not at all.

Caches, journals and the check whether work is left all use :func:`sha256_of` and :func:`sha256_of_files`: a result is
used again only where the contents of all that it was made from are the same; equal names do not suffice.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fine_edge.errors import FineEdgeError, OutputError

# Annotations of the largest public data sets take 2 GiB.
MOST_JSON_BYTES = 4 * 2**30
# Contracts, manifests, recipes and configurations take kilobytes.
MOST_TEXT_BYTES = 64 * 2**20


def file_size(path: Path, error: type[FineEdgeError], *, hint: str = "", limit: int | None = None) -> int:
    """Return the size in bytes of a regular file; refuse pipes, devices and folders.

    Args:
        path: the file.
        error: raised when it is missing, no regular file or too large.
        hint: what to do about a file that is missing.
        limit: most bytes it may have.
    """
    try:
        found = path.stat()
    except OSError as reason:
        missing = isinstance(reason, FileNotFoundError)
        what = "no such file" if missing else f"cannot be read ({reason.strerror or reason})"
        raise error(what, where=path, hint=hint) from reason
    except ValueError as reason:  # a name with a zero byte
        raise error(f"not a file name ({reason})", where=repr(str(path)), hint=hint) from reason
    if not stat.S_ISREG(found.st_mode):
        raise error("not a regular file", where=path, hint=hint or "give a file, not a folder, pipe or device")
    if limit is not None and found.st_size > limit:
        raise error(f"has {found.st_size} bytes, at most {limit} are read", where=path, hint=hint)
    return found.st_size


def read_text(path: Path, error: type[FineEdgeError], *, hint: str = "", limit: int = MOST_TEXT_BYTES) -> str:
    """Return the text of a regular UTF-8 file of at most ``limit`` bytes, or raise ``error``.

    A byte order mark, which editors on Windows put in front, is no part of the text.
    """
    file_size(path, error, hint=hint, limit=limit)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"is no UTF-8 text ({reason.reason} at byte {reason.start})", where=path, hint=hint) from reason
    except OSError as reason:
        raise error(f"cannot be read ({reason.strerror or reason})", where=path, hint=hint) from reason


def parse_json(text: str, *, non_finite: bool = False) -> Any:
    """Return what a JSON text holds.

    Args:
        text: the document.
        non_finite: take NaN and Infinity, which JSON does not have but Python writes, as floats.

    Raises:
        ValueError: when it is no JSON or nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=None if non_finite else _refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(
    path: Path,
    error: type[FineEdgeError],
    *,
    hint: str = "",
    limit: int = MOST_TEXT_BYTES,
    non_finite: bool = False,
) -> Any:
    """Return what a JSON file of at most ``limit`` bytes holds, or raise ``error``; see :func:`parse_json`."""
    text = read_text(path, error, hint=hint, limit=limit)
    try:
        return parse_json(text, non_finite=non_finite)
    except ValueError as reason:
        raise error(f"is no JSON ({reason})", where=path, hint=hint) from reason


def read_document(
    path: Path,
    error: type[FineEdgeError],
    *,
    title: str,
    format_: int,
    hint: str,
    non_finite: bool = False,
) -> dict[str, Any]:
    """Return the JSON object of a file that this program wrote, and refuse other formats.

    Args:
        path: the file.
        error: raised when it cannot be read, is no object or is of another format.
        title: what the file is called in messages, such as ``contract``.
        format_: value of its key ``format``.
        hint: how to get the file again.
        non_finite: see :func:`parse_json`.
    """
    data = read_json(path, error, hint=hint, non_finite=non_finite)
    with contents_checked(path, error, title=title, hint=hint):
        require_format(data, title, format_)
    found: dict[str, Any] = data
    return found


def require_format(data: object, title: str, format_: int) -> None:
    """Refuse a document of another format, which no branch of the code can read.

    Raises:
        ValueError: when it is no object or has no format.
        FineEdgeError: when the format is another one.
    """
    if not isinstance(data, dict) or "format" not in data:
        raise ValueError("it is not an object with a format")
    if type(data["format"]) is not int or data["format"] != format_:
        raise FineEdgeError(f"{title} format {str(data['format'])[:40]}, this version reads {format_}")


@contextlib.contextmanager
def contents_checked(path: Path, error: type[FineEdgeError], *, title: str, hint: str) -> Iterator[None]:
    """Turn what is found wrong with a file's contents into ``error``, which names the file and the hint."""
    try:
        yield
    except FineEdgeError as reason:
        raise error(reason.what, where=path, hint=reason.hint or hint) from reason
    except (ValueError, ArithmeticError) as reason:
        raise error(f"the {title} is broken ({reason})", where=path, hint=hint) from reason


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_files(files: Mapping[str, Path]) -> str:
    """Return one hash of several files: of each name, in order, and of what the file of that name holds.

    Args:
        files: by the name that they count under, such as the path within a folder.
    """
    return sha256_of_hashes({name: sha256_of(path) for name, path in files.items()})


def sha256_of_hashes(hashes: Mapping[str, str]) -> str:
    """Return one hash of several files whose hashes are known, as :func:`sha256_of_files` gives it."""
    digest = hashlib.sha256()
    for name in sorted(hashes):
        digest.update(f"{name}\0{hashes[name]}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


_PARTIAL = re.compile(r"^\..+\.partial-[0-9a-f]{8}$")
# What this process is writing.
_OPEN: set[Path] = set()
# Folders that were swept by this process: one with a hundred thousand files is not listed anew for each of them.
_SWEPT: set[Path] = set()


def _hint(error: OSError) -> str:
    if error.errno in (28, 122, 27):  # ENOSPC, EDQUOT, EFBIG
        return "free some space or write to another place"
    return "choose a folder you can write to"


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` met while writing below ``path`` into an :class:`OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", where=path, hint=_hint(error)) from error


def refuse_unwritable(paths: Iterable[Path | None]) -> None:
    """Refuse, before minutes of work, a path that a result could not be written to.

    Raises:
        OutputError: for a path that is no file, or is below a folder that cannot be written to.
    """
    for path in filter(None, paths):
        with output_errors(path):
            _refuse_special(path)
            # A link that leads nowhere is there: no folder can be made in its place.
            parent = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
            # By trying: the superuser has access to everything, but nobody can make a folder in /proc.
            Path(tempfile.mkdtemp(dir=parent, prefix=".")).rmdir()


def _refuse_special(path: Path) -> None:
    """Refuse to put a file in the place of a folder, a device or a pipe; ``/dev/null`` would be gone for everybody."""
    if path.is_dir():
        raise OutputError("is a folder, a file name is needed", where=path)
    if path.exists() and not path.is_file():
        raise OutputError("is no regular file", where=path, hint="give the name of a file")


def _locked(folder: Path) -> int | None:
    """Open a folder and lock it; ``None`` where another process holds the lock, or has removed the folder.

    The lock ends with its process, however that ends. Process ids do not tell that: a machine gives them again, and a
    container gives every run the same ones.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:  # a file system without locks: nothing is swept there
        return handle
    if folder.exists():
        return handle
    os.close(handle)
    return None


def _sweep(folder: Path) -> None:
    """Remove partial folders whose writer was killed, once in each folder."""
    if folder in _SWEPT:
        return
    _SWEPT.add(folder)
    for entry in folder.iterdir():
        if _PARTIAL.match(entry.name) and (lock := _locked(entry)) is not None:
            shutil.rmtree(entry, ignore_errors=True)
            os.close(lock)


def _hidden(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")


@contextlib.contextmanager
def _partial_folder(folder: Path, name: str) -> Iterator[Path]:
    """Give a hidden folder in ``folder`` for what becomes ``name``; it is gone afterwards, with what is left in it."""
    target, lock = folder / name, None
    if target in _OPEN:
        raise OutputError("is being written already", where=target, hint="wait for the other writer")
    partial = _hidden(target)
    try:  # before the folder is made: a Ctrl-C right behind mkdir must remove it as well
        with output_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            _OPEN.add(target)
            partial.mkdir()
            while (lock := _locked(partial)) is None:  # another process swept it before it was locked
                partial = _hidden(target)
                partial.mkdir()
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if lock is not None:
            os.close(lock)
        _OPEN.discard(target)


@contextlib.contextmanager
def written_together(folder: Path, name: str, *, last: str = "") -> Iterator[Path]:
    """Give a hidden folder to write into; on success move its files to ``folder``.

    ``last`` names the file that describes the others (a contract); it is moved after them, so it is never there alone.
    The files get the permissions that the umask gives to new ones.
    """
    with output_errors(folder):
        _refuse_special(folder / (last or name))
    with _partial_folder(folder, name) as partial:
        yield partial
        for file in sorted(partial.iterdir(), key=lambda entry: (entry.name == last, entry.name)):
            _finish(file, partial)
            _refuse_special(folder / file.name)
            file.replace(folder / file.name)


def _finish(file: Path, partial: Path) -> None:
    """Bring a file onto the disk with the permissions of a new one; safetensors leaves it to its owner alone."""
    # What mkdir has left of 0o777. The umask itself cannot be asked for without setting it, for all threads.
    allowed = partial.stat().st_mode
    with file.open("rb") as handle:
        mode = os.fstat(handle.fileno()).st_mode
        executable = 0o111 if mode & stat.S_IXUSR else 0
        if (wanted := allowed & (0o666 | executable)) != stat.S_IMODE(mode):
            os.fchmod(handle.fileno(), wanted)
        os.fsync(handle.fileno())


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all."""
    with written_together(path.parent, path.name) as partial, output_errors(path):
        (partial / path.name).write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all; halves of characters, which no encoding has, are written out."""
    write_bytes(path, text.encode(errors="backslashreplace"))


@contextlib.contextmanager
def written_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden folder to write into, folders in it as well; on success it takes the place of ``folder``.

    What ``folder`` held is gone then, so the caller decides before whether it may be. A kill leaves the old folder or
    the new one, except between two renames, where it leaves none.
    """
    folder = Path(os.path.realpath(folder))  # a link stays, and leads to the new folder
    with _partial_folder(folder.parent, folder.name) as partial:
        new, old = partial / "new", partial / "old"
        new.mkdir()
        yield new
        for file in new.rglob("*"):
            if file.is_file():
                _finish(file, partial)
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
