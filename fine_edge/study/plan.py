"""A study's file: which variants, seeds, data and recipe. Written by people in TOML, checked before anything runs."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fine_edge.errors import ConfigError, MissingExtraError
from fine_edge.export.request import parse_size
from fine_edge.fields import Seed, Text, from_data
from fine_edge.files import contents_checked, read_text
from fine_edge.text import printable
from fine_edge.train.recipe import Recipe
from fine_edge.zoo.catalog import find, with_fine

MOST_RUNS = 10_000
_MOST_BYTES = 1 << 20
_HINT = "see examples/blood_cells/study.toml"
_NamesOrNumbers = Annotated[tuple[str | int, ...], Meta(min_length=1, max_length=100)]


@dataclass(frozen=True)
class DataFiles:
    """Annotations in COCO's format to train and to evaluate on, and the folders of their pictures."""

    train: Path
    val: Path
    images: Path
    val_images: Path | None = None

    def below(self, folder: Path) -> DataFiles:
        """Return the files with relative paths counted from ``folder``, all pictures' folders filled in."""
        return DataFiles(
            folder / self.train, folder / self.val, folder / self.images, folder / (self.val_images or self.images)
        )


@dataclass(frozen=True)
class StudyRecipe:
    """How every variant is trained: as ``fine-edge train`` names it, but for the last field.

    Attributes:
        ap_every: number of epochs between two evaluations on the way, for the curves; 0 for none.
    """

    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 20
    batch: Annotated[int, Meta(ge=1, le=4096)] = 8
    input_size: Text | None = None
    learning_rate: Annotated[float, Meta(gt=0, le=1000)] = 1e-3
    flips: Text = "horizontal"
    weights: Path | None = None
    ap_every: Annotated[int, Meta(ge=0, le=10_000)] = 0


@dataclass(frozen=True)
class StudyVariant:
    """One thing that is compared: its name in tables, and its model with options of FINE in the name."""

    name: str
    model: str


@dataclass(frozen=True)
class _Given:
    """One ``[[variant]]`` of the file."""

    model: Text
    name: Text | None = None
    fine: Text | None = None


@dataclass(frozen=True)
class _Document:
    """The file as it is written."""

    data: DataFiles
    recipe: StudyRecipe
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1, max_length=100)]
    title: Text = "Study"
    base: Text | None = None
    variant: Annotated[tuple[_Given, ...], Meta(max_length=1000)] = ()
    grid: dict[str, _NamesOrNumbers] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyPlan:
    """A study, checked.

    Attributes:
        title: of tables and pictures.
        variants: what is compared, the base first.
        seeds: each variant is trained with each of them.
        data: absolute paths.
        recipe: how all are trained.
    """

    title: str
    variants: tuple[StudyVariant, ...]
    seeds: tuple[int, ...]
    data: DataFiles
    recipe: StudyRecipe

    @property
    def base(self) -> StudyVariant:
        """Return the variant that the others are compared with."""
        return self.variants[0]

    def recipe_of(self, variant: StudyVariant, seed: int) -> Recipe:
        """Return the recipe of one training."""
        height, width = parse_size(self.recipe.input_size)
        own = find(variant.model).detector.input_hw
        return Recipe(
            variant.model,
            height or own[0],
            width or own[1],
            epochs=self.recipe.epochs,
            batch=self.recipe.batch,
            learning_rate=self.recipe.learning_rate,
            flips=self.recipe.flips,
            seed=seed,
        )


def read_plan(path: Path, data: Path | None = None) -> StudyPlan:
    """Read a study's file.

    Args:
        path: the file.
        data: folder that relative paths of ``[data]`` count from, instead of the file's own.

    Raises:
        ConfigError: when it is missing, no TOML, lacks something or states what does not exist.
        UnknownModelError: for a model that is not in the zoo.
    """
    text = read_text(path, ConfigError, hint=_HINT, limit=_MOST_BYTES)
    try:
        found = msgspec.toml.decode(text)
    except ImportError as error:  # Python 3.10 has no reader of TOML
        raise MissingExtraError("tomli", "train") from error
    except (msgspec.DecodeError, RecursionError) as error:
        reason = printable(" ".join(str(error).split()))[:160]
        raise ConfigError(f"is no TOML ({reason})", where=path, hint=_HINT) from error
    with contents_checked(path, ConfigError, title="study", hint=_HINT):
        _refuse_unknown(found, _Document, "")
        document = from_data(_Document, found)
        plan = StudyPlan(
            document.title,
            _variants(document),
            document.seeds,
            document.data.below((data or path.parent).absolute()),
            document.recipe,
        )
        _check(plan)
    if plan.recipe.weights:
        return replace(plan, recipe=replace(plan.recipe, weights=path.parent.absolute() / plan.recipe.weights))
    return plan


