"""Trials: a graph with some convolutions in INT8, run, compiled and compared with FP32, and the verdict on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import onnx

from fine_edge import console
from fine_edge.engine.platform import here
from fine_edge.errors import ConfigError
from fine_edge.estimate.latency import Conditions
from fine_edge.evaluate.boxes import evaluate_boxes
from fine_edge.evaluate.coco_data import CocoData
from fine_edge.fp16.budget import Deviation, deviation, found_by
from fine_edge.fp16.network import Found, Network
from fine_edge.graph.convert import kept_by_exporter, to_fp16
from fine_edge.graph.emulate import emulated
from fine_edge.graph.identity import identity_of
from fine_edge.graph.view import GraphView
from fine_edge.int8.compiled import GraphCost, compiled
from fine_edge.int8.pairs import pair_count, raised, with_pairs
from fine_edge.int8.placement import Convolution
from fine_edge.parity.report import TOLERANCES
from fine_edge.runners.opened import Opened
from fine_edge.runners.ort import OrtRunner

# Of the pictures that drift is measured on, each block alone runs on every second: blocks are only set in order.
BLOCK_STEP = 2


@dataclass(frozen=True)
class Labelled:
    """Labelled pictures: the boxes, and the folder of their pictures."""

    data: CocoData
    images: Path


@dataclass(frozen=True)
class Trial:
    """A set of convolutions in INT8, and what they cost and lose.

    Attributes:
        title: name of the placement.
        chosen: the convolutions; none for the FP16 graph.
        pairs: number of tensors that are dequantised.
        drift: of what is found, against FP32.
        compiled: kernels, memory and estimate; ``None`` without NVIDIA's compiler.
    """

    title: str
    chosen: tuple[Convolution, ...]
    pairs: int
    drift: Deviation
    compiled: GraphCost | None

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks of the detector that have a convolution in INT8, in the order of the graph."""
        return tuple(dict.fromkeys(one.block for one in self.chosen))

    def without(self, block: str) -> tuple[Convolution, ...]:
        """Return the convolutions outside of a block."""
        return tuple(one for one in self.chosen if one.block != block)


@dataclass
class Trials:
    """All trials of one network; equal sets of convolutions are run once.

    Attributes:
        network: the FP32 network.
        view: the view of its graph.
        magnitudes: largest magnitude by tensor.
        images: pictures that drift is measured on.
        board: that latencies are estimated for.
        labelled: labelled pictures, for AP.
    """

    network: Network
    view: GraphView
    magnitudes: Mapping[str, float]
    images: Sequence[Path]
    board: Conditions
    labelled: Labelled | None = None
    _done: dict[frozenset[str], Trial] = field(default_factory=dict)

    @cached_property
    def half(self) -> onnx.ModelProto:
        """The FP16 graph, of an opset that takes FP16 scales."""
        return raised(to_fp16(self.view, keep_fp32=kept_by_exporter(self.network.model)))

    @cached_property
    def reference(self) -> list[Found]:
        """What the FP32 graph finds, in its own opset."""
        return self._found("FP32", self.network.model, self.images)

    def model(self, chosen: Sequence[Convolution]) -> onnx.ModelProto:
        """Return the graph with these convolutions in INT8."""
        return with_pairs(self.half, chosen, self.magnitudes, self.view) if chosen else self.half

    def run(self, title: str, chosen: Sequence[Convolution], *, compile_it: bool = True) -> Trial:
        """Return a trial; what was run before is not run again."""
        key = frozenset(one.name for one in chosen)
        done = self._done.get(key)
        wants_cost = compile_it and (done is None or done.compiled is None) and bool(here().rtx)
        if done is None or wants_cost:
            model = self.model(chosen)
            done = done or self._tried(title, chosen, model, 1)
            if wants_cost:
                done = replace(done, compiled=compiled(model, self.board, self.network.path.name))
        self._done[key] = done
        return replace(done, title=title)

    def of_block(self, block: str, candidates: Sequence[Convolution]) -> Trial:
        """Return a trial of one block alone, which says where INT8 hurts: on each :data:`BLOCK_STEP`-th picture."""
        chosen = [one for one in candidates if one.block == block]
        return self._tried(block, chosen, self.model(chosen), BLOCK_STEP)

    def _tried(self, title: str, chosen: Sequence[Convolution], model: onnx.ModelProto, step: int) -> Trial:
        reference = self.reference[::step]
        found = self._found(title, emulated(model), self.images[::step])
        return Trial(title, tuple(chosen), pair_count(model), deviation(reference, found, TOLERANCES["int8"]), None)

    def average_precision(self, model: onnx.ModelProto) -> float:
        """Return the AP of a graph on the labelled pictures, 0 to 100; FP16 results are rounded as a device does.

        Raises:
            ConfigError: when there are no labelled pictures, or no contract that names the classes.
        """
        contract = self.network.contract
        if self.labelled is None or contract is None:
            raise ConfigError("AP needs labelled pictures and a contract", where="--data", hint="leave --data out")
        sha256 = identity_of(self.network.path)
        runner = OrtRunner(self.network.path, model=model)
        opened = Opened(runner, contract, "int8", sha256, sha256)
        with TemporaryDirectory() as folder:
            found = evaluate_boxes(opened, self.labelled.data, self.labelled.images, Path(folder))
        return 100 * found.boxes.ap

    def average_precision_of(self, trial: Trial) -> float:
        """Return the AP of a trial, 0 to 100, see :meth:`average_precision`."""
        return self.average_precision(emulated(self.model(trial.chosen)))

    def _found(self, title: str, model: onnx.ModelProto, images: Sequence[Path]) -> list[Found]:
        with console.progress() as bar:
            task = bar.add_task(f"running {title}", total=-(-len(images) // self.network.shape[0]))
            return found_by(self.network, model, images, lambda: bar.advance(task))


# The verdict on an INT8 graph: what it may lose and cost, and why an engine should be INT8 or FP16.

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
