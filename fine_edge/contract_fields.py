"""The fields of contracts and manifests, each checked as it is read: what it is, and how much of it there may be.

Whatever comes through can be part of a file's name, of an allocation or of a message without further thought.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from fine_edge.errors import ArtifactError
from fine_edge.text import is_plain_name, printable

T = TypeVar("T")

ELEMENT_TYPES = ("float32", "float16", "float64", "int64", "int32", "int8", "uint8", "bool")
"""Of network inputs and outputs, as numpy names them."""

MOST_ELEMENTS = 2**30
"""Of one input or output: 4 GiB in FP32."""

LONGEST_TEXT = 4096
LONGEST_LIST = 2**16

_SHA256 = re.compile(r"[0-9a-f]{64}")


def _refuse(what: str, needed: str, value: object) -> ArtifactError:
    shown = printable(repr(value))
    return ArtifactError(f"{what} is {shown if len(shown) <= 80 else f'{shown[:77]}...'}, not {needed}")


def text(value: object, what: str) -> str:
    """A text of bounded length."""
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise _refuse(what, "a text", value)
    return value


def name(value: object, what: str) -> str:
    """A text that can be shown as it is, and is not empty."""
    found = text(value, what)
    if not found or printable(found) != found:
        raise _refuse(what, "a name", value)
    return found


def file_name(value: object, what: str) -> str:
    """A name that leads nowhere else: letters, digits, ``.``, ``_`` and ``-``."""
    if not is_plain_name(value):
        raise _refuse(what, "a plain name of letters, digits, '.', '_' and '-'", value)
    return str(value)


def sha256(value: object, what: str) -> str:
    """A hex sha256."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise _refuse(what, "a sha256", value)
    return value


def one_of(value: object, known: Collection[str], what: str) -> str:
    """A word of a closed list."""
    if not isinstance(value, str) or value not in known:
        raise _refuse(what, f"one of {', '.join(known)}", value)
    return value


def flag(value: object, what: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise _refuse(what, "true or false", value)
    return value


def whole(value: object, what: str, least: int = 0, most: int = 2**62) -> int:
    """A whole number within bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _refuse(what, f"a whole number of {least} to {most}", value)
    return value


def number(value: object, what: str) -> float:
    """A finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > 1e300 or not math.isfinite(value):
        raise _refuse(what, "a finite number", value)
    return float(value)


def optional(read: Callable[[object, str], T], value: object, what: str) -> T | None:
    """Nothing, or what ``read`` makes of it."""
    return None if value is None else read(value, what)


def listed(value: object, what: str) -> Sequence[Any]:
    """A list of bounded length."""
    if not isinstance(value, list) or len(value) > LONGEST_LIST:
        raise _refuse(what, "a list", value)
    return value


def mapping(value: object, what: str) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise _refuse(what, "an object", value)
    return value


def shape(value: object, what: str) -> tuple[int, ...]:
    """The dimensions of a tensor that fits into memory, all positive."""
    dims = tuple(whole(dim, f"a dimension of {what}", 1) for dim in listed(value, f"the shape of {what}"))
    if len(dims) > 8 or math.prod(dims) > MOST_ELEMENTS:
        raise _refuse(f"the shape of {what}", f"one of at most 8 dimensions and {MOST_ELEMENTS} elements", list(dims))
    return dims
