"""Classes of a model and categories of a data set, paired by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from unicodedata import normalize

from fine_edge import console
from fine_edge.contract import Contract
from fine_edge.errors import DataError
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.evaluate.segment_data import Data

_SHOWN = 8


def plain(name: str) -> str:
    """Return a class name for comparing: one Unicode form, lower case, single spaces in place of ``_`` and ``-``."""
    return " ".join(normalize("NFKC", name).casefold().replace("_", " ").replace("-", " ").split())


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _renamed(pairs: Mapping[str, str], labels: tuple[str, ...], categories: Mapping[int, str]) -> dict[str, str]:
    """Return the given pairs of names in the form of :func:`plain`.

    Raises:
        DataError: when a name is neither in the data set nor in the model.
    """
    sides = (
        (pairs.keys(), set(categories.values()), "category of the data set"),
        (pairs.values(), set(labels), "class of the model"),
    )
    for given, accepted, kind in sides:
        names = {plain(name) for name in accepted}
        if unknown := [name for name in given if plain(name) not in names]:
            raise DataError(
                f"no {kind} is called {_some(unknown)}; there are {_some(sorted(accepted))}",
                where="--same",
                hint="write CATEGORY=CLASS",
            )
    return {plain(theirs): plain(ours) for theirs, ours in pairs.items()}


def map_labels(
    labels: tuple[str, ...],
    categories: Mapping[int, str],
    renamed: Mapping[str, str] | None = None,
    *,
    used: Collection[int] | None = None,
) -> dict[int, int]:
    """Return the data set's category id by the model's class index; classes without a category are left out.

    Args:
        labels: names of the model's classes, by index.
        categories: names of the data set's categories, by id.
        renamed: the model's class name by the data set's category name, where the two differ.
        used: ids of the categories that have objects; ``None`` means all. A category without objects is left out, with
            a remark, where the model has no class for it or another category has taken the class.

    Raises:
        DataError: when a category has no class, or two categories or classes share a name.
    """
    renamed = _renamed(renamed or {}, labels, categories)
    ours = [plain(label) for label in labels]
    wanted = {number: renamed.get(plain(name), plain(name)) for number, name in categories.items()}
    if used is not None:
        wanted = _without_empty(wanted, ours, categories, used)
    if twice := [name for name, count in Counter(wanted.values()).items() if count > 1]:
        raise DataError(f"more than one category is called {_some(twice)}", hint="give each category its own name")
    if twice := [name for name in wanted.values() if ours.count(name) > 1]:
        hint = "name each class apart in the checkpoint that it was exported from, and export it again"
        raise DataError(f"more than one class of the model is called {_some(twice)}", hint=hint)
    unknown = [categories[number] for number, name in wanted.items() if name not in ours]
    if unknown:
        taken = set(wanted.values())
        unused = [label for label, name in zip(labels, ours, strict=True) if name not in taken]
        raise DataError(
            f"the model has no class for {len(unknown)} of {len(categories)} categories: {_some(unknown)};"
            f" its classes without a category: {_some(unused) or 'none'}",
            hint="evaluate on what it was trained for, or name pairs with --same CATEGORY=CLASS",
        )
    return {ours.index(name): number for number, name in wanted.items()}


def _without_empty(
    wanted: dict[int, str], ours: list[str], categories: Mapping[int, str], used: Collection[int]
) -> dict[int, str]:
    """Leave out categories without objects that have no class, such as the root that some labelling tools add."""
    kept = {number: name for number, name in wanted.items() if number in used}
    for number, name in wanted.items():
        if number not in used and name in ours and name not in kept.values():
            kept[number] = name
    if left_out := [categories[number] for number in wanted if number not in kept]:
        console.remark(f"categories without objects and without a class in the model are left out: {_some(left_out)}")
    return {number: name for number, name in wanted.items() if number in kept}


def categories_of(contract: Contract, data: Data, same: dict[str, str] | None) -> dict[int, int]:
    """Return the data set's category id by the model's class index; a remark names the classes that do not count.

    Raises:
        DataError: when the model has no class for a category.
    """
    used = set(data.truth.category_ids.tolist()) if isinstance(data, CocoData) else None
    category_of = map_labels(contract.labels, data.categories, same, used=used)
    unused = [label for index, label in enumerate(contract.labels) if index not in category_of]
    if unused:
        more = ", ..." if len(unused) > 4 else ""
        console.remark(f"not counted, because the data set has no such categories: {', '.join(unused[:4])}{more}")
    return category_of
