"""Ids of images and categories: in annotation files numbers of any size or text, here numbers that 64 bits hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Id = int | str
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,100}\s*", re.ASCII)
_MOST = 2**63 - 1


def identity(value: Any) -> Id:
    """Return an id as it compares: text, an int, or the int that a float says.

    Raises:
        ValueError: when it is no id.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value in (_INF, -_INF):
        raise ValueError(f"{value!r} is no id")
    if int(value) != value:
        raise ValueError(f"{value!r} is no id")
    return int(value)


_INF = float("inf")


def integer(value: Any) -> int:
    """Return a whole number: an int, or a float or text that says one, as some tools write them.

    Raises:
        ValueError: when it is none.
    """
    one = identity(value)
    number = _whole(one) if isinstance(one, str) else one
    if number is None:
        raise ValueError(f"{value!r} is no whole number")
    return number


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


@dataclass(frozen=True)
class Numbering:
    """How ids of one kind are numbered.

    Numbers from 0 that 64 bits hold stand for themselves. Text and other numbers are counted from 1 in the order in
    which pycocotools would take them, because detections of the same score are told apart by it.

    Attributes:
        numbers: ours by the file's id; empty where ids stand for themselves.
    """

    numbers: dict[Id, int] = field(default_factory=dict)

    @classmethod
    def of(cls, ids: Sequence[Id]) -> Numbering:
        """Return the numbering of all ids of a kind, which differ.

        Raises:
            ValueError: when some are text and some numbers.
        """
        if all(isinstance(one, int) and 0 <= one <= _MOST for one in ids):
            return cls()
        texts, numbers = ([one for one in ids if isinstance(one, kind)] for kind in (str, int))
        if texts and numbers:
            raise ValueError(f"has ids that are text and ids that are numbers, such as {texts[0]!r} and {numbers[0]}")
        in_order: list[Id] = [*sorted(texts), *sorted(numbers)]
        return cls({one: number for number, one in enumerate(in_order, start=1)})

    def number(self, value: Any) -> int | None:
        """Return our number of an id, also where text is a number elsewhere, or ``None`` if there is no such id.

        Raises:
            ValueError: when it is no id.
        """
        one = identity(value)
        other = _whole(one) if isinstance(one, str) else str(one)
        if self.numbers:
            found = self.numbers.get(one)
            return found if found is not None or other is None else self.numbers.get(other)
        number = one if isinstance(one, int) else other
        return number if isinstance(number, int) and 0 <= number <= _MOST else None


class References:
    """Ids by which the entries of one list name others; some as text and some as numbers is a mistake of some tool.

    pycocotools takes "5" and 5 for two, and silently leaves out what is of the other.
    """

    def __init__(self, numbering: Numbering) -> None:
        self._numbering = numbering
        self._is_text: bool | None = None

    def number(self, value: Any) -> int | None:
        """Return our number of an id, see :meth:`Numbering.number`.

        Raises:
            ValueError: when it is none, or of another kind than the ones before.
        """
        number, is_text = self._numbering.number(value), isinstance(value, str)
        if self._is_text is None:
            self._is_text = is_text
        if is_text != self._is_text:
            kinds = ("text", "numbers") if is_text else ("a number", "text")
            raise ValueError(f"the id {value!r} is {kinds[0]} where those before are {kinds[1]}")
        return number
