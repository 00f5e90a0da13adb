"""A study's tables, a row a variant, and its curves: figures over seeds; differences by seed, beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fine_edge.figure import new_figure, to_png
from fine_edge.files import write_bytes
from fine_edge.study.outcome import (
    LEAST_SEEDS,
    OverSeeds,
    PairedDifference,
    StudyOutcome,
    VariantOutcome,
    difference,
)
from fine_edge.study.result import FIGURES, RunResult
from fine_edge.table import Column, Table, brief
from fine_edge.text import printable
from fine_edge.zoo.catalog import find
from fine_edge.zoo.paper import PaperChange, change_of_fine, change_of_option

_SHOWN = ("ap", "ap50", "ap_s")


def study_table(found: StudyOutcome) -> Table:
    """Return the table of a study as far as it has come."""
    table = Table(
        f"{found.title}: {_counted(found.variants, 'variant')}, {_counted(found.seeds, 'seed')}",
        [
            Column("Variant", numeric=False),
            Column("Seeds"),
            *(Column(title, group="cost") for title in ("#Params (M)", "FLOPs (G)", "ESTIMATE (ms)")),
            *(Column(FIGURES[name], group="figures") for name in _SHOWN),
            *(Column(f"{FIGURES[name]} gain", group="gain") for name in ("ap", "ap_s")),
        ],
    )
    for one in found.variants:
        table.add(*_cells(found, one))
    table.notes = _notes(found)
    table.brief = brief(_doubts(found))
    return table


def paired_table(found: StudyOutcome) -> Table:
    """Return the differences of AP by seed: each variant to the base, and options of FINE to FINE without them."""
    table = Table(
        "Differences of AP by seed",
        [
            Column("Variant", numeric=False),
            Column("Against", numeric=False),
            *(Column(f"seed {seed}", group="seeds") for seed in found.seeds),
            Column("n", group="mean"),
            Column("Mean", group="mean"),
            Column("95 % interval", group="mean"),
            Column("Paper", group="paper"),
            Column("of", numeric=False, group="paper"),
        ],
    )
    for one, other in found.pairs:
        _add_pair(table, found, one, other)
    table.notes = [
        f"n: seeds that both have. Interval: Student's t, n - 1 degrees of freedom; none below {LEAST_SEEDS} seeds."
        " It holds for normal differences, and tests each row alone.",
        "Paper: COCO val2017, one training each; Table 1's detector of the same kind where it has not this one.",
    ]
    table.brief = brief(_verdicts(found))
    return table


def _add_pair(table: Table, found: StudyOutcome, one: VariantOutcome, other: VariantOutcome) -> None:
    against = difference(other.by_seed("ap"), one.by_seed("ap"))
    by_seed = against.by_seed if against else {}
    paper = _papers(one, other)
    table.add(
        one.variant.name,
        other.variant.name,
        *(f"{by_seed[seed]:+.1f}" if seed in by_seed else None for seed in found.seeds),
        len(by_seed),
        against and f"{against.mean:+.1f}",
        None
        if against is None or against.low is None or against.high is None
        else f"{against.low:+.1f} to {against.high:+.1f}",
        paper and f"{paper.points:+.1f} {paper.figure}",
        paper and paper.where,
    )


def _papers(one: VariantOutcome, other: VariantOutcome) -> PaperChange | None:
    """Return what the paper has for the one choice in which two variants differ."""
    ours, theirs = find(one.variant.model), find(other.variant.model)
    changed = ours.options.changed()
    if ours.detector is not theirs.detector or theirs.options.changed() or ours.method != "fine":
        return None
    if theirs.method is None and not changed:
        return change_of_fine(ours.detector.name)
    if theirs.method == "fine" and len(changed) == 1:
        return change_of_option(*next(iter(changed.items())))
    return None


def _verdicts(found: StudyOutcome) -> list[str]:
    """Return what the intervals of the differences to the base allow to say."""
    known = {one.variant.name: found.difference(one, "ap") for one in found.variants[1:]}
    sure = [name for name, one in known.items() if one and one.low is not None and one.high is not None]
    beyond = [name for name in sure if not _holds_zero(known[name])]
    if not sure:
        return []
    if beyond:
        return [f"More than chance against the base: {', '.join(beyond)}."]
    return ["Every interval of a difference to the base holds 0: these seeds do not show a gain or a loss."]


def _holds_zero(against: PairedDifference | None) -> bool:
    return against is None or against.low is None or against.high is None or against.low <= 0 <= against.high


def _counted(items: Sequence[object], word: str) -> str:
    return f"{len(items)} {word}{'' if len(items) == 1 else 's'}"


def _cells(found: StudyOutcome, one: VariantOutcome) -> list[object]:
    any_result, latency = one.any_result, one.latency
    return [
        one.variant.name + (" (base)" if one is found.base else ""),
        f"{len(one.results)} of {len(found.seeds)}",
        any_result and f"{any_result.params / 1e6:.2f}",
        any_result and f"{any_result.flops / 1e9:.2f}",
        latency and f"{latency.ms:.2f}",
        *(_over_seeds(one.spread(name)) for name in _SHOWN),
        *(_against_base(found.difference(one, name)) for name in ("ap", "ap_s")),
    ]


def _over_seeds(over: OverSeeds | None) -> str | None:
    if over is None:
        return None
    return f"{over.mean:.1f}" + ("" if over.sd is None else f" ± {over.sd:.1f}")


def _against_base(against: PairedDifference | None) -> str | None:
    if against is None:
        return None
    if against.low is None or against.high is None:
        return f"{against.mean:+.1f}"
    return f"{against.mean:+.1f} [{against.low:+.1f}, {against.high:+.1f}]"


def _doubts(found: StudyOutcome) -> list[str]:
    """Return what is to be known before a figure is quoted."""
    doubts = [
        f"FAILED: {one.variant.name}, seed {seed}: {why}" for one in found.variants for seed, why in one.broken.items()
    ]
    left = sum(len(one.missing) for one in found.variants)
    if left:
        doubts.append(f"{left} of {len(found.variants) * len(found.seeds)} runs are not there yet.")
    if len(found.seeds) < LEAST_SEEDS:
        doubts.append(f"Fewer than {LEAST_SEEDS} seeds: differences have no interval, and may be chance.")
    kinds = {str(result.machine.get("cpu")) for one in found.variants for result in one.results.values()}
    if len(kinds) > 1:
        doubts.append(f"Trained on {len(kinds)} kinds of machine, whose arithmetic differs in the last bits.")
    return doubts


def _notes(found: StudyOutcome) -> list[str]:
    latency = next((one.latency for one in found.variants if one.latency), None)
    conventions = dict.fromkeys(one.any_result.convention for one in found.variants if one.any_result)
    return [
        *_doubts(found),
        "AP: per cent, mean ± standard deviation over the seeds, of the exported graph in FP32; the last weights.",
        "Gain: mean over the seeds of the difference to the base of the same seed, with Student's 95 % interval.",
        *(f"FLOPs: {convention}." for convention in conventions if convention),
        f"ESTIMATE: latency of the FP16 engine on {latency.board}."
        if latency
        else "ESTIMATE of the latency: a dash, as NVIDIA's compiler is not installed (extra rtx).",
    ]


if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The curves of a study, after the paper's Fig. 7: training loss and AP of small objects over epochs, by variant.

_DPI = 130
_LONGEST_NAME = 40
_NAMES_A_PANEL = 2
_STYLES = ("-", "--", ":")


def _losses(result: RunResult) -> dict[float, float]:
    return {point.epoch: point.loss for point in result.losses}


def _figure(name: str) -> Callable[[RunResult], Mapping[float, float]]:
    def of(result: RunResult) -> dict[float, float]:
        found = ((point.epoch, point.figures[name]) for point in result.curve)
        return {epoch: value for epoch, value in found if value is not None}

    return of


# Quantities over epochs, by the titles of their axes.
PANELS: dict[str, Callable[[RunResult], Mapping[float, float]]] = {
    "training loss": _losses,
    "AP_s (%)": _figure("ap_s"),
    "AP (%)": _figure("ap"),
}


def _draw_one(axes: Any, one: VariantOutcome, over: Mapping[float, OverSeeds], number: int) -> None:
    epochs, color = list(over), f"C{number % 10}"
    means = [point.mean for point in over.values()]
    name = printable(one.variant.name)[:_LONGEST_NAME]
    style = _STYLES[number // 10 % len(_STYLES)]  # matplotlib has ten colours
    axes.plot(epochs, means, style, color=color, marker="o", markersize=3, label=name)
    spreads = [point.sd or 0.0 for point in over.values()]
    if any(spreads):
        # A standard deviation does not know that no AP is below zero.
        low = [max(m - s, min(m, 0.0)) for m, s in zip(means, spreads, strict=True)]
        high = [m + s for m, s in zip(means, spreads, strict=True)]
        axes.fill_between(epochs, low, high, color=color, alpha=0.12, linewidth=0)


def _drawn(found: StudyOutcome) -> Figure:
    from matplotlib.ticker import MaxNLocator

    drawn = {title: [one.over_epochs(of) for one in found.variants] for title, of in PANELS.items()}
    drawn = {title: curves for title, curves in drawn.items() if any(curves)}  # data may have no small objects
    a_row = _NAMES_A_PANEL * max(len(drawn), 1)
    rows = -(-len(found.variants) // a_row)
    figure = new_figure(4.2 * max(len(drawn), 1), 4.2 + 0.2 * rows)
    for place, (title, curves) in enumerate(drawn.items(), 1):
        axes = figure.add_subplot(1, len(drawn), place)
        for number, (one, over) in enumerate(zip(found.variants, curves, strict=True)):
            _draw_one(axes, one, over, number)
        axes.set_xlabel("epochs")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(title, loc="left", fontsize=10)
        axes.grid(color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    if drawn:
        lines, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(lines, names, loc="outside lower center", ncols=a_row, frameon=False, fontsize=8)
    seeds = len(found.seeds)
    band = f"mean of {seeds} seeds, band: one standard deviation" if seeds > 1 else "one seed"
    figure.suptitle(f"{printable(found.title)[:80]} ({band})", fontsize=11)
    return figure


def write_curves(found: StudyOutcome, path: Path) -> None:
    """Draw losses and APs over epochs into a PNG."""
    write_bytes(path, to_png(lambda: _drawn(found), _DPI))
