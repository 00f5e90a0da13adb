"""Text that came with somebody's file, made fit to be shown: names of files, classes, models and nodes."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def printable(text: str, *, keep: str = "") -> str:
    r"""Return the text with every character that a terminal would act on, or that no encoding has, written out.

    Control characters, escape sequences, marks that turn the direction of writing and lone surrogates become
    ``\x1b``, ``\u202e`` and the like; letters, signs and emoji of any script stay.

    Args:
        text: of unknown origin.
        keep: control characters that may stay, such as a line's end.
    """
    if text.isascii():  # in one go: documents are ASCII, and long
        return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)
    return "".join(
        character if character in keep or _is_shown(character) else _escaped(character) for character in text
    )


def printable_all(document: Any) -> Any:
    """Return a JSON document with all its texts, names of members included, as :func:`printable` shows them."""
    if isinstance(document, str):
        return printable(document)
    if isinstance(document, dict):
        return {printable(name): printable_all(value) for name, value in document.items()}
    return [printable_all(value) for value in document] if isinstance(document, list) else document


def _is_shown(mark: str) -> bool:
    # Joiners (Cf) hold emoji and the letters of some scripts together.
    return mark in "\u200c\u200d" or unicodedata.category(mark) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(mark: str) -> str:
    return mark.encode("unicode_escape").decode("ascii")


def file_stem(text: str, most_bytes: int = 120) -> str:
    """Return a text of unknown origin as the first part of a file's name, printable and cut to ``most_bytes`` bytes."""
    name = printable(text).replace("/", "_")
    return name.encode()[:most_bytes].decode(errors="ignore")


def is_plain_name(text: object) -> bool:
    """Return whether a text can be part of a file's name without leading anywhere else.

    Plain names begin with a letter or digit and hold letters, digits, ``.``, ``_`` and ``-``, at most 200 of them.
    """
    return isinstance(text, str) and bool(_NAME.fullmatch(text))