def _refuse_unknown(given: Any, kind: Any, place: str) -> None:
    """Refuse keys that nothing reads, which would leave a default in the place of what was meant."""
    if not isinstance(given, dict):
        return
    known = {entry.name for entry in fields(kind)}
    if unknown := [key for key in given if key not in known]:
        raise ConfigError(f"{place}{printable(unknown[0])[:40]} is unknown", hint=f"known: {', '.join(sorted(known))}")
    for key, inner in {"data": DataFiles, "recipe": StudyRecipe}.items():
        if not place:
            _refuse_unknown(given.get(key), inner, f"{key}.")
    variants = given.get("variant") if not place else None
    for number, variant in enumerate(variants if isinstance(variants, list) else ()):
        _refuse_unknown(variant, _Given, f"variant[{number}].")


def _check(plan: StudyPlan) -> None:
    for title, values in (
        ("seed", plan.seeds),
        ("variant's name", [variant.name for variant in plan.variants]),
        ("variant, by its model,", [variant.model for variant in plan.variants]),
    ):
        if twice := [value for value, count in Counter(values).items() if count > 1]:
            raise ConfigError(f"the {title} {printable(str(twice[0]))[:80]} is there twice", hint="leave one out")
    if len(plan.variants) * len(plan.seeds) > MOST_RUNS:
        raise ConfigError(f"{len(plan.variants) * len(plan.seeds)} runs are too many", hint=f"at most {MOST_RUNS}")
    for variant in plan.variants:
        if find(variant.model).detector.task != "detection":
            raise ConfigError(f"{variant.model} needs masks to be trained with", hint="give detectors of boxes")
        plan.recipe_of(variant, plan.seeds[0])


def _variants(document: _Document) -> tuple[StudyVariant, ...]:
    """Return what the file lists and what its grid spans, the base first."""
    found = [_listed(given) for given in document.variant]
    found += [variant for variant in _spanned(document.grid) if variant.model not in {each.model for each in found}]
    if not found:
        raise ConfigError("nothing is varied", hint="add [[variant]] with a model, or [grid] with options of FINE")
    if document.base is None:
        return tuple(found)
    base = next((variant for variant in found if document.base in (variant.name, variant.model)), None)
    if base is None:
        what = f"base {printable(document.base)[:80]!r} is no variant"
        raise ConfigError(what, hint=f"one of {', '.join(each.name for each in found)[:200]}")
    return (base, *(variant for variant in found if variant is not base))


def _listed(given: _Given) -> StudyVariant:
    entry = with_fine(given.model, given.fine or None)
    return StudyVariant(given.name or entry.name, entry.name)


def _spanned(grid: Mapping[str, Sequence[str | int]]) -> list[StudyVariant]:
    """Return every combination of the grid's models and options; one without FINE stands once."""
    if not grid:
        return []
    models = [str(name) for name in grid.get("model", ())]
    if not models:
        raise ConfigError("the grid has no models", hint='add model = ["rtdetr_r18_fine"] to [grid]')
    axes = {name: values for name, values in grid.items() if name != "model"}
    size = len(models) * math.prod(map(len, axes.values()))
    if size > MOST_RUNS:
        raise ConfigError(f"the grid has {size} combinations, too many", hint=f"at most {MOST_RUNS} runs")
    found = []
    for name in models:
        own = axes if find(name).method == "fine" else {}
        for chosen in itertools.product(*own.values()):
            text = ",".join(f"{key}={value}" for key, value in zip(own, chosen, strict=True))
            entry = with_fine(name, text or None)
            found.append(StudyVariant(entry.name, entry.name))
    return list(dict.fromkeys(found))
