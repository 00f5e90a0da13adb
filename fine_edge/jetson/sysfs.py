"""Small text files of the kernel, any of which may be absent, forbidden or unreadable at this moment."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str | None:
    """Content without surrounding blanks and NULs; ``None`` when it cannot be read.

    A sensor that is switched off answers with EAGAIN or EINVAL, which are ``OSError`` like a missing file.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\r\n")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """A decimal number; ``None`` when it cannot be read or is none."""
    text = read_text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def read_mhz(path: Path) -> float | None:
    """A frequency that the kernel gives in Hz, as MHz."""
    hertz = read_int(path)
    return None if hertz is None else hertz / 1e6


def is_forbidden(path: Path) -> bool:
    """Whether the file is there, or may be, but this user may not read it."""
    try:
        with path.open("rb"):
            return False
    except PermissionError:
        return True
    except OSError:
        return False


def entries(folder: Path, pattern: str) -> list[Path]:
    """What matches, sorted with numbers in order of value; nothing where the folder cannot be read."""
    try:
        return sorted(folder.glob(pattern), key=lambda path: (len(str(path)), str(path)))
    except OSError:
        return []
