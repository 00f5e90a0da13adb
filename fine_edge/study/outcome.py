"""The outcome of a study: means and spreads over seeds, differences to the base seed by seed, and its record.

Two trainings of one seed begin alike, so their difference varies less than either. The interval of a mean difference is
Student's, over the seeds, at 95 %; below three seeds there is none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fine_edge import console
from fine_edge.errors import DataError
from fine_edge.evaluate.evaluation import now
from fine_edge.fields import Text, Whole, from_data, to_data
from fine_edge.files import contents_checked, read_document, write_text
from fine_edge.samples import student_factor
from fine_edge.study.plan import StudyPlan, StudyVariant
from fine_edge.study.result import EstimatedLatency, RunResult, StudyRun, checked_result
from fine_edge.zoo.catalog import find

FORMAT = 1
# Fewer seeds give no interval.
LEAST_SEEDS = 3


@dataclass(frozen=True)
class OverSeeds:
    """A figure over seeds: its mean, and its standard deviation, which is ``None`` for one seed."""

    mean: float
    sd: float | None


@dataclass(frozen=True)
class PairedDifference:
    """A figure of a variant minus the base's of the same seed.

    Attributes:
        by_seed: of the seeds that both have.
        low, high: interval of the mean at 95 %; ``None`` below three seeds.
    """

    by_seed: dict[int, float]
    low: float | None = None
    high: float | None = None

    @property
    def mean(self) -> float:
        """Return the mean over the seeds."""
        return mean(self.by_seed.values())

    def to_json(self) -> dict[str, Any]:
        """Return the data that the record holds."""
        return {"mean": self.mean, "by_seed": list(self.by_seed.values()), "low": self.low, "high": self.high}


def spread(values: Sequence[float]) -> OverSeeds | None:
    """Return mean and standard deviation; ``None`` of nothing."""
    if not values:
        return None
    return OverSeeds(mean(values), stdev(values) if len(values) > 1 else None)


def difference(base: Mapping[int, float], other: Mapping[int, float]) -> PairedDifference | None:
    """Return the difference of two figures by seed; ``None`` where no seed has both.

    Args:
        base: figure by seed.
        other: likewise.
    """
    by_seed = {seed: other[seed] - base[seed] for seed in base if seed in other}
    if not by_seed:
        return None
    count = len(by_seed)
    if count < LEAST_SEEDS:
        return PairedDifference(by_seed)
    centre, half = mean(by_seed.values()), stdev(by_seed.values()) / math.sqrt(count)
    half *= student_factor(count)
    return PairedDifference(by_seed, centre - half, centre + half)


@dataclass(frozen=True)
class BrokenRun:
    """A run that failed."""

    model: Text
    seed: Whole
    reason: Text


@dataclass(frozen=True)
class VariantOutcome:
    """All runs of one variant that are there.

    Attributes:
        variant: what was trained.
        results: by seed.
        broken: reason by seed.
        missing: seeds whose runs are neither finished nor broken, as another shard's.
    """

    variant: StudyVariant
    results: dict[int, RunResult]
    broken: dict[int, str]
    missing: tuple[int, ...]

    def by_seed(self, figure: str) -> dict[int, float]:
        """Return a figure by seed, where it is defined."""
        found = ((seed, result.figures[figure]) for seed, result in self.results.items())
        return {seed: value for seed, value in found if value is not None}

    def spread(self, figure: str) -> OverSeeds | None:
        """Return a figure over the seeds."""
        return spread(list(self.by_seed(figure).values()))

    @property
    def any_result(self) -> RunResult | None:
        """Return a result, for what is the same in all of them."""
        return next(iter(self.results.values()), None)

    @property
    def latency(self) -> EstimatedLatency | None:
        """Return the estimate of the first run that has one."""
        return next((result.latency for result in self.results.values() if result.latency), None)

    def over_epochs(self, of: Callable[[RunResult], Mapping[float, float]]) -> dict[float, OverSeeds]:
        """Return a quantity by epoch over the seeds."""
        values: dict[float, list[float]] = {}
        for result in self.results.values():
            for epoch, value in of(result).items():
                values.setdefault(epoch, []).append(value)
        return {epoch: found for epoch in sorted(values) if (found := spread(values[epoch]))}


@dataclass(frozen=True)
class StudyOutcome:
    """A study as far as it has come.

    Attributes:
        title: of tables and pictures.
        seeds: all that are wanted.
        variants: the base first.
    """

    title: str
    seeds: tuple[int, ...]
    variants: tuple[VariantOutcome, ...]

    @property
    def base(self) -> VariantOutcome:
        """Return the variant that the others are compared with."""
        return self.variants[0]

    @property
    def pairs(self) -> list[tuple[VariantOutcome, VariantOutcome]]:
        """Return each variant with the base, and where it has options of FINE, with the paper's block as well."""
        by_model = {one.variant.model: one for one in self.variants[1:]}
        found = []
        for one in self.variants[1:]:
            found.append((one, self.base))
            entry = find(one.variant.model)
            plain = by_model.get(f"{entry.detector.name}_fine")
            if plain and entry.options.changed():
                found.append((one, plain))
        return found

    @property
    def broken(self) -> list[BrokenRun]:
        """Return all runs that failed."""
        return [BrokenRun(one.variant.model, *pair) for one in self.variants for pair in one.broken.items()]

    def difference(self, variant: VariantOutcome, figure: str) -> PairedDifference | None:
        """Return a figure's difference to the base; ``None`` for the base itself, and where no seed has both."""
        if variant is self.base:
            return None
        return difference(self.base.by_seed(figure), variant.by_seed(figure))

    def to_json(self) -> dict[str, Any]:
        """Return the record: every run, and what tables show of them."""
        return {
            "format": FORMAT,
            "title": self.title,
            "seeds": list(self.seeds),
            "variants": [to_data(one.variant) for one in self.variants],
            "summary": [self._summary(one) for one in self.variants],
            "ap_differences": [self._pair(one, other) for one, other in self.pairs],
            "results": [to_data(result) for one in self.variants for result in one.results.values()],
            "broken": [to_data(run) for run in self.broken],
            "made_at": now(),
        }

    def _pair(self, one: VariantOutcome, other: VariantOutcome) -> dict[str, Any]:
        against = difference(other.by_seed("ap"), one.by_seed("ap"))
        return {"variant": one.variant.name, "against": other.variant.name, **(against.to_json() if against else {})}

    def _summary(self, one: VariantOutcome) -> dict[str, Any]:
        found: dict[str, Any] = {"variant": one.variant.name, "seeds": sorted(one.results)}
        for figure in ("ap", "ap50", "ap_s"):
            over, against = one.spread(figure), self.difference(one, figure)
            found[figure] = over and {
                "mean": over.mean,
                "sd": over.sd,
                "difference": against and against.to_json(),
            }
        return found


