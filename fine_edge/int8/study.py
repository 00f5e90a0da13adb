"""The INT8 study of a graph: calibrate, try placements, keep in FP16 what a budget asks for, and give a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import onnx

from fine_edge import console, machine
from fine_edge.contract import Quantization
from fine_edge.detections import Detections
from fine_edge.errors import ArtifactError, ConfigError
from fine_edge.estimate.latency import Conditions
from fine_edge.fp16.network import Found, Network
from fine_edge.graph.identity import identity_of
from fine_edge.graph.view import GraphView
from fine_edge.int8.pairs import OPSET
from fine_edge.int8.placement import PLACEMENTS, Convolution, PlacementName, convolutions, depthwise, placed
from fine_edge.int8.scales import Calibrated, Method, largest_magnitudes, shared
from fine_edge.int8.trials import (
    BLOCK_STEP,
    Budget,
    Labelled,
    Precisions,
    Trial,
    Trials,
    Verdict,
    kernel_growth,
    losses,
    verdict_on,
)

# Pictures that drift is measured on: every trial runs on all of them.
MOST_DRIFT_PICTURES = 8


@dataclass(frozen=True)
class Plan:
    """What a study is asked for.

    Attributes:
        calibrated: pictures that ranges come from.
        drift_images: pictures that drift is measured on.
        method: how ranges are found.
        placement: the placement to take; ``None`` takes the fastest within the budget.
        keep: names of nodes that stay FP16.
        budget: what may be lost.
    """

    calibrated: Calibrated
    drift_images: tuple[Path, ...]
    method: Method
    placement: PlacementName | None = None
    keep: tuple[str, ...] = ()
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class Int8Study:
    """The result of a study.

    Attributes:
        network: the FP32 network.
        plan: what was asked for.
        half: the FP16 graph, what INT8 is compared with.
        blocks: each block of the detector alone in INT8, by its name.
        candidates: the placements that were tried.
        chosen: the best placement within the budget, or else the best one.
        fits: whether it keeps the budget of accuracy.
        ap: of the chosen one, where there are labelled pictures.
        verdict: whether an engine should be INT8 or FP16.
        reasons: of the verdict.
    """

    network: Network
    plan: Plan
    half: Trial
    blocks: dict[str, Trial]
    candidates: tuple[Trial, ...]
    chosen: Trial
    fits: bool
    ap: Precisions | None
    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def quantization(self) -> Quantization:
        """How the chosen graph is made, for its contract."""
        calibrated = self.plan.calibrated
        return Quantization(
            self.plan.method,
            len(calibrated.paths),
            calibrated.sha256,
            self.chosen.title,
            len(self.chosen.chosen),
            OPSET,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``--json`` prints."""
        contract, half, int8 = self.network.contract, self.half.compiled, self.chosen.compiled
        return {
            "artifact": str(self.network.path),
            "sha256": identity_of(self.network.path),
            "random_weights": contract.random_weights if contract else None,
            "placement": self.chosen.title,
            "convolutions": len(self.chosen.chosen),
            "pairs": self.chosen.pairs,
            "kernels_fp16": half.kernels if half else None,
            "kernels_int8": int8.kernels if int8 else None,
            "activation_mib": int8.activation_mib if int8 else None,
            "weights_mib": int8.weights_mib if int8 else None,
            "estimate_fp16_ms": half.estimate_ms if half else None,
            "estimate_int8_ms": int8.fused_estimate_ms if int8 else None,
            "estimate_int8_as_compiled_ms": int8.estimate_ms if int8 else None,
            "drift": drift_json(self.chosen),
            "ap": vars(self.ap) if self.ap else None,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "sensitivity": {name: drift_json(trial) for name, trial in self.blocks.items()},
            "candidates": [trial_json(trial) for trial in self.candidates],
            "fp16": trial_json(self.half),
            "calibration": {
                "method": self.plan.method,
                "images": len(self.plan.calibrated.paths),
                "images_sha256": self.plan.calibrated.sha256,
            },
            "drift_images": len(self.plan.drift_images),
            "sensitivity_images": len(self.plan.drift_images[::BLOCK_STEP]),
            "machine": machine.describe(),
        }


def drift_json(trial: Trial) -> dict[str, float | int | None]:
    """Return how what a trial finds differs from FP32: detections, or pixels of class maps."""
    drift = trial.drift
    return {
        "matched": drift.matched,
        "flipped": drift.flipped,
        "max_score_drift": drift.score[2] if drift.score else None,
        "median_box_drift_px": drift.box_px[0] if drift.box_px else None,
    }


