"""Reading files that nobody vouches for, bounded in bytes, and telling them apart by what they hold.

Every cache, journal and "nothing to do" of the package rests on :func:`sha256_of` and :func:`sha256_of_files`: a result
is used again only where the contents of all that it was made from are the same, never because a name is.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from fine_edge.errors import FineEdgeError

MOST_JSON_BYTES = 4 * 2**30
"""Annotations of the largest public data sets take 2 GiB."""
MOST_TEXT_BYTES = 64 * 2**20
"""Contracts, manifests, recipes and configurations take kilobytes."""


def file_size(path: Path, error: type[FineEdgeError], *, mend: str = "", limit: int | None = None) -> int:
    """Return the size in bytes of a regular file; pipes, devices and folders are none.

    Args:
        path: the file.
        error: raised when it is missing, no regular file or too large.
        mend: what to do about a file that is missing.
        limit: most bytes it may have.
    """
    try:
        found = path.stat()
    except OSError as reason:
        missing = isinstance(reason, FileNotFoundError)
        what = "no such file" if missing else f"cannot be read ({reason.strerror or reason})"
        raise error(what, where=path, mend=mend) from reason
    except ValueError as reason:  # a name with a zero byte
        raise error(f"not a file name ({reason})", where=repr(str(path)), mend=mend) from reason
    if not stat.S_ISREG(found.st_mode):
        raise error("not a regular file", where=path, mend=mend or "give a file, not a folder, pipe or device")
    if limit is not None and found.st_size > limit:
        raise error(f"has {found.st_size} bytes, at most {limit} are read", where=path, mend=mend)
    return found.st_size


def read_text(path: Path, error: type[FineEdgeError], *, mend: str = "", limit: int = MOST_TEXT_BYTES) -> str:
    """Return the text of a regular UTF-8 file of at most ``limit`` bytes, or raise ``error``.

    A byte order mark, which editors on Windows put in front, is no part of the text.
    """
    file_size(path, error, mend=mend, limit=limit)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as reason:
        raise error(f"is no UTF-8 text ({reason.reason} at byte {reason.start})", where=path, mend=mend) from reason
    except OSError as reason:
        raise error(f"cannot be read ({reason.strerror or reason})", where=path, mend=mend) from reason


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
    mend: str = "",
    limit: int = MOST_TEXT_BYTES,
    non_finite: bool = False,
) -> Any:
    """Return what a JSON file of at most ``limit`` bytes holds, or raise ``error``; see :func:`parse_json`."""
    text = read_text(path, error, mend=mend, limit=limit)
    try:
        return parse_json(text, non_finite=non_finite)
    except ValueError as reason:
        raise error(f"is no JSON ({reason})", where=path, mend=mend) from reason


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
