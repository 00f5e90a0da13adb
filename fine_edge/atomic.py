"""Files written whole or not at all.

Everything is written under a hidden partial name in the same folder and renamed
when complete, so a reader, a full disk or a kill never meets half a file.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fine_edge.errors import OutputError

_PARTIAL = re.compile(r"^\..+\.partial-(\d+)$")
# Partial folders this process writes to. Containers give the same few process ids again and again, so a folder
# with our own id that is not here was left by a killed predecessor.
_OPEN: set[Path] = set()
# Folders that were swept by this process: one with a hundred thousand files is not listed anew for each of them.
_SWEPT: set[Path] = set()


def _mend(error: OSError) -> str:
    if error.errno in (28, 122, 27):  # ENOSPC, EDQUOT, EFBIG
        return "free some space or write to another place"
    return "choose a folder you can write to"


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` met while writing below ``path`` into an :class:`OutputError`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", where=path, mend=_mend(error)) from error


def refuse_unwritable(paths: Iterable[Path | None]) -> None:
    """Find out before minutes of work, not after, that a result could not be written.

    Raises:
        OutputError: for a path that is no file, or is below a folder that cannot be written to.
    """
    for path in filter(None, paths):
        with output_errors(path):
            _refuse_special(path)
            parent = next(folder for folder in path.absolute().parents if folder.exists())
            # By trying: the superuser has access to everything, but nobody can make a folder in /proc.
            Path(tempfile.mkdtemp(dir=parent, prefix=".", suffix=f".partial-{os.getpid()}")).rmdir()


def _refuse_special(path: Path) -> None:
    """Refuse to put a file in the place of a folder, a device or a pipe; ``/dev/null`` would be gone for everybody."""
    if path.is_dir():
        raise OutputError("is a folder, a file name is needed", where=path)
    if path.exists() and not path.is_file():
        raise OutputError("is no regular file", where=path, mend="give the name of a file")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sweep(folder: Path) -> None:
    """Remove partial folders whose writer was killed, once in each folder."""
    if folder in _SWEPT:
        return
    _SWEPT.add(folder)
    for entry in folder.iterdir():
        match = _PARTIAL.match(entry.name)
        if match and entry not in _OPEN and (int(match[1]) == os.getpid() or not _is_alive(int(match[1]))):
            shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def written_together(folder: Path, name: str, *, last: str = "") -> Iterator[Path]:
    """Give a hidden folder to write into; on success move its files to ``folder``.

    ``last`` names the file that vouches for the others (a contract) and is therefore moved after them.
    """
    partial = folder / f".{name}.partial-{os.getpid()}"
    if partial in _OPEN:
        raise OutputError("is being written already", where=folder / name, mend="wait for the other writer")
    try:  # before the folder is made: a Ctrl-C right behind mkdir must remove it as well
        with output_errors(folder):
            _refuse_special(folder / (last or name))
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            _OPEN.add(partial)
            partial.mkdir()
            yield partial
            for file in sorted(partial.iterdir(), key=lambda entry: (entry.name == last, entry.name)):
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
                _refuse_special(folder / file.name)
                file.replace(folder / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _OPEN.discard(partial)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` whole or not at all."""
    with written_together(path.parent, path.name) as partial, output_errors(path):
        (partial / path.name).write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all; halves of characters, which no encoding has, are written out."""
    write_bytes(path, text.encode(errors="backslashreplace"))
