"""What a comparison found, output by output and as detections, how far each may differ, and whether that is parity."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fine_edge.contract import Contract, Precision
from fine_edge.detections import Agreement
from fine_edge.preprocess import placed

# How far an artifact may differ from its reference, by precision, with the reasons.


@dataclass(frozen=True)
class Tolerance:
    """Largest accepted differences of one precision.

    Attributes:
        box_px: of a box coordinate, pixels of the network's input, or of the frame that boxes are given in.
        score: of a class score.
        logit: of a class logit.
        mask: of a mask probability.
        pixels: share of the pixels of a class map that may change class.
        quantile: share of the rows of an output that must be within; 1.0 is every row.
        flipped: share of the detections that may vanish or change class although they score clearly above the cut-off.
    """

    box_px: float
    score: float
    logit: float
    mask: float
    pixels: float
    quantile: float
    flipped: float

    def of(self, output: str, contract: Contract) -> float | None:
        """Return the limit of one output; ``None`` for class labels, which are compared as detections."""
        return {
            "boxes_xyxy": self.box_px,
            "predictions": self.box_px,  # ultralytics' output of boxes in pixels and scores
            "scores": self.score,
            "logits": self.logit,
            "masks": self.mask,
            "classes": self.pixels,
            "stuff": self.pixels,
            # Normalised boxes: the limit in pixels over the longer side.
            "boxes": self.box_px / max(contract.input_hw),
        }.get(output)


CLASS_MAPS = ("classes", "stuff")
KNOWN_OUTPUTS = ("boxes_xyxy", "boxes", "predictions", "scores", "logits", "masks", *CLASS_MAPS)

# FP32 differs by rounding alone, so every row counts. The largest drift seen over seven inputs at 640x640 with random
# weights is 0.003 px and 3e-4 in a logit for R18, 0.009 px and 1.2e-3 for R50; the limits are about twice that.
#
# FP16 rounds 8192 times coarser. Most boxes move by a fraction of a pixel (median 0.2 to 0.7 px, nine tenths within
# 2.3 px and 0.3 of a logit), but RT-DETR takes its 300 queries out of a top-k: rounding swaps near-ties at its end,
# the queries attend to each other, and single boxes then move by tens of pixels. So nine tenths of the rows must be
# within the limits, and what is lost altogether is limited as a share of the detections.
#
# INT8 has 256 levels for a whole map. Trained detectors keep their AP then, while boxes move by pixels and single
# scores by a tenth: the limits are twice those of FP16. Ranges hold for pictures like those they were found on
# (parity --images); an INT8 file has golden outputs of its own, of such pictures. There FP16's rounding alone tips
# values from one level to the next: 3.9 px and 0.02 for nine tenths of YOLOv8-S with FINE and random weights.
TOLERANCES: dict[Precision, Tolerance] = {
    "fp32": Tolerance(box_px=0.02, score=5e-4, logit=3e-3, mask=2e-3, pixels=2e-4, quantile=1.0, flipped=0.0),
    "fp16": Tolerance(box_px=4.0, score=0.05, logit=0.6, mask=0.1, pixels=0.03, quantile=0.9, flipped=0.05),
    "int8": Tolerance(box_px=8.0, score=0.1, logit=1.2, mask=0.2, pixels=0.06, quantile=0.9, flipped=0.1),
}

# Where two boxes overlap by the threshold of suppression to the last digit, rounding decides whether one is dropped:
# seen once or twice in 600 detections of a YOLO.
NEAR_TIES_OF_SUPPRESSION = 0.005


# A graph that shrinks frames with antialiasing rounds sums between two levels of 255 by single precision, Pillow by
# integers: one value in a thousand differs by a level, and near-ties of the top-k swap as in FP16. Seen for R18 with
# random weights at 320x320, from 1080p: 0.36 px of the input, 0.013 in a score, 0.8 % of the detections.
_ROUNDED_FRAMES = Tolerance(box_px=1.0, score=0.03, logit=0.3, mask=0.03, pixels=2e-4, quantile=0.99, flipped=0.02)


def tolerance_for(contract: Contract, precision: Precision) -> Tolerance:
    """Return the limits for one artifact."""
    tolerance = TOLERANCES[precision]
    if inside := contract.preprocessing.in_graph:
        if precision == "fp32" and contract.preprocessing.antialias:
            tolerance = _ROUNDED_FRAMES
        # The same boxes in pixels of the frame, of which several lie in one of the input.
        placement, _, _ = placed(contract.input_hw, inside.height, inside.width, contract.preprocessing)
        per_input_px = 1 / min(1.0, placement.scale_x, placement.scale_y)
        tolerance = replace(tolerance, box_px=tolerance.box_px * per_input_px)
    if contract.made_by.get("suppresses"):
        return replace(tolerance, flipped=max(tolerance.flipped, NEAR_TIES_OF_SUPPRESSION))
    return tolerance


@dataclass(frozen=True)
class TensorDrift:
    """The differences of one output over all inputs.

    Attributes:
        output: its name.
        max_abs: largest absolute difference.
        max_rel: largest difference relative to the reference.
        at_quantile: the difference that decides: the largest among the share of rows that must be within tolerance.
        where: input, image and index of the largest difference.
        tolerance: the limit for ``at_quantile``.
    """

    output: str
    max_abs: float
    max_rel: float
    at_quantile: float
    where: str
    tolerance: float

    @property
    def ok(self) -> bool:
        """Return whether the difference is within tolerance; NaN is not."""
        return bool(self.at_quantile <= self.tolerance)


@dataclass(frozen=True)
class ParityReport:
    """The result of one comparison; ``non_finite`` says where one side gave NaN or an infinity."""

    model: str
    precision: Precision
    reference: str
    candidate: str
    artifact_sha256: str
    random_weights: bool
    inputs: tuple[str, ...]
    near_ties: tuple[str, ...]
    tensors: tuple[TensorDrift, ...]
    detections: Agreement | None  # None where no output holds detections
    tolerance: Tolerance
    non_finite: tuple[str, ...] = ()

    @property
    def flipped_share(self) -> float:
        """Return the share of both sides' detections that have no partner although they score above the cut-off."""
        d = self.detections
        if d is None:
            return 0.0
        return d.flipped / max(1, 2 * d.matched + d.flipped + d.ties)

    @property
    def ok(self) -> bool:
        """Return whether something was compared, every tensor is within tolerance and few detections are lost."""
        return (
            not self.compared_nothing
            and not self.non_finite
            and all(tensor.ok for tensor in self.tensors)
            and self.flipped_share <= self.tolerance.flipped
        )

    @property
    def compared_nothing(self) -> bool:
        """Return whether neither side found anything in any input, which proves nothing."""
        return not self.tensors and not (self.detections and self.detections.matched)

    @property
    def failure(self) -> str:
        """Return why it is not ok, in words."""
        if self.non_finite:
            return f"NaN or infinite: {', '.join(self.non_finite[:3])}"
        if self.compared_nothing:
            return "nothing was found that could be compared, in any input"
        tensor = ""
        if self.worst:
            worst = self.worst
            figures = f"{worst.at_quantile:.3g} (tolerance {worst.tolerance:.3g})"
            tensor = f"worst is {worst.output}, {figures}, largest at {worst.where}; "
        return f"{tensor}{self.flipped_share:.2%} of the detections flipped"

    @property
    def worst(self) -> TensorDrift | None:
        """Return the tensor nearest to, or furthest beyond, its tolerance; ``None`` where nothing was compared."""
        return max(
            self.tensors,
            key=lambda t: np.inf if np.isnan(t.at_quantile) else t.at_quantile / t.tolerance,
            default=None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        worst = self.worst
        return {
            "ok": self.ok,
            "model": self.model,
            "precision": self.precision,
            "reference": self.reference,
            "candidate": self.candidate,
            "artifact_sha256": self.artifact_sha256,
            "random_weights": self.random_weights,
            "inputs": list(self.inputs),
            "near_ties": list(self.near_ties),
            "non_finite": list(self.non_finite),
            "worst": worst
            and {"output": worst.output, "max_abs": worst.max_abs, "max_rel": worst.max_rel, "where": worst.where},
            "tensors": [asdict(tensor) | {"ok": tensor.ok} for tensor in self.tensors],
            "detections": self.detections and (asdict(self.detections) | {"flipped_share": self.flipped_share}),
            "tolerance": asdict(self.tolerance),
        }
