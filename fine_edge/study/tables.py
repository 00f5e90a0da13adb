"""The table of a study: a row a variant, figures over seeds, and differences to the base seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

from fine_edge.study.outcome import LEAST_SEEDS, OverSeeds, PairedDifference, StudyOutcome, VariantOutcome
from fine_edge.study.result import FIGURES
from fine_edge.table import Column, Table, brief

_SHOWN = ("ap", "ap50", "ap_s")


def study_table(found: StudyOutcome) -> Table:
    """Return the table of a study as far as it has come."""
    table = Table(
        f"{found.title}: {_counted(found.variants, 'variant')}, {_counted(found.seeds, 'seed')}",
        [
            Column("Variant", numeric=False),
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


def _counted(items: Sequence[object], word: str) -> str:
    return f"{len(items)} {word}{'' if len(items) == 1 else 's'}"


def _cells(found: StudyOutcome, one: VariantOutcome) -> list[object]:
    any_result, latency = one.any_result, one.latency
    return [
        one.variant.name + (" (base)" if one is found.base else ""),
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
