"""Names of pictures in annotation files: places below the folder of pictures, on whatever system they were written."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

_MOST_BYTES = 255
"""Of one part of a path, on Linux, and of a whole one some 4,096."""
_MOST_LETTERS = 3000


def picture_name(value: Any) -> str:
    r"""Return a picture's name with ``/`` between its parts, as ``images\a.jpg`` of Windows means it.

    Raises:
        ValueError: when it is none, or leads out of the folder of pictures.
    """
    if not isinstance(value, str):
        raise ValueError(f"the name {value!r} is no text")
    name = value.replace("\\", "/")
    too_long = max(len(part) for part in name.encode("utf-8", "surrogatepass").split(b"/")) > _MOST_BYTES
    if too_long or len(name) > _MOST_LETTERS:
        raise ValueError(f"the name {value[:20]!r}... is longer than a file's can be")
    if any(0xD800 <= ord(mark) <= 0xDFFF for mark in name) or "\0" in name or not name.strip("/. "):
        raise ValueError(f"the name {value!r} is no file's")
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{value!r} lies outside of any folder; use relative names")
    return name