def trial_json(trial: Trial) -> dict[str, Any]:
    """Return cost and loss of a trial."""
    cost = trial.compiled.to_json() if trial.compiled else None
    return {
        "placement": trial.title,
        "convolutions": len(trial.chosen),
        "pairs": trial.pairs,
        "drift": drift_json(trial),
        "compiled": cost,
    }


def study(
    network: Network, plan: Plan, board: Conditions, labelled: Labelled | None = None
) -> tuple[Int8Study, onnx.ModelProto]:
    """Try INT8 on a network; return the study and the chosen graph.

    Args:
        network: the FP32 network.
        plan: what is asked for.
        board: that latencies are estimated for.
        labelled: labelled pictures, for AP.

    Raises:
        ArtifactError: when the outputs cannot be read, or no convolution suits INT8.
        ConfigError: when the placement has no convolution, or FP32 finds nothing, or the same in every picture, or
            boxes are to be judged where there are none.
    """
    if network.form == "classes" and (labelled or plan.budget.box_drift_px is not None):
        raise ConfigError(
            "the model gives a class for each pixel and no boxes",
            where="--data" if labelled else "--max-box-drift-px",
            hint="leave it out; fine-edge evaluate gives the mIoU of the INT8 file",
        )
    if network.form == "unknown":
        raise ArtifactError(
            "the outputs are not detections that fine-edge can read, so nothing says what INT8 loses",
            where=network.path,
            hint="name the outputs labels, boxes_xyxy, scores, or logits, boxes, or output0 as ultralytics does",
        )
    view = GraphView(network.model)
    candidates = convolutions(view, plan.keep)
    if not candidates:
        hint = "INT8 needs convolutions with constant weights in front of others"
        raise ArtifactError("no convolution can compute in INT8", where=network.path, hint=hint)
    trials = Trials(network, view, _magnitudes(network, view, plan, candidates), plan.drift_images, board, labelled)
    # The yardstick: the same graph without any convolution in INT8.
    half = trials.run("FP16", ())
    if not half.drift.matched:
        raise ConfigError(
            "FP32 and FP16 find nothing in common, so INT8 cannot be judged",
            where="--images",
            hint="give pictures of what the detector knows, or another checkpoint",
        )
    # Such a detector hides every loss: any placement finds what FP32 finds.
    if _blind(trials.reference):
        raise ConfigError(
            "FP32 finds the same in every picture, so INT8 cannot be judged",
            where=network.path,
            hint="give trained weights: some random ones make a detector that does not look at its input",
        )
    # Each block alone first: what it loses and costs decides which ones go back to FP16 later.
    blocks = {block: trials.of_block(block, candidates) for block in dict.fromkeys(one.block for one in candidates)}
    tried = tuple(trials.run(name, chosen) for name, chosen in _placements(plan, candidates))
    best = min(tried, key=lambda trial: _preference(trial, half, plan.budget))
    # A convolution in INT8 between others in FP16 is cut out of the kernels that were fused with it.
    if all(kernel_growth(trial, half) > plan.budget.kernel_growth for trial in tried):
        best = _with_fewer_kernels(best, trials, half, plan.budget)
        tried = (*tried, best)
    fp32_ap = trials.average_precision(network.model) if labelled else None
    chosen, ap, fits = _fitting(_ever_fewer(best, tried, blocks, trials, half, plan.budget), trials, fp32_ap, plan)
    chosen = trials.run(chosen.title, chosen.chosen)
    verdict, reasons = verdict_on(chosen, half, ap, plan.budget, tried, depthwise(view))
    if network.contract is not None and network.contract.random_weights:
        reasons = (*reasons, "the weights are random: what a trained detector loses is another figure")
    found = Int8Study(network, plan, half, blocks, tried, chosen, fits, ap, verdict, reasons)
    return found, trials.model(chosen.chosen)


def _blind(found: Sequence[Found]) -> bool:
    """Return whether the same is found in all pictures, within what nobody would see."""
    return len(found) > 1 and all(_alike(found[0], one) for one in found[1:])


def _alike(one: Found, other: Found) -> bool:
    if not isinstance(one, Detections):
        return not isinstance(other, Detections) and np.array_equal(one, other)
    return isinstance(other, Detections) and (
        np.array_equal(one.labels, other.labels)
        and np.allclose(one.boxes_xyxy_px, other.boxes_xyxy_px, rtol=0, atol=0.05)
        and np.allclose(one.scores, other.scores, rtol=0, atol=1e-4)
    )


