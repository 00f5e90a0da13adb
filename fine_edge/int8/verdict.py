"""The verdict on an INT8 graph: what it may lose and cost, and why an engine should be INT8 or FP16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fine_edge.int8.trials import Trial
from fine_edge.parity.tolerance import TOLERANCES

Verdict = Literal["int8", "fp16"]


@dataclass(frozen=True)
class Budget:
    """What INT8 may lose and cost.

    Attributes:
        box_drift_px: largest median difference of a box coordinate, pixels; ``None`` takes parity's limits for INT8.
        ap_drop: largest loss of AP, of 100; ``None`` leaves it unjudged.
        kernel_growth: largest number of kernels, as a multiple of the FP16 engine's.
    """

    box_drift_px: float | None = None
    ap_drop: float | None = None
    kernel_growth: float = 1.2

    @property
    def given(self) -> bool:
        """Whether a person set a limit on what may be lost."""
        return self.box_drift_px is not None or self.ap_drop is not None


@dataclass(frozen=True)
class Precisions:
    """AP of the FP32 and of the INT8 graph on the same labelled pictures, 0 to 100."""

    fp32: float
    int8: float

    @property
    def drop(self) -> float:
        """AP that INT8 loses."""
        return self.fp32 - self.int8


def losses(trial: Trial, ap: Precisions | None, budget: Budget) -> list[str]:
    """Return what a trial loses beyond the budget, one reason each."""
    drift, tolerance, found = trial.drift, TOLERANCES["int8"], []
    if not drift.matched:
        return ["nothing is left of what FP32 finds"]
    median_px = drift.box_px[0] if drift.box_px else float("inf")
    if budget.box_drift_px is not None and median_px > budget.box_drift_px:
        found.append(f"boxes move by {median_px:.2f} px in the median, more than {budget.box_drift_px:g}")
    if ap is not None and budget.ap_drop is not None:
        if ap.drop > budget.ap_drop:
            found.append(f"AP falls by {ap.drop:.2f}, more than {budget.ap_drop:g}")
    elif drift.of_pixels and not drift.within(tolerance):
        found.append(f"{drift.flipped_share:.1%} of the pixels change class, more than {tolerance.pixels:.0%}")
    elif budget.box_drift_px is None and not drift.within(tolerance):
        found.append(
            f"{drift.flipped_share:.1%} of the detections flip and 90 % of boxes and scores are within"
            f" {drift.box_px[1] if drift.box_px else 0:.1f} px and {drift.score[1] if drift.score else 0:.3f}"
            f" (limits {tolerance.flipped:.0%}, {tolerance.box_px:g} px, {tolerance.score:g})"
        )
    return found


def verdict_on(
    chosen: Trial, half: Trial, ap: Precisions | None, budget: Budget, tried: Sequence[Trial], depthwise: int = 0
) -> tuple[Verdict, tuple[str, ...]]:
    """Return the verdict on an engine, and its reasons.

    Args:
        chosen: what the engine would be built from.
        half: the FP16 graph.
        ap: of the chosen one, where there are labelled pictures.
        budget: what may be lost.
        tried: the placements that were tried.
        depthwise: number of depthwise convolutions in the graph.
    """
    reasons = losses(chosen, ap, budget)
    lossy = bool(reasons)
    if not lossy:
        reasons.append("what it finds stays within the budget")
    if ap is not None:
        reasons.append(f"AP {ap.int8:.2f} in INT8, {ap.fp32:.2f} in FP32")
    if chosen.compiled is None or half.compiled is None:
        reasons.append("not compiled: TensorRT-RTX is not installed, so nothing is said of its speed")
        return "fp16" if lossy else "int8", tuple(reasons)
    int8, fp16 = chosen.compiled, half.compiled
    growth = kernel_growth(chosen, half)
    too_many = growth > budget.kernel_growth
    reasons.append(
        f"{growth:.2f} times the kernels of FP16 ({int8.kernels} against {fp16.kernels}), "
        + ("more than" if too_many else "of at most")
        + f" {budget.kernel_growth:g}"
    )
    reasons.append(
        f"estimated {int8.fused_estimate_ms:.2f} ms against {fp16.estimate_ms:.2f} in FP16, or {int8.estimate_ms:.2f}"
        " with a convolution and what follows it in two kernels"
    )
    if faster := _faster(chosen, half, budget, tried):
        reasons.append(faster)
    slower = int8.fused_estimate_ms >= fp16.estimate_ms
    if slower and depthwise:
        reasons.append(
            f"{depthwise} depthwise convolutions stay FP16 here; MobileNetV2, estimated a fifth too slow for that,"
            " ran on a board in 0.78 of FP16's time"
        )
    bad = lossy or too_many or slower
    return "fp16" if bad else "int8", tuple(reasons)


def kernel_growth(trial: Trial, half: Trial) -> float:
    """Return the kernels of a trial as a multiple of the FP16 engine's; 1 without a compiler."""
    return trial.compiled.kernels / half.compiled.kernels if trial.compiled and half.compiled else 1.0


def _faster(chosen: Trial, half: Trial, budget: Budget, tried: Sequence[Trial]) -> str:
    """Say which placement would be the fastest, and the limit that excludes it; nothing if that is the chosen one."""
    assert chosen.compiled is not None
    compiled = [(one.compiled.fused_estimate_ms, one) for one in tried if one.compiled]
    for estimate_ms, trial in sorted(compiled, key=lambda pair: pair[0]):
        lost, growth = losses(trial, None, budget), kernel_growth(trial, half)
        if estimate_ms >= chosen.compiled.fused_estimate_ms:
            return ""
        if lost and budget.ap_drop is None:  # where AP decides, only that of the chosen one is known
            return f"{trial.title} would be estimated {estimate_ms:.2f} ms, but {lost[0]}"
        if not lost and growth > budget.kernel_growth:
            return f"{trial.title} would be estimated {estimate_ms:.2f} ms, with {growth:.2f} times the kernels"
    return ""