def outcome(
    plan: StudyPlan, runs: Sequence[StudyRun], results: Mapping[str, RunResult], broken: Mapping[str, str]
) -> StudyOutcome:
    """Return what has come of a study.

    Args:
        plan: the study.
        runs: all that it wants.
        results: by the keys of runs.
        broken: reasons by the keys of runs.
    """
    variants = []
    for variant in plan.variants:
        own = {run.seed: run.key for run in runs if run.variant == variant}
        done = {seed: results[key] for seed, key in own.items() if key in results}
        failed = {seed: broken[key] for seed, key in own.items() if key in broken and key not in results}
        missing = tuple(seed for seed in own if seed not in done and seed not in failed)
        variants.append(VariantOutcome(variant, done, failed, missing))
    return StudyOutcome(plan.title, plan.seeds, tuple(variants))


def write_record(found: StudyOutcome, path: Path) -> None:
    """Write the record of a study, whole or not at all."""
    write_text(path, console.json_text(found.to_json()))


_AGAIN = "make it again: fine-edge study FILE.toml"


@dataclass(frozen=True)
class _Variant:
    name: Text
    model: Text


@dataclass(frozen=True)
class _Record:
    title: Text
    seeds: tuple[Whole, ...]
    variants: tuple[_Variant, ...]
    broken: tuple[BrokenRun, ...]
    results: tuple[Any, ...]


def read_record(path: Path) -> StudyOutcome:
    """Read the record of a study; its figures are computed anew from its runs.

    Raises:
        DataError: when it is missing, broken, or of another format.
    """
    data = read_document(path, DataError, title="record of a study", format_=FORMAT, hint=_AGAIN)
    with contents_checked(path, DataError, title="record of a study", hint=_AGAIN):
        record = from_data(_Record, data)
        if not record.variants or not record.seeds:
            raise ValueError("it has no variants or no seeds")
        results = [checked_result(each) for each in record.results]
        variants = tuple(_variant_in(record, results, one) for one in record.variants)
    return StudyOutcome(record.title, record.seeds, variants)


def _variant_in(record: _Record, results: Sequence[RunResult], one: _Variant) -> VariantOutcome:
    find(one.model)
    done = {result.seed: result for result in results if result.model == one.model}
    failed = {run.seed: run.reason for run in record.broken if run.model == one.model and run.seed not in done}
    missing = tuple(seed for seed in record.seeds if seed not in done and seed not in failed)
    return VariantOutcome(StudyVariant(one.name, one.model), done, failed, missing)
