"""Types of the fields that files hold, and the conversion between JSON and the dataclasses that use them.

A dataclass is read from a file with :func:`from_data` and written with :func:`to_data`; its annotations are what is
checked: the kind of every value, its range and its length. Nothing is converted on the way, so ``"3"`` and ``true`` are
not numbers. A key that the dataclass does not have is ignored, a field without a default must be there.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

# Larger than any duration, count or size in bytes; sums and squares of such numbers stay finite.
_MOST = 1e15

# JSON has no NaN and no infinity, but 1e999 is read as one: the upper bounds refuse both.
Finite = Annotated[float, Meta(ge=-_MOST, le=_MOST)]
Amount = Annotated[float, Meta(ge=0, le=_MOST)]
# A duration, an energy or a rate: figures are divided by it.
Positive = Annotated[float, Meta(ge=1e-12, le=_MOST)]
Whole = Annotated[int, Meta(ge=0, le=10**15)]
Count = Annotated[int, Meta(ge=1, le=10**15)]

# What every library here takes for a seed.
MOST_SEED = 2**31 - 1
Seed = Annotated[int, Meta(ge=0, le=MOST_SEED)]

# A value of a pixel in 8 bits.
Level = Annotated[int, Meta(ge=0, le=255)]

# Metadata of a field that files written by older versions lack: it has a default, and is never asked for.
ADDED = {"added": True}

LONGEST_TEXT = 4096
Text = Annotated[str, Meta(max_length=LONGEST_TEXT)]
# \Z and not $, which would let a line's end pass. The first pattern is that of text.is_plain_name.
FileName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]

_PATTERNS = {
    r"`str` matching regex '\\A[A-Za-z0-9][A-Za-z0-9._-]{0,199}\\Z'": "a plain name of letters, digits, '.', '_', '-'",
    r"`str` matching regex '\\A[0-9a-f]{64}\\Z'": "a sha256",
}
_LONGEST_REASON = 160
_PLACE = re.compile(r"(?P<what>.*) - at (?P<key>`key` in )?`\$\.?(?P<place>.*)`", re.DOTALL)


def from_data(kind: type[T], data: object, *, complete: bool = False) -> T:
    """Return ``data`` as an instance of a dataclass, every field checked.

    Args:
        kind: the dataclass.
        data: what :func:`json.loads` gave.
        complete: refuse a document that lacks a field with a default as well. Only people leave such fields out; where
            our own file lacks one, it was cut. Fields that are :data:`ADDED` may be absent.

    Raises:
        ValueError: for a missing field or a wrong value, as ``rows[0].x: expected int, got str``. An error that the
            dataclass's own ``__post_init__`` raised comes through as it is.
    """
    try:
        found = msgspec.convert(data, kind, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise ValueError(_reason(str(error))) from None
    _settle(found, data, "", complete=complete)
    return found


def _settle(value: Any, data: Any, place: str, *, complete: bool) -> None:
    """Give dataclasses that msgspec made all their fields, in order, and refuse absent ones where they must be there.

    msgspec leaves defaults to the class and fills an instance in the order of the document: ``vars`` would lack fields.
    """
    if value is data:  # it was read before
        return
    if is_dataclass(value):
        own = {field.name: getattr(value, field.name) for field in fields(value)}
        wanted = [field.name for field in fields(value) if field.metadata != ADDED]
        absent = next((name for name in wanted if name not in data), None)
        if complete and absent:
            raise ValueError(f"object missing required field {place}{absent}")
        vars(value).clear()
        vars(value).update(own)
        inner = [(f"{place}{name}", field, data.get(name)) for name, field in own.items()]
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        inner = [(f"{place[:-1]}[{index}]", *pair) for index, pair in enumerate(zip(value, data, strict=True))]
    elif isinstance(value, dict):
        inner = [(f"{place}{name}", item, data[name]) for name, item in value.items()]
    else:
        return
    for at, item, there in inner:
        _settle(item, there, f"{at}.", complete=complete)


def amount(value: object) -> float:
    """Return a number of at least 0 out of another program's file; raise ``ValueError`` for anything else."""
    try:
        found: float = msgspec.convert(value, Amount)
    except msgspec.ValidationError as error:
        raise ValueError(_reason(str(error))) from None
    return found


def to_data(value: object) -> Any:
    """Return a dataclass as JSON can hold it: its fields in the order of their definition."""
    return msgspec.to_builtins(value, enc_hook=_from_path)


# msgspec has no paths of its own. Anything else, such as a number of numpy's, is a mistake in the caller.
def _to_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"files cannot hold {kind}")


def _from_path(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"files cannot hold {type(value)}")


def _reason(text: str) -> str:
    """Return msgspec's message with the place in front, without its quoting."""
    found = _PLACE.fullmatch(text)
    what, place = (found["what"], found["place"]) if found else (text, "")
    for pattern, words in _PATTERNS.items():
        what = what.replace(pattern, words)
    if len(what) > _LONGEST_REASON:  # it can quote a value
        what = f"{what[: _LONGEST_REASON - 3]}..."
    key = "a key of " if found and found["key"] else ""
    return f"{key}{place}{': ' if place else ''}{what[0].lower()}{what[1:]}".replace("`", "")
