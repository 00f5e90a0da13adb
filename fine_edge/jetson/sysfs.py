"""Reading of the kernel's small text files, which may be absent, forbidden or unreadable at this moment."""

from __future__ import annotations

from pathlib import Path

# Digits of the largest 64-bit number, and a sign.
_LONGEST_INT = 20


def read_text(path: Path) -> str | None:
    """Return the content without surrounding blanks and NULs; ``None`` when the file cannot be read.

    Reading a sensor that is switched off fails with EAGAIN or EINVAL, which are ``OSError`` like a missing file.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """Return a decimal number; ``None`` when the file cannot be read or holds something else."""
    text = read_text(path)
    try:
        return None if text is None or len(text) > _LONGEST_INT else int(text)
    except ValueError:
        return None


def read_mhz(path: Path) -> float | None:
    """Return a frequency in MHz; the kernel's files hold Hz."""
    hertz = read_int(path)
    return None if hertz is None else hertz / 1e6


def is_forbidden(path: Path) -> bool:
    """Return whether this user lacks the permission to read the file."""
    try:
        with path.open("rb"):
            return False
    except PermissionError:
        return True
    except OSError:
        return False


def entries(folder: Path, pattern: str) -> list[Path]:
    """Return the matching paths, numbers in order of value; an empty list when the folder cannot be read."""
    try:
        return sorted(folder.glob(pattern), key=lambda path: (len(str(path)), str(path)))
    except OSError:
        return []
