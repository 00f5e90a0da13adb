"""Which of a data set's categories each class of a model is. Numbers mean nothing across data sets, names do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from unicodedata import normalize

from fine_edge import console
from fine_edge.errors import DataError

_SHOWN = 8


def plain(name: str) -> str:
    """Return a name without case, with one way of writing each letter and what stands between words."""
    return " ".join(normalize("NFKC", name).casefold().replace("_", " ").replace("-", " ").split())


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _renamed(pairs: Mapping[str, str], labels: tuple[str, ...], categories: Mapping[int, str]) -> dict[str, str]:
    """Return the names that are given for others, both as :func:`plain` has them.

    Raises:
        DataError: for one that is nobody's.
    """
    sides = (
        (pairs.keys(), set(categories.values()), "category of the data set"),
        (pairs.values(), set(labels), "class of the model"),
    )
    for given, known, kind in sides:
        names = {plain(name) for name in known}
        if unknown := [name for name in given if plain(name) not in names]:
            raise DataError(
                f"no {kind} is called {_some(unknown)}; there are {_some(sorted(known))}",
                where="--same",
                mend="write CATEGORY=CLASS",
            )
    return {plain(theirs): plain(ours) for theirs, ours in pairs.items()}


def map_labels(
    labels: tuple[str, ...],
    categories: Mapping[int, str],
    renamed: Mapping[str, str] | None = None,
    *,
    used: Collection[int] | None = None,
) -> dict[int, int]:
    """Class index of the model to category id of the data set; classes that the data set does not label are left out.

    Args:
        labels: names of the model's classes, by index.
        categories: names of the data set's, by id.
        renamed: names of the model by the data set's name for the same, where they differ.
        used: ids of the categories that there are objects of; the others are left out where they have no class, or
            that of another one, and said. All, without it.

    Raises:
        DataError: when a category of the data set is none of the model's classes, or two names are one.
    """
    renamed = _renamed(renamed or {}, labels, categories)
    ours = [plain(label) for label in labels]
    wanted = {number: renamed.get(plain(name), plain(name)) for number, name in categories.items()}
    if used is not None:
        wanted = _without_empty(wanted, ours, categories, used)
    if twice := [name for name, count in Counter(wanted.values()).items() if count > 1]:
        raise DataError(f"more than one category is called {_some(twice)}", mend="give each category its own name")
    if twice := [name for name in wanted.values() if ours.count(name) > 1]:
        raise DataError(f"more than one class of the model is called {_some(twice)}")
    unknown = [categories[number] for number, name in wanted.items() if name not in ours]
    if unknown:
        taken = set(wanted.values())
        unused = [label for label, name in zip(labels, ours, strict=True) if name not in taken]
        raise DataError(
            f"the model has no class for {len(unknown)} of {len(categories)} categories: {_some(unknown)};"
            f" its classes without a category: {_some(unused) or 'none'}",
            mend="evaluate on what it was trained for, or name pairs with --same CATEGORY=CLASS",
        )
    return {ours.index(name): number for number, name in wanted.items()}


def _without_empty(
    wanted: dict[int, str], ours: list[str], categories: Mapping[int, str], used: Collection[int]
) -> dict[int, str]:
    """Leave out categories without objects that are in the way, such as the root that some labelling tools write."""
    kept = {number: name for number, name in wanted.items() if number in used}
    for number, name in wanted.items():
        if number not in used and name in ours and name not in kept.values():
            kept[number] = name
    if left_out := [categories[number] for number in wanted if number not in kept]:
        console.remark(f"left out, since the data has no object of them and the model no class: {_some(left_out)}")
    return {number: name for number, name in wanted.items() if number in kept}
