"""Numbers out of files that nobody vouches for. Texts, truths and what is beyond all measure are no numbers."""

from __future__ import annotations

from typing import Any

_MOST = 1e15
"""More than any duration, count or size in bytes of ours; sums and squares of such numbers stay finite."""
_LEAST = 1e-12


def finite(value: Any) -> float:
    """Return a number; raise ValueError for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no number")
    if not -_MOST < value < _MOST:  # neither is what is not a number
        raise ValueError("a number is beyond all measure")
    return float(value)


def amount(value: Any) -> float:
    """Return a number of at least 0; raise ValueError for anything else."""
    number = finite(value)
    if number < 0:
        raise ValueError(f"{value!r} is no amount")
    return number


def positive(value: Any) -> float:
    """Return a number that can be a duration, a count or an energy; raise ValueError for anything else."""
    number = finite(value)
    if number < _LEAST:
        raise ValueError(f"{value!r} is no duration or count")
    return number


def whole(value: Any) -> int:
    """Return a whole number of at least 0; raise ValueError for anything else."""
    number = amount(value)
    if not number.is_integer():
        raise ValueError(f"{value!r} is no whole number")
    return int(value)
