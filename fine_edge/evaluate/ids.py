"""Number the ids of images and categories: files hold numbers of any size or text, arrays hold 64-bit numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Id = int | str
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,100}\s*", re.ASCII)
_MOST = 2**63 - 1


def identity(value: Any) -> Id:
    """Return an id in the form in which ids are compared: text or an int, which a whole float becomes.

    Raises:
        ValueError: when the value is no id.
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
    """Return a whole number from an int, or from a float or text that holds one, as some tools write them.

    Raises:
        ValueError: when the value is no whole number.
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
    """Maps the ids of one list to numbers.

    Numbers from 0 that fit into 64 bits keep their value. Text and other numbers are counted from 1 in the order in
    which pycocotools would sort them, because that order decides between detections of the same score.

    Attributes:
        numbers: our number by the file's id; empty where all ids keep their value.
    """

    numbers: dict[Id, int] = field(default_factory=dict)

    @classmethod
    def of(cls, ids: Sequence[Id]) -> Numbering:
        """Return the numbering of all ids of a list; the ids must differ.

        Raises:
            ValueError: when some are text and some are numbers.
        """
        if all(isinstance(one, int) and 0 <= one <= _MOST for one in ids):
            return cls()
        texts, numbers = ([one for one in ids if isinstance(one, kind)] for kind in (str, int))
        if texts and numbers:
            raise ValueError(f"has ids that are text and ids that are numbers, such as {texts[0]!r} and {numbers[0]}")
        in_order: list[Id] = [*sorted(texts), *sorted(numbers)]
        return cls({one: number for number, one in enumerate(in_order, start=1)})

    def number(self, value: Any) -> int | None:
        """Return our number of an id, which a list may write as text or as a number; ``None`` for an unknown id.

        Raises:
            ValueError: when the value is no id.
        """
        one = identity(value)
        other = _whole(one) if isinstance(one, str) else str(one)
        if self.numbers:
            found = self.numbers.get(one)
            return found if found is not None or other is None else self.numbers.get(other)
        number = one if isinstance(one, int) else other
        return number if isinstance(number, int) and 0 <= number <= _MOST else None


class References:
    """Checks the ids by which the entries of one list refer to another list: all must be text, or all numbers.

    pycocotools takes "5" and 5 for two ids, and silently leaves out the annotations of one of them.
    """

    def __init__(self, numbering: Numbering) -> None:
        self._numbering = numbering
        self._is_text: bool | None = None

    def number(self, value: Any) -> int | None:
        """Return our number of an id, see :meth:`Numbering.number`.

        Raises:
            ValueError: when it is no id, or is of another kind than the ids before.
        """
        number, is_text = self._numbering.number(value), isinstance(value, str)
        if self._is_text is None:
            self._is_text = is_text
        if is_text != self._is_text:
            kinds = ("text", "numbers") if is_text else ("a number", "text")
            raise ValueError(f"the id {value!r} is {kinds[0]} where those before are {kinds[1]}")
        return number
