"""Lines of a log as shells write it: any line ends, UTF-8 or the UTF-16 of PowerShell, colours, torn lines."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from fine_edge.errors import RecordError
from fine_edge.files import file_size

HINT = "take what trtexec prints, whole: trtexec --loadEngine=ENGINE > FILE"
_LONGEST_LINE = 2**16
_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_STAMP = re.compile(r"(?=\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[)")


def lines_of(path: Path) -> Iterator[str]:
    """Give lines without escapes of a terminal; a line with another's beginning in its middle counts as two.

    Raises:
        RecordError: when the file is no text.
    """
    with _opened(path) as handle:
        for line in iter(lambda: handle.readline(_LONGEST_LINE), ""):
            yield from _STAMP.split(_ESCAPE.sub("", line).rstrip())


def is_json(path: Path, hint: str = "") -> bool:
    """Return whether a file begins as a JSON document, which no log does: its brackets hold a date or a level.

    Args:
        path: the file.
        hint: what to do about a file that is missing.

    Raises:
        RecordError: when there is no such file, or it is no text.
    """
    file_size(path, RecordError, hint=hint)
    with _opened(path) as handle:
        head = "".join(handle.read(_LONGEST_LINE).split())
    return head[:1] == "{" or (head[:1] == "[" and head[1:2] in ("", "]", "{", "[", '"'))


def _opened(path: Path) -> TextIO:
    try:
        with path.open("rb") as handle:
            head = handle.read(_LONGEST_LINE)
        encoding = next((name for mark, name in _ENCODINGS.items() if head.startswith(mark)), "utf-8")
        if encoding != "utf-16" and b"\0" in head:
            raise RecordError("is no text", where=path, hint=HINT)
        return path.open(encoding=encoding, errors="replace")
    except OSError as error:
        raise RecordError(f"cannot be read ({error.strerror or error})", where=path, hint=HINT) from error