def _magnitudes(network: Network, view: GraphView, plan: Plan, candidates: Sequence[Convolution]) -> dict[str, float]:
    images = plan.calibrated.paths
    with console.progress() as bar:
        task = bar.add_task("calibrating", total=-(-len(images) // network.shape[0]))
        names = [one.activation for one in candidates]
        found = largest_magnitudes(network, names, images, plan.method, lambda: bar.advance(task))
    return shared(view, found)


def _placements(plan: Plan, candidates: Sequence[Convolution]) -> Iterator[tuple[PlacementName, list[Convolution]]]:
    """Yield the placements to try, without those that repeat another or are empty."""
    seen: set[frozenset[str]] = set()
    for name in (plan.placement,) if plan.placement else PLACEMENTS:
        chosen = placed(name, candidates)
        key = frozenset(one.name for one in chosen)
        if chosen and key not in seen:
            seen.add(key)
            yield name, chosen
    if not seen:
        raise ConfigError(
            f"no convolution of {plan.placement!r} can compute in INT8",
            where="--placement",
            hint=f"one of {', '.join(name for name in PLACEMENTS if placed(name, candidates))}",
        )


def _preference(trial: Trial, half: Trial, budget: Budget) -> tuple[bool, bool, float]:
    """Return a key by which the best trial is the smallest: accurate, few kernels, fast."""
    if trial.compiled is None or half.compiled is None:  # no compiler here: the most INT8 is the fastest
        return bool(losses(trial, None, budget)), False, -float(sum(one.flops for one in trial.chosen))
    grown = kernel_growth(trial, half) > budget.kernel_growth
    return bool(losses(trial, None, budget)), grown, trial.compiled.fused_estimate_ms


def _with_fewer_kernels(trial: Trial, trials: Trials, half: Trial, budget: Budget) -> Trial:
    """Return a trial without the blocks whose convolutions gain the least, until it keeps the limit of kernels.

    Each INT8 convolution costs about one kernel more, so what counts is how much it computes.
    """
    blocks = trial.blocks
    mean_flops = {name: fmean(one.flops for one in trial.chosen if one.block == name) for name in blocks}
    left, gone = trial, list[str]()
    for block in sorted(blocks, key=mean_flops.__getitem__):
        fewer = left.without(block)
        if not fewer or kernel_growth(left, half) <= budget.kernel_growth:
            break
        gone.append(block)
        left = trials.run(f"{trial.title} without {', '.join(gone)}", fewer)
    return left


def _ever_fewer(
    best: Trial, tried: Sequence[Trial], blocks: dict[str, Trial], trials: Trials, half: Trial, budget: Budget
) -> Iterator[Trial]:
    """Yield the best trial, then the other placements by preference, then the best without its worst blocks.

    The latter are not compiled: accuracy decides about them.
    """
    yield from sorted(tried, key=lambda trial: _preference(trial, half, budget))
    left = best
    gone: list[str] = []
    for block in sorted(best.blocks, key=lambda name: _harm(blocks[name]), reverse=True):
        fewer = left.without(block)
        if not fewer:
            return
        gone.append(block)
        left = trials.run(f"{best.title} without {', '.join(gone)}", fewer, compile_it=False)
        yield left


def _harm(trial: Trial) -> tuple[float, float]:
    """Return a key that is larger the more of the detections change."""
    return trial.drift.flipped_share, trial.drift.box_px[1] if trial.drift.box_px else float("inf")


def _fitting(
    ordered: Iterator[Trial], trials: Trials, fp32_ap: float | None, plan: Plan
) -> tuple[Trial, Precisions | None, bool]:
    """Return the first trial that keeps the budget, its AP, and true; the first of all and false if none does."""
    first: tuple[Trial, Precisions | None] | None = None
    for trial in ordered:
        ap = _precisions(trials, trial, fp32_ap)
        if not losses(trial, ap, plan.budget):
            return trial, ap, True
        first = first or (trial, ap)
    assert first is not None  # there is a placement at least
    return *first, False


def _precisions(trials: Trials, trial: Trial, fp32_ap: float | None) -> Precisions | None:
    return None if fp32_ap is None else Precisions(fp32_ap, trials.average_precision_of(trial))
