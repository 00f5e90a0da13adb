"""Escaping of text from untrusted files: names of files, classes, models and nodes."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def printable(text: str, *, keep: str = "") -> str:
    r"""Return the text with every character escaped that a terminal would act on or that no encoding has.

    Control characters, escape sequences, marks that change the direction of writing and lone surrogates become
    ``\x1b``, ``\u202e`` and the like. Letters, signs and emoji of any script stay.

    Args:
        text: text of unknown origin.
        keep: control characters that stay, such as a line break.
    """
    if text.isascii():  # the fast path for documents, which are ASCII and long
        return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)
    return "".join(
        character if character in keep or _is_shown(character) else _escaped(character) for character in text
    )


def printable_all(document: Any) -> Any:
    """Return a JSON document in which :func:`printable` has escaped all texts and names of members."""
    if isinstance(document, str):
        return printable(document)
    if isinstance(document, dict):
        return {printable(name): printable_all(value) for name, value in document.items()}
    return [printable_all(value) for value in document] if isinstance(document, list) else document


def _is_shown(mark: str) -> bool:
    # Joiners (Cf) connect emoji and the letters of some scripts.
    return mark in "\u200c\u200d" or unicodedata.category(mark) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(mark: str) -> str:
    return mark.encode("unicode_escape").decode("ascii")


def file_stem(text: str, most_bytes: int = 120) -> str:
    """Return a text of unknown origin as a file's stem, printable and cut to ``most_bytes`` bytes."""
    name = printable(text).replace("/", "_")
    return name.encode()[:most_bytes].decode(errors="ignore")


def is_plain_name(text: object) -> bool:
    """Return whether a text can be part of a file's name without leading to another folder.

    Plain names begin with a letter or digit and hold at most 200 letters, digits, ``.``, ``_`` and ``-``.
    """
    return isinstance(text, str) and bool(_NAME.fullmatch(text))
